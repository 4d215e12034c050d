"""Kubernetes quantities ("100m", "1Gi", "1e3"): parse, compare, add, write in canonical form.

A value is held exactly, as a whole number of nano-units; finer parts are rounded away from zero, as the API does.
Knows nothing of what is counted: the unit (cores, bytes) is the reader's business.

Upstream counterpart: apimachinery pkg/api/resource. Differences: every value above 2^63-1 is cut to it (upstream lets
some decimal ones through, and reads others as zero), nothing overflows, negative fractions are rounded as positive
ones are, and a text longer than 256 characters is refused.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Any, Final

_NANO: Final = 10**9
_MAX_NANOS: Final = (2**63 - 1) * _NANO
_MAX_TEXT_LENGTH: Final = 256

_SHAPE = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>[0-9]*)(?:\.(?P<part>[0-9]*))?"
    r"(?:(?P<binary>[KMGTPE]i)|(?P<decimal>[numkMGTPE])|[eE](?P<exponent>[+-]?[0-9]+))?"
)
_DECIMAL_EXPONENTS: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIXES: Final = {exponent: suffix for suffix, exponent in _DECIMAL_EXPONENTS.items()}
_BINARY_SUFFIXES: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


class InvalidQuantity(ValueError):
    """The text is no quantity; the message shows it and says what would be one."""


class Format(Enum):
    """How a quantity was written, and so how it is written again."""

    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


@dataclass(frozen=True, slots=True, order=True)
class Quantity:
    """An exact amount. Equality and order look at the amount, not at the spelling."""

    nanos: int
    format: Format = field(default=Format.DECIMAL_SI, compare=False)

    @property
    def value(self) -> int:
        """Whole units, rounded away from zero."""
        return _divide_away_from_zero(self.nanos, _NANO)

    @property
    def milli_value(self) -> int:
        """Thousandths of a unit, rounded away from zero."""
        return _divide_away_from_zero(self.nanos, _NANO // 1000)

    @property
    def is_zero(self) -> bool:
        """Nothing."""
        return self.nanos == 0

    def __bool__(self) -> bool:
        return self.nanos != 0

    def __add__(self, other: "Quantity") -> "Quantity":
        return Quantity(_bounded(self.nanos + other.nanos), self.format if self.nanos else other.format)

    def __sub__(self, other: "Quantity") -> "Quantity":
        return Quantity(_bounded(self.nanos - other.nanos), self.format if self.nanos else other.format)

    def rounded_up_to_milli(self) -> "Quantity":
        """As the API server stores resource lists: nothing finer than a thousandth."""
        return Quantity(self.milli_value * (_NANO // 1000), self.format)

    def __str__(self) -> str:
        """The canonical text: no fraction, the largest suffix that needs none."""
        if self.nanos == 0:
            return "0"
        if self.format is Format.BINARY_SI and abs(self.nanos) >= 1024 * _NANO and self.nanos % _NANO == 0:
            return _binary_text(self.nanos // _NANO)
        return _decimal_text(self.nanos, self.format)


ZERO: Final = Quantity(0)


def parse(value: Any) -> Quantity:
    """A quantity from what a manifest holds: text, or a number that YAML or JSON took for one; or a quantity."""
    if isinstance(value, Quantity):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidQuantity(f'{value!r} is no quantity: expected text such as "500m" or "1Gi"')
    return _parse_text(value if isinstance(value, str) else _text_of_number(value))


def from_units(units: int, written_as: Format = Format.DECIMAL_SI) -> Quantity:
    """So many whole units."""
    return Quantity(_bounded(units * _NANO), written_as)


def from_milli(milli: int) -> Quantity:
    """So many thousandths."""
    return Quantity(_bounded(milli * (_NANO // 1000)))


def from_bytes(count: int) -> Quantity:
    """So many bytes, written with Ki, Mi, Gi."""
    return from_units(count, Format.BINARY_SI)


def _text_of_number(number: int | float) -> str:
    try:
        return str(number)
    except ValueError as error:  # an integer too long for Python to write out
        raise InvalidQuantity("a number with thousands of digits is no quantity") from error


@lru_cache(maxsize=1024)
def _parse_text(text: str) -> Quantity:
    shape = _SHAPE.fullmatch(text) if len(text) <= _MAX_TEXT_LENGTH else None
    if shape is None or not (shape["whole"] or shape["part"]):
        raise InvalidQuantity(
            f"{text[:60]!r} is no quantity: expected a number with an optional suffix "
            'out of n u m k M G T P E, Ki Mi Gi Ti Pi Ei or e<exponent>, such as "500m" or "1Gi"'
        )
    part = shape["part"] or ""
    digits = int((shape["whole"] or "") + part)
    written_as, exponent, factor = _scale(shape)
    nanos = _scaled(digits * factor, exponent - len(part) + 9)
    if written_as is Format.BINARY_SI and 0 < nanos < _NANO:
        written_as = Format.DECIMAL_SI
    return Quantity(_bounded(-nanos if shape["sign"] == "-" else nanos), written_as)


def _scale(shape: "re.Match[str]") -> tuple[Format, int, int]:
    """How it is written, the power of ten and the binary factor of the suffix."""
    if shape["binary"]:
        return Format.BINARY_SI, 0, int(1024 ** _BINARY_SUFFIXES.index(shape["binary"]))
    if shape["exponent"]:
        # Beyond this every number is zero-rounded-up or the maximum; without the bound 10**exponent fills the memory.
        return Format.DECIMAL_EXPONENT, max(-1000, min(1000, int(shape["exponent"]))), 1
    return Format.DECIMAL_SI, _DECIMAL_EXPONENTS[shape["decimal"] or ""], 1


def _scaled(digits: int, exponent: int) -> int:
    if exponent >= 0:
        return int(digits * 10**exponent)
    return _divide_away_from_zero(digits, 10**-exponent)


def _divide_away_from_zero(number: int, divisor: int) -> int:
    return -(-number // divisor) if number >= 0 else number // divisor


def _bounded(nanos: int) -> int:
    return max(-_MAX_NANOS, min(_MAX_NANOS, nanos))


def _binary_text(units: int) -> str:
    power = 0
    while units % 1024 == 0 and power < len(_BINARY_SUFFIXES) - 1:
        units //= 1024
        power += 1
    return f"{units}{_BINARY_SUFFIXES[power]}"


def _decimal_text(nanos: int, written_as: Format) -> str:
    exponent = -9
    while nanos % 1000 == 0 and exponent < 18:
        nanos //= 1000
        exponent += 3
    if written_as is Format.DECIMAL_EXPONENT:
        return f"{nanos}e{exponent}" if exponent else str(nanos)
    return f"{nanos}{_DECIMAL_SUFFIXES[exponent]}"
