"""$(NAME) references in commands, arguments, values and paths.

`$$` is a dollar sign, an unknown name stays as it is written, and a reference that is never closed is plain text.

Upstream counterpart: third_party/forked/golang/expansion.
"""

import re
from collections.abc import Callable, Iterable, Mapping

# A dollar sign with what it means: itself, a reference up to the next ')', or nothing special.
_DOLLAR = re.compile(r"\$(?:(?P<escaped>\$)|\((?P<name>[^)]*)\))", re.DOTALL)


def expand(text: str, *variables: Mapping[str, str]) -> str:
    """The text with references replaced; the first mapping that has a name gives its value."""

    def value_of(name: str) -> str:
        for mapping in variables:
            if name in mapping:
                return mapping[name]
        return f"$({name})"

    return _replace(text, value_of)


def expand_all(texts: Iterable[str] | None, *variables: Mapping[str, str]) -> list[str]:
    """Each text of a command or argument list."""
    return [expand(text, *variables) for text in texts or ()]


def expand_strictly(text: str, variables: Mapping[str, str]) -> str:
    """As `expand`, for paths: a name that is unset or empty raises ValueError with all such names."""
    missing: set[str] = set()

    def value_of(name: str) -> str:
        if not variables.get(name):
            missing.add(name)
        return variables.get(name, "")

    expanded = _replace(text, value_of)
    if missing:
        raise ValueError(f"missing value for {', '.join(sorted(missing))}")
    return expanded


def _replace(text: str, value_of: Callable[[str], str]) -> str:
    return _DOLLAR.sub(lambda found: "$" if found["escaped"] else value_of(found["name"]), text)
