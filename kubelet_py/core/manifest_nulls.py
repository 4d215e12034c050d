"""What null stands for in a manifest, where the types have no room for it: nothing of its kind, as Go decodes it.

`labels: {a: null}` is the label a with no text, a limit of null is a quantity of 0, a null in a list is an empty text,
a 0 or an object in which nothing is set. Fields stay null: the optional ones are unset then, the required ones missing,
but for the few that may be left out as well. Whether nothing is allowed there is for the checks to say. Pure.

Upstream counterpart: Go's encoding/json, and UnmarshalJSON of apimachinery's Quantity.
"""

import types
from collections.abc import Mapping
from typing import Any, Final, Union, get_args, get_origin

import msgspec

_QUANTITIES: Final = frozenset({"limits", "requests", "overhead", "capacity", "allocatedResources"})
"""Maps to quantities; all other maps are to texts."""
_MAY_BE_NOTHING: Final = frozenset({"value", "seconds", "preference"})
"""Required fields that Go's types do not require and no check does: of headers, sysctls, sleeps and preferred nodes."""
_SCALARS: Final[Mapping[Any, Any]] = {str: "", int: 0}


def without_nulls(value: Any, kind: Any) -> Any:
    """A copy of the value, without those nulls, as far as it fits the type."""
    return _filled(value, _plain(kind), "")


def _filled(value: Any, kind: Any, name: str) -> Any:
    if isinstance(value, list) and get_origin(kind) is list:
        (item,) = (_plain(argument) for argument in get_args(kind))
        return [_nothing(item) if child is None else _filled(child, item, "") for child in value]
    if not isinstance(value, dict):
        return value
    if kind is dict:
        nothing = "0" if name in _QUANTITIES else ""
        return {key: nothing if child is None else child for key, child in value.items()}
    if not _is_struct(kind):
        return value
    kinds = {field.name: _plain(field.type) for field in msgspec.structs.fields(kind)}
    filled = {key: _filled(child, kinds.get(key), key) for key, child in value.items()}
    gaps = [field.name for field in msgspec.structs.fields(kind) if field.required and field.name in _MAY_BE_NOTHING]
    return filled | {name: _nothing(kinds[name]) for name in gaps if filled.get(name) is None}


def _nothing(kind: Any) -> Any:
    """The zero of a type; None for an object with required fields, which no zero can be."""
    if _is_struct(kind):
        return None if any(field.required for field in msgspec.structs.fields(kind)) else {}
    return _SCALARS[kind]


def _plain(kind: Any) -> Any:
    """The type without its `| None`."""
    arguments = get_args(kind)
    if get_origin(kind) not in (Union, types.UnionType) or types.NoneType not in arguments:
        return kind
    others = [argument for argument in arguments if argument is not types.NoneType]
    return others[0] if len(others) == 1 else Any


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
