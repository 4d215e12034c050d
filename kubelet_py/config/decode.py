"""A configuration document (dicts and lists) to typed values by dotted path, with every mistake in it.

Owns strict decoding: unknown fields, wrong types, unreadable durations and quantities. Does not know files or flags,
and does not judge sound values (that is `validation`). Pure.

Upstream counterpart: the strict decoder of k8s.io/apimachinery. Deliberate difference: upstream warns about unknown
fields of this version and goes on without them; here they are refused, because a setting that silently does nothing
is found when it is needed.
"""

import difflib
import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from kubelet_py.api import quantity
from kubelet_py.api.durations import parse_duration
from kubelet_py.config.model import (
    API_VERSION,
    KIND,
    NANOSECONDS_TOO,
    NUMBER_TOO,
    QUANTITY,
    KubeletConfiguration,
)
from kubelet_py.config.shapes import Shape, fields_of, required_fields_of

_ABSENT: Any = object()


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where in the document, and what would be right."""

    path: str
    text: str


@dataclass(slots=True)
class Decoded:
    """What a document sets, by dotted path, and what is wrong with it."""

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def decode_configuration(document: Any) -> Decoded:
    """The values that a KubeletConfiguration document sets; a zero where zero means the default is not set."""
    result = Decoded()
    if not isinstance(document, dict):
        result.problems.append(Problem("", f"is {_describe(document)}: a KubeletConfiguration object is expected"))
        return result
    document = dict(document)
    for name, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        found = document.pop(name, None)
        if found != wanted:
            text = "is missing" if found is None else f"is {_describe(found)}"
            result.problems.append(Problem(name, f"{text}: write {name}: {wanted}"))
    _decode_object(KubeletConfiguration, document, "", result)
    return result


def closest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` when a known word is near, else nothing."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.75)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


def is_quantity(text: str) -> bool:
    """Whether the text has the form of a Kubernetes quantity."""
    try:
        quantity.parse(text)
    except quantity.InvalidQuantity:
        return False
    return True


def is_ip_address(text: str) -> bool:
    """Whether the text is an IP address of either family; without a zone, which means something on one machine only."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _decode_object(kind: type, document: dict[Any, Any], prefix: str, result: Decoded) -> None:
    shapes = fields_of(kind)
    for name, raw in document.items():
        path = f"{prefix}{name}"
        shape = shapes.get(name)
        if shape is None:
            result.problems.append(Problem(path, f"is no field of this object{closest(str(name), shapes)}"))
        elif raw is None:
            continue
        elif shape.is_object:
            if not isinstance(raw, dict):
                result.problems.append(Problem(path, f"is {_describe(raw)}: an object is expected"))
                continue
            if shape.optional:
                result.values[path] = shape.base()
            _decode_object(shape.base, raw, f"{path}.", result)
        else:
            value = _decode_value(shape, raw, path, result.problems)
            if value is not _ABSENT and not (shape.zero_means_default and not value):
                result.values[path] = value


def _decode_value(shape: Shape, raw: Any, path: str, problems: list[Problem]) -> Any:
    if shape.base is tuple:
        return _decode_list(shape, raw, path, problems)
    if shape.base is dict:
        return _decode_map(shape, raw, path, problems)
    if shape.is_object:
        return _decode_item(shape.base, raw, path, problems)
    try:
        return _decode_scalar(shape, raw)
    except ValueError as error:
        problems.append(Problem(path, f"is {_describe(raw)}: {error}"))
        return _ABSENT


def _decode_list(shape: Shape, raw: Any, path: str, problems: list[Problem]) -> Any:
    if not isinstance(raw, list):
        problems.append(Problem(path, f"is {_describe(raw)}: a list is expected"))
        return _ABSENT
    items = [_decode_value(shape.items, item, f"{path}[{index}]", problems) for index, item in enumerate(raw)]
    return tuple(item for item in items if item is not _ABSENT)


