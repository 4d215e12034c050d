"""The patch that brings a pod's status at the API server to what this node says. Pure.

The node owns its fields and its conditions; what others write (readiness gates, nominations, claim statuses) is left
alone, whatever copy of it a computed status carries.

Upstream counterpart: pkg/kubelet/status mergePodStatus and apimachinery strategicpatch.
"""

from typing import Any, Final

from kubelet_py.api import codec, core_v1
from kubelet_py.api.pod import metadata_of
from kubelet_py.core.pod_conditions import DISRUPTION_TARGET, OWNED, TERMINATION_BY_KUBELET, condition_of
from kubelet_py.core.pod_phase import TERMINAL_PHASES
from kubelet_py.kube.strategic_patch import strategic_patch

FOREIGN_FIELDS: Final = frozenset(
    {
        "nominatedNodeName",
        "resourceClaimStatuses",
        "extendedResourceClaimStatus",
        "nodeAllocatableResourceClaimStatuses",
    }
)
IMMUTABLE_FIELDS: Final = frozenset({"qosClass", "startTime"})
"""Once the API server has one, it stays."""
_CONTAINER_LISTS: Final = frozenset({"containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"})


def is_progress_only(pod: core_v1.Pod, at_server: core_v1.PodStatus | None, wanted: core_v1.PodStatus) -> bool:
    """Whether a status tells nobody anything to act on: the pod is on its way up or down, with its phase and readiness
    as they were."""
    before = at_server or core_v1.PodStatus()
    if (before.phase, _is_ready(before)) != (wanted.phase, _is_ready(wanted)):
        return False
    return wanted.phase == "Pending" or metadata_of(pod).deletionTimestamp is not None


def _is_ready(status: core_v1.PodStatus) -> bool:
    return any(condition.type == "Ready" and condition.status == "True" for condition in status.conditions or ())


def status_changes(at_server: core_v1.PodStatus | None, wanted: core_v1.PodStatus) -> dict[str, Any]:
    """The strategic merge patch of the status; empty when nothing of ours differs."""
    old: dict[str, Any] = codec.to_builtins(at_server) if at_server is not None else {}
    new: dict[str, Any] = codec.to_builtins(wanted)
    for name in FOREIGN_FIELDS:
        old.pop(name, None)
        new.pop(name, None)
    for name in IMMUTABLE_FIELDS:
        if name in old:
            new.pop(name, None)
            old.pop(name)
    ours = OWNED | ({DISRUPTION_TARGET} if _ends_by_our_doing(wanted) else set())
    for status in (old, new):
        if "conditions" in status:
            status["conditions"] = [each for each in status["conditions"] if each["type"] in ours]
        for name in _CONTAINER_LISTS & status.keys():
            status[name] = [_without_empty_states(each) for each in status[name]]
    new.setdefault("conditions", [])
    old.setdefault("conditions", [])
    return strategic_patch(old, new)


def _ends_by_our_doing(wanted: core_v1.PodStatus) -> bool:
    """DisruptionTarget is set by others as well: it is ours to write when the node has ended the pod, and then only."""
    said = condition_of(wanted.conditions, DISRUPTION_TARGET)
    return wanted.phase in TERMINAL_PHASES and said is not None and said.reason == TERMINATION_BY_KUBELET


def _without_empty_states(container: dict[str, Any]) -> dict[str, Any]:
    """The API server shows an empty state where none was given: no difference, and no reason to write again."""
    return {name: value for name, value in container.items() if name not in ("state", "lastState") or value}
