"""The hash of a container's definition, which the runtime keeps in an annotation.

Only name and image count: they alone make a running container another one. The value is the Go kubelet's own, bit for
bit, so that either agent takes over the other's containers without a restart.

Upstream counterpart: pkg/kubelet/container/helpers.go (HashContainer), pkg/util/hash.
"""

import json
from collections.abc import Iterable
from typing import Final

from kubelet_py.api import core_v1

_FNV_32_OFFSET: Final = 0x811C9DC5
_FNV_32_PRIME: Final = 0x01000193
_FNV_64_OFFSET: Final = 0xCBF29CE484222325
_FNV_64_PRIME: Final = 0x100000001B3
_FNV_128_OFFSET: Final = 0x6C62272E07BB014262B821756295C58D
_FNV_128_PRIME: Final = 0x0000000001000000000000000000013B

# What Go's JSON encoder writes as escapes although JSON does not ask for it.
_GO_JSON_ESCAPES: Final = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def compute_container_hash(container: core_v1.Container | core_v1.EphemeralContainer) -> str:
    """The hash in hexadecimal, as it stands in `io.kubernetes.container.hash`."""
    fields = {"image": container.image or "", "name": container.name or ""}  # in the order in which Go sorts them
    document = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
    data = document.translate(_GO_JSON_ESCAPES).encode("utf-8", "surrogatepass")
    return f"{fnv_32a(_go_dump_of_bytes(data)):x}"


def fnv_32a(data: bytes) -> int:
    """FNV-1a with 32 bits."""
    return _fnv_1a(data, _FNV_32_OFFSET, _FNV_32_PRIME, 2**32 - 1)


def fnv_64a(data: bytes) -> int:
    """FNV-1a with 64 bits."""
    return _fnv_1a(data, _FNV_64_OFFSET, _FNV_64_PRIME, 2**64 - 1)


def fnv_128a(data: bytes) -> int:
    """FNV-1a with 128 bits."""
    return _fnv_1a(data, _FNV_128_OFFSET, _FNV_128_PRIME, 2**128 - 1)


def _fnv_1a(data: Iterable[int], start: int, prime: int, mask: int) -> int:
    value = start
    for byte in data:
        value = ((value ^ byte) * prime) & mask
    return value


def _go_dump_of_bytes(data: bytes) -> bytes:
    """How the dump library that the Go kubelet hashes through writes a byte slice."""
    return b"([]uint8)[" + b" ".join(str(byte).encode() for byte in data) + b"]"
