"""Events about manifests that cannot be used: on the node, since no pod came of them.

Owns which were told, so that each problem is one event until it changes. The log lines are the sources' own.
Upstream has an event only for pods that were read and are refused; a file that cannot be read is a log line there.
"""

from collections.abc import Awaitable, Callable, Mapping

from kubelet_py.core.event_rules import Recorder
from kubelet_py.core.node_rules import node_reference
from kubelet_py.core.source_merge import PodSet

FAILED_VALIDATION = "FailedValidation"


class ManifestEvents:
    """Stands between a source and whoever takes its pods."""

    def __init__(self, events: Recorder, node_name: str, accept: Callable[[PodSet], Awaitable[None]]) -> None:
        self._events = events
        self._about = node_reference(node_name)
        self._accept = accept
        self._told: Mapping[str, str] = {}

    async def accept(self, pod_set: PodSet) -> None:
        """Tells of new problems, and hands the set on."""
        problems = {problem.location: problem.message for problem in pod_set.problems}
        for location, message in problems.items():
            if self._told.get(location) != message:
                self._events.record(self._about, "Warning", FAILED_VALIDATION, f"Manifest {location}: {message}")
        self._told = problems
        await self._accept(pod_set)
