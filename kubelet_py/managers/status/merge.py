"""The patch that brings a pod's status at the API server to what this node says. Pure.

The node owns its fields and its conditions; what others write (readiness gates, nominations, claim statuses) is left
alone, whatever copy of it a computed status carries.

Upstream counterpart: pkg/kubelet/status mergePodStatus and apimachinery strategicpatch.
"""

from typing import Any, Final

from kubelet_py.api import codec, core_v1
from kubelet_py.api.pod import metadata_of
from kubelet_py.kube.strategic_patch import strategic_patch

OWNED_CONDITIONS: Final = frozenset(
    {
        "PodScheduled",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodReadyToStartContainers",
        "PodResizePending",
        "PodResizeInProgress",
        "AllContainersRestarting",
    }
)
SHARED_CONDITIONS: Final = frozenset({"DisruptionTarget"})
"""Set by us and by others; never taken away."""
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
    wanted_types = {condition["type"] for condition in new.get("conditions", ())}
    ours = OWNED_CONDITIONS | (SHARED_CONDITIONS & wanted_types)
    for status in (old, new):
        if "conditions" in status:
            status["conditions"] = [each for each in status["conditions"] if each["type"] in ours]
        for name in _CONTAINER_LISTS & status.keys():
            status[name] = [_without_empty_states(each) for each in status[name]]
    new.setdefault("conditions", [])
    old.setdefault("conditions", [])
    return strategic_patch(old, new)


def _without_empty_states(container: dict[str, Any]) -> dict[str, Any]:
    """The API server shows an empty state where none was given: no difference, and no reason to write again."""
    return {name: value for name, value in container.items() if name not in ("state", "lastState") or value}
