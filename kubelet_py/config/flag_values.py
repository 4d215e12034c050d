"""The text of a flag to a typed value: Go's spellings of numbers, switches, lists and maps.

Every reader takes all occurrences of its flag in order, because lists and maps add up over occurrences while the last
occurrence of anything else wins. ValueError says what would be right. Pure.

Upstream counterpart: github.com/spf13/pflag, k8s.io/component-base/cli/flag and pkg/util/flag.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kubelet_py.api import core_v1
from kubelet_py.api.durations import parse_duration
from kubelet_py.config.decode import is_ip_address, is_quantity
from kubelet_py.config.model import QUANTITY, MemoryReservation, VModuleItem
from kubelet_py.config.shapes import Shape

Reader = Callable[[Sequence[str]], Any]

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


def reader_for(shape: Shape) -> Reader:
    """How to read a flag whose value goes into a field of this shape."""
    if shape.base is tuple:
        return lambda texts: tuple(_each(reader_for(shape.items), item) for item in _comma_separated(texts))
    if shape.base is dict:
        reader = reader_for(shape.items)
        return lambda texts: {key: _each(reader, value) for key, value in _pairs(texts, "=")}
    if shape.is_duration:
        return lambda texts: [parse_duration(text) for text in texts][-1]
    if shape.has(QUANTITY):
        return lambda texts: [_quantity(text) for text in texts][-1]
    scalars: dict[Any, Callable[[str], Any]] = {bool: read_bool, int: _int, float: float, str: str}
    scalar = scalars[shape.base]
    return lambda texts: [scalar(text) for text in texts][-1]


def read_labels(texts: Sequence[str]) -> dict[str, str]:
    """Labels: `key=value,key`, where a bare key has the empty value."""
    items = (item.partition("=") for item in _comma_separated(texts))
    return {key.strip(): value.strip() for key, _, value in items}


def read_thresholds(texts: Sequence[str]) -> dict[str, str]:
    """Eviction thresholds: `memory.available<100Mi,nodefs.available<10%`."""
    return dict(_pairs(texts, "<"))


def read_headers(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """HTTP headers: `name:value,name:other value`."""
    result: dict[str, tuple[str, ...]] = {}
    for name, value in _pairs(texts, ":"):
        result[name] = (*result.get(name, ()), value)
    return result


def read_options(texts: Sequence[str]) -> dict[str, str]:
    """Policy options: one `key=value` per occurrence, commas belong to the value."""
    return dict(_pair(text, "=") for text in texts if text)


def read_taints(texts: Sequence[str]) -> tuple[core_v1.Taint, ...]:
    """Taints: `key=value:effect,key:effect`."""
    return tuple(_taint(text) for text in _comma_separated(texts))


def read_reserved_memory(texts: Sequence[str]) -> tuple[MemoryReservation, ...]:
    """Memory of NUMA nodes: `0:memory=1Gi,hugepages-1Gi=2Gi;1:memory=2Gi`."""
    return tuple(_reservation(text) for given in texts for text in given.split(";") if text)


def read_vmodule(texts: Sequence[str]) -> tuple[VModuleItem, ...]:
    """Log levels of source files: `pattern=3,other=5`."""
    pairs = _pairs(texts, "=")
    return tuple(VModuleItem(filePattern=pattern, verbosity=_int(level)) for pattern, level in pairs)


def read_ip_address(texts: Sequence[str]) -> str:
    """An IP address, where the field itself takes a host name too."""
    if not is_ip_address(texts[-1]):
        raise ValueError("an IP address is expected")
    return texts[-1]


def read_bool(text: str) -> bool:
    """A switch."""
    if text not in _TRUE + _FALSE:
        raise ValueError("true or false is expected")
    return text in _TRUE


def _int(text: str) -> int:
    try:
        return int(text.replace("_", "x"), 0) if not text.lstrip("+-").isdigit() else int(text)
    except ValueError:
        raise ValueError("a whole number is expected") from None


def _quantity(text: str) -> str:
    if not is_quantity(text):
        raise ValueError("a quantity is expected, such as 100m, 2 or 512Mi")
    return text


def _taint(text: str) -> core_v1.Taint:
    rest, colon, effect = text.rpartition(":")
    key, _, value = rest.partition("=")
    if not colon or not key:
        raise ValueError(f"{text!r} is no taint: write key=value:effect")
    return core_v1.Taint(key=key, value=value or None, effect=effect)


def _reservation(text: str) -> MemoryReservation:
    node, colon, limits = text.partition(":")
    if not colon or not node.isdigit():
        raise ValueError(f"{text!r} is no reservation: write NUMA-NODE:type=quantity[,type=quantity...]")
    return MemoryReservation(numaNode=int(node), limits={k: _quantity(v) for k, v in _pairs([limits], "=")})


def _each(reader: Reader, text: str) -> Any:
    return reader([text])


def _comma_separated(texts: Sequence[str]) -> Iterator[str]:
    for given in texts:
        yield from (item for item in given.split(",") if item)


def _pairs(texts: Sequence[str], separator: str) -> Iterator[tuple[str, str]]:
    for item in _comma_separated(texts):
        yield _pair(item, separator)


def _pair(item: str, separator: str) -> tuple[str, str]:
    key, found, value = item.partition(separator)
    if not found:
        raise ValueError(f"{item!r} has no {separator!r}: write key{separator}value")
    return key.strip(), value.strip()