def _decode_map(shape: Shape, raw: Any, path: str, problems: list[Problem]) -> Any:
    if not isinstance(raw, dict):
        problems.append(Problem(path, f"is {_describe(raw)}: a map is expected"))
        return _ABSENT
    result: dict[str, Any] = {}
    for key, item in raw.items():
        if not isinstance(key, str):
            problems.append(Problem(path, f"has the key {key!r}: write keys as strings, in quotes"))
            continue
        value = _decode_value(shape.items, item, f"{path}.{key}", problems)
        if value is not _ABSENT:
            result[key] = value
    return result


def _decode_item(kind: type, raw: Any, path: str, problems: list[Problem]) -> Any:
    """An object inside a list: made whole, because lists are replaced and never merged."""
    if not isinstance(raw, dict):
        problems.append(Problem(path, f"is {_describe(raw)}: an object is expected"))
        return _ABSENT
    shapes = fields_of(kind)
    arguments: dict[str, Any] = {}
    for name, item in raw.items():
        if name not in shapes:
            problems.append(Problem(f"{path}.{name}", f"is no field of this object{closest(str(name), shapes)}"))
        elif item is not None:
            value = _decode_value(shapes[name], item, f"{path}.{name}", problems)
            if value is not _ABSENT:
                arguments[name] = value
    missing = [name for name in required_fields_of(kind) if name not in arguments]
    problems += [Problem(f"{path}.{name}", "is missing") for name in missing if raw.get(name) is None]
    return _ABSENT if missing else kind(**arguments)


def _decode_scalar(shape: Shape, raw: Any) -> Any:
    """The typed value of a scalar; ValueError says what is expected."""
    if shape.is_duration:
        return _decode_duration(shape, raw)
    decoder = _SCALARS.get(shape.base)
    if decoder is None:
        raise ValueError("this field cannot be set here")
    return decoder(shape, raw)


def _decode_duration(shape: Shape, raw: Any) -> float:
    if isinstance(raw, int) and not isinstance(raw, bool) and shape.has(NANOSECONDS_TOO):
        return raw / 1_000_000_000
    if not isinstance(raw, str):
        raise ValueError(f"{shape.expected} is expected")
    return parse_duration(raw)


def _decode_bool(shape: Shape, raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise ValueError(f"{shape.expected} is expected")
    return raw


def _decode_int(shape: Shape, raw: Any) -> int:
    if isinstance(raw, float) and raw.is_integer():
        return int(raw)
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise ValueError(f"{shape.expected} is expected")
    return raw


def _decode_float(shape: Shape, raw: Any) -> float:
    if not isinstance(raw, int | float) or isinstance(raw, bool):
        raise ValueError(f"{shape.expected} is expected")
    return float(raw)


def _decode_str(shape: Shape, raw: Any) -> str:
    if isinstance(raw, int | float) and not isinstance(raw, bool) and shape.has(NUMBER_TOO):
        return str(raw)
    if not isinstance(raw, str):
        hint = ": put it in quotes" if isinstance(raw, bool | int | float) else ""
        raise ValueError(f"{shape.expected} is expected{hint}")
    if shape.has(QUANTITY) and not is_quantity(raw):
        raise ValueError("a quantity is expected, such as 100m, 2 or 512Mi")
    return raw


_SCALARS: dict[Any, Callable[[Shape, Any], Any]] = {
    bool: _decode_bool,
    int: _decode_int,
    float: _decode_float,
    str: _decode_str,
}


def _describe(raw: Any) -> str:
    """A value for an error line; short, and never the inside of a map (it may hold credentials)."""
    if isinstance(raw, dict):
        return "an object"
    if isinstance(raw, list):
        return "a list"
    if raw is None:
        return "null"
    text = repr(raw) if isinstance(raw, str) else str(raw).lower() if isinstance(raw, bool) else str(raw)
    return text if len(text) <= 80 else f"{text[:77]}..."
