"""JSON to Kubernetes objects and back.

Decoding checks types, ignores fields that the models do not know (a newer API server may send them) and names the
path of what does not fit. Encoding leaves out what is unset. Source of the format: Kubernetes API conventions.

Any thread may decode. msgspec looks at a class when its first decoder is made, and until it has looked at all of it,
another thread that wants the class gets what is there so far: null pointers (msgspec 0.22). One at a time looks here.
"""

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class InvalidObject(ValueError):
    """The bytes are no such object; the message names the path and what was expected there."""


_decoders: "dict[Any, msgspec.json.Decoder[Any]]" = {}
_making = threading.Lock()


def _decoder(kind: Any) -> "msgspec.json.Decoder[Any]":
    """One decoder per type: making one walks the whole type tree."""
    decoder = _decoders.get(kind)
    if decoder is None:
        with _making:
            decoder = _decoders.setdefault(kind, msgspec.json.Decoder(kind))
    return decoder


_encoder = msgspec.json.Encoder()


def decode(kind: type[T], data: bytes | str) -> T:
    """One object of `kind` from JSON; raises InvalidObject."""
    try:
        value: T = _decoder(kind).decode(data)
        return value
    except msgspec.DecodeError as error:
        raise InvalidObject(str(error)) from error
    except RecursionError as error:
        raise InvalidObject("it is nested too deeply") from error


def encode(value: Any) -> bytes:
    """JSON of an object, without the fields that are None."""
    return _encoder.encode(value)


def from_builtins(kind: type[T], value: Any) -> T:
    """One object of `kind` from dicts and lists, such as YAML gives; raises InvalidObject."""
    _decoder(kind)  # by which the class is known in whole
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        raise InvalidObject(str(error)) from error


def to_builtins(value: Any) -> Any:
    """Dicts, lists and strings of an object, without the fields that are None."""
    return msgspec.to_builtins(value, builtin_types=())


def copy(value: T) -> T:
    """A deep copy through the wire form."""
    return decode(type(value), encode(value))
