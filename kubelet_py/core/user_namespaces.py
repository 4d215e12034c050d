"""Which host ids the user namespace of a pod maps to: the node's range, cut into blocks of one size, one block a pod.

Upstream counterpart: pkg/kubelet/userns, getKubeletMappings in pkg/kubelet/kubelet_pods.go; the file that keeps a
pod's mapping is the Go kubelet's own.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import msgspec

from cri_proto import runtime_v1 as cri
from kubelet_py.api import codec

DEFAULT_IDS_PER_POD: Final = 65536
_LAST_ID: Final = 2**32
_SUBIDS_LINE: Final = re.compile(r"0:\s+\S+\s+(\d+)\s+(\d+)\s*")


@dataclass(frozen=True, slots=True)
class IdRange:
    """Ids of the host that pods may have, in blocks."""

    first: int
    length: int
    block: int = DEFAULT_IDS_PER_POD

    def free_block(self, used: Collection[tuple[int, int]]) -> int | None:
        """The lowest first id of a block of which no pod has an id; what pods have: first id and length of each."""
        blocks = range(self.first, self.first + self.length, self.block)
        return next((first for first in blocks if not any(self._overlaps(first, *other) for other in used)), None)

    def _overlaps(self, first: int, other: int, length: int) -> bool:
        return first < other + length and other < first + self.block

    def holds(self, first: int, length: int) -> bool:
        """The mapping is one of the blocks."""
        is_inside = self.first <= first < self.first + self.length
        return length == self.block and first % self.block == 0 and is_inside


def default_range(ids_per_pod: int) -> IdRange:
    """All ids but the first block, which holds the host's own users."""
    return IdRange(ids_per_pod, _LAST_ID - ids_per_pod, ids_per_pod)


def parse_subids(uids: str, gids: str, ids_per_pod: int) -> IdRange:
    """The range that `getsubids kubelet` and `getsubids -g kubelet` name; ValueError says what would be right."""
    if uids != gids:
        raise ValueError("user kubelet has other subordinate gids than uids: /etc/subuid and /etc/subgid must agree")
    line = _SUBIDS_LINE.fullmatch(uids)
    if line is None:
        raise ValueError(f"getsubids says {uids!r} about user kubelet: one range is expected")
    return IdRange(int(line[1]), int(line[2]), ids_per_pod)


def range_problem(ids: IdRange, max_pods: int) -> str:
    """What is wrong with a range, or ""."""
    if ids.first % ids.block or ids.length % ids.block:
        return f"the ids {ids.first}+{ids.length} of user kubelet must begin and end at multiples of {ids.block}"
    if ids.first < ids.block:
        return f"the ids of user kubelet begin at {ids.first}: they must leave the first {ids.block} to the host"
    if ids.length // ids.block < max_pods:
        return f"the ids of user kubelet are enough for {ids.length // ids.block} pods, and maxPods is {max_pods}"
    return ""


class _Mapping(msgspec.Struct):
    hostId: int
    containerId: int
    length: int


class _File(msgspec.Struct):
    uidMappings: list[_Mapping]
    gidMappings: list[_Mapping]


def encode_mapping(first: int, length: int) -> bytes:
    """The content of a pod's file `userns`."""
    mapping = [{"hostId": first, "containerId": 0, "length": length}]
    return json.dumps({"uidMappings": mapping, "gidMappings": mapping}, separators=(",", ":")).encode()


def decode_mapping(content: bytes) -> tuple[int, int]:
    """First host id and length; ValueError for anything that no kubelet would have written."""
    file = codec.decode(_File, content)
    if len(file.uidMappings) != 1 or file.uidMappings != file.gidMappings:
        raise ValueError("one mapping is expected, the same for uids and gids")
    mapping = file.uidMappings[0]
    if mapping.containerId != 0:
        raise ValueError("the root of the pod must be mapped")
    return mapping.hostId, mapping.length


def to_cri_user_namespace(first: int, length: int) -> cri.UserNamespace:
    """A namespace of the pod's own."""
    mapping = cri.IDMapping(host_id=first, container_id=0, length=length)
    return cri.UserNamespace(mode=cri.POD, uids=[mapping], gids=[mapping])
