"""What is wrong with something that a person wrote: where, what stands there, what would be right.

Upstream counterpart: apimachinery pkg/util/validation/field (its wording is kept where tools may read it).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

_SHOWN_LENGTH: Final = 80


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong. `path` is the field's, `line` the place in the text (0 when unknown)."""

    path: str
    message: str
    line: int = 0

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        return f"line {self.line}: {text}" if self.line else text


class ManifestError(ValueError):
    """A manifest that cannot be used, with everything that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))


class ProblemList:
    """Collects problems while a check walks through an object."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def required(self, path: str, what: str = "") -> None:
        """Nothing stands where something must."""
        self.found.append(Problem(path, f"Required value: {what}" if what else "Required value"))

    def invalid(self, path: str, value: Any, why: str) -> None:
        """What stands there cannot be; nothing happens when `why` is empty."""
        if why:
            self.found.append(Problem(path, f"Invalid value: {shown(value)}: {why}"))

    def duplicate(self, path: str, value: Any) -> None:
        """It stands elsewhere already."""
        self.found.append(Problem(path, f"Duplicate value: {shown(value)}"))

    def not_found(self, path: str, value: Any, among: str) -> None:
        """It names something that is not there."""
        self.found.append(Problem(path, f"Not found: {shown(value)}: {among}"))

    def forbidden(self, path: str, why: str) -> None:
        """It may not stand here."""
        self.found.append(Problem(path, f"Forbidden: {why}"))

    def one_of(self, path: str, value: Any, allowed: Iterable[str]) -> None:
        """One of a few words, or None."""
        if value is None:
            return
        words = tuple(allowed)
        if value not in words:
            self.found.append(
                Problem(
                    path, f"Unsupported value: {shown(value)}: supported values: {', '.join(shown(w) for w in words)}"
                )
            )

    def at_least(self, path: str, value: int | None, least: int) -> None:
        """A number that may be unset, but not too small."""
        if value is not None and value < least:
            self.invalid(path, value, f"must be greater than or equal to {least}")


def shown(value: Any) -> str:
    """A value for people: text in quotes, long ones cut."""
    try:
        text = f'"{value}"' if isinstance(value, str) else repr(value)
    except ValueError:
        return "a number with thousands of digits"
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."
