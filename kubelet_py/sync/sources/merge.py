"""All sources together: full sets in, single updates out, and whether every source has spoken.

Until every source has spoken nobody may clean up: a pod that is not known yet is not a pod that is gone.

Upstream counterpart: pkg/kubelet/config/config.go (PodConfig, sources.go).
"""

import time
from collections.abc import Callable, Iterable, Mapping

import structlog

from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.api.pod import PodUid
from kubelet_py.core.source_merge import PodSet, PodUpdate, merge_pod_set

_log = structlog.get_logger()


class SourceMerge:
    """What each source gave last."""

    def __init__(self, sources: Iterable[str], wall_clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._expected = frozenset(sources)
        self._pods: dict[str, Mapping[PodUid, core_v1.Pod]] = {}
        self._wall_clock_ns = wall_clock_ns

    @property
    def ready(self) -> bool:
        """Every configured source has delivered a set."""
        return self._expected <= self._pods.keys()

    @property
    def waiting_for(self) -> frozenset[str]:
        """The sources that have not."""
        return self._expected - self._pods.keys()

    def accept(self, pod_set: PodSet) -> tuple[PodUpdate, ...]:
        """The updates that a source's newest set stands for, in the order in which to handle them."""
        known = self._pods.get(pod_set.source, {})
        result = merge_pod_set(known, pod_set, rfc3339_nano(self._wall_clock_ns()))
        self._pods[pod_set.source] = result.pods
        for pod in result.duplicates:
            _log.error("pod_name_taken", pod=podlib.display_name(pod), source=pod_set.source, uid=podlib.uid_of(pod))
        return result.updates

    def has(self, pod_uid: PodUid) -> bool:
        """Whether any source gave this pod."""
        return any(pod_uid in pods for pods in self._pods.values())

    def pods(self) -> list[core_v1.Pod]:
        """Every pod of every source."""
        return [pod for pods in self._pods.values() for pod in pods.values()]


def rfc3339_nano(wall_clock_ns: int) -> str:
    """UTC with nine digits, always."""
    seconds, nanoseconds = divmod(wall_clock_ns, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"
