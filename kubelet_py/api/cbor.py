"""CBOR (RFC 8949) as Kubernetes writes it: what JSON can say, strings as byte strings, behind the self-described tag.

Owns the encoding of dicts, lists, strings, whole numbers, booleans and None; nothing here reads CBOR. Pure.

Upstream counterpart: apimachinery's pkg/runtime/serializer/cbor. Keys stay in the order given, which that encoding
leaves open.
"""

from typing import Any, Final

_SELF_DESCRIBED: Final = b"\xd9\xd9\xf7"
_UNSIGNED, _NEGATIVE, _BYTES, _LIST, _MAP = 0, 1, 2, 4, 5
_FALSE, _TRUE, _NULL = b"\xf4", b"\xf5", b"\xf6"


def encode(value: Any) -> bytes:
    """One document; TypeError for a value that has no place in one."""
    return _SELF_DESCRIBED + _item(value)


def _item(value: Any) -> bytes:
    if value is None:
        return _NULL
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, int):
        return _head(_UNSIGNED, value) if value >= 0 else _head(_NEGATIVE, -1 - value)
    if isinstance(value, str):
        text = value.encode()
        return _head(_BYTES, len(text)) + text
    if isinstance(value, list):
        return _head(_LIST, len(value)) + b"".join(_item(item) for item in value)
    if isinstance(value, dict):
        return _head(_MAP, len(value)) + b"".join(_item(key) + _item(item) for key, item in value.items())
    raise TypeError(f"{type(value).__name__} cannot be written as CBOR")


def _head(major: int, number: int) -> bytes:
    """The kind of an item with its length or value, in as few bytes as can be."""
    if number < 24:
        return bytes([major << 5 | number])
    for length, code in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if number < 1 << 8 * length:
            return bytes([major << 5 | code]) + number.to_bytes(length, "big")
    raise TypeError(f"{number} needs more than 64 bits")
