"""What this node says that it can do beyond the common, and which of it a pod needs.

The scheduler gives pods that need such a feature only to nodes that declare it.

Upstream counterpart: component-helpers/nodedeclaredfeatures.
"""

from collections.abc import Callable, Iterable
from typing import Final

from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.core.restart_rules import could_restart_all

RESTART_ALL_CONTAINERS: Final = "RestartAllContainersOnContainerExits"
HOST_NETWORK_USER_NAMESPACES: Final = "UserNamespacesHostNetworkSupport"

WEBSOCKETS: Final = "ExtendWebSocketsToKubelet"
"""No pod needs it: the API server hands its WebSocket clients on as they are to a node that declares it."""

DECLARABLE: Final = (
    WEBSOCKETS,
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    RESTART_ALL_CONTAINERS,
)
"""Named after their feature gates."""


def declared_features(is_enabled: Callable[[str], bool]) -> tuple[str, ...]:
    """What the node declares, by name."""
    return tuple(name for name in DECLARABLE if is_enabled(name))


def missing_features(pod: core_v1.Pod, declared: Iterable[str]) -> list[str]:
    """What the pod needs and the node does not declare."""
    spec = podlib.spec_of(pod)
    needed = []
    if could_restart_all(pod):
        needed.append(RESTART_ALL_CONTAINERS)
    if spec.hostNetwork and spec.hostUsers is False:
        needed.append(HOST_NETWORK_USER_NAMESPACES)
    return [name for name in needed if name not in declared]
