"""The QoS class of a pod and the OOM score of its containers.

Upstream counterparts: pkg/apis/core/v1/helper/qos, pkg/kubelet/qos/policy.go.
"""

from enum import StrEnum
from typing import Final

from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.core import pod_resources
from kubelet_py.core.pod_resources import CPU, MEMORY, AnyContainer

GUARANTEED_OOM_SCORE_ADJ: Final = -997
BEST_EFFORT_OOM_SCORE_ADJ: Final = 1000
NODE_CRITICAL_CLASS: Final = "system-node-critical"


class QosClass(StrEnum):
    """In the API's spelling."""

    GUARANTEED = "Guaranteed"
    BURSTABLE = "Burstable"
    BEST_EFFORT = "BestEffort"


def qos_class_of(pod: core_v1.Pod) -> QosClass:
    """The class that the status already states, else the computed one: it never changes during a pod's life."""
    stated = pod.status.qosClass if pod.status is not None else None
    return QosClass(stated) if stated else compute_qos_class(pod)


def compute_qos_class(pod: core_v1.Pod) -> QosClass:
    """From the pod-level resources when there are any, else from the init and main containers."""
    if pod_resources.has_pod_level_resources(pod):
        return _class_of_requirements(podlib.spec_of(pod).resources)
    classes = {
        _class_of_requirements(container.resources)
        for container in (*podlib.init_containers_of(pod), *podlib.containers_of(pod))
    }
    return _joined(classes)


def oom_score_adj(pod: core_v1.Pod, container: AnyContainer, node_memory_bytes: int) -> int:
    """How willing the kernel shall be to kill the container's processes: -997 hardly, 1000 first."""
    if podlib.is_critical(pod) and podlib.spec_of(pod).priorityClassName == NODE_CRITICAL_CLASS:
        return GUARANTEED_OOM_SCORE_ADJ
    qos = qos_class_of(pod)
    if qos is QosClass.GUARANTEED:
        return GUARANTEED_OOM_SCORE_ADJ
    if qos is QosClass.BEST_EFFORT:
        return BEST_EFFORT_OOM_SCORE_ADJ
    share_bytes = _leftover_share_bytes(pod)
    score = _score(_memory_request_bytes(container) + share_bytes, node_memory_bytes)
    if _is_sidecar_of(pod, container):
        # A sidecar must not die before the containers that it serves.
        smallest = min((_memory_request_bytes(main) for main in podlib.containers_of(pod)), default=0)
        score = min(score, _score(smallest + share_bytes, node_memory_bytes))
    return max(1000 + GUARANTEED_OOM_SCORE_ADJ, min(BEST_EFFORT_OOM_SCORE_ADJ - 1, score))


def _class_of_requirements(resources: core_v1.ResourceRequirements | None) -> QosClass:
    if resources is None or not (resources.requests or resources.limits):
        return QosClass.BEST_EFFORT
    classes = set()
    for name in (CPU, MEMORY):
        request = pod_resources.quantity_of(resources.requests, name)
        limit = pod_resources.quantity_of(resources.limits, name)
        if request != limit:
            return QosClass.BURSTABLE
        classes.add(QosClass.GUARANTEED if request else QosClass.BEST_EFFORT)
    return _joined(classes)


def _joined(classes: set[QosClass]) -> QosClass:
    if not classes:
        return QosClass.BEST_EFFORT
    return classes.pop() if len(classes) == 1 else QosClass.BURSTABLE


def _memory_request_bytes(container: AnyContainer) -> int:
    return pod_resources.quantity_of(pod_resources.requests_of(container), MEMORY).value


def _leftover_share_bytes(pod: core_v1.Pod) -> int:
    """Each container's part of the pod-level memory request that no container asked for."""
    pod_level = pod_resources.pod_level_requests_of(pod).get(MEMORY)
    if not pod_level:
        return 0
    asked = pod_resources.compute_container_requests(pod).get(MEMORY)
    leftover = max(0, pod_level.value - (asked.value if asked else 0))
    return leftover // (len(podlib.containers_of(pod)) + len(podlib.init_containers_of(pod)))


def _score(memory_bytes: int, node_memory_bytes: int) -> int:
    return 1000 - 1000 * memory_bytes // node_memory_bytes


def _is_sidecar_of(pod: core_v1.Pod, container: AnyContainer) -> bool:
    return container.restartPolicy == "Always" and any(
        init.name == container.name for init in podlib.init_containers_of(pod)
    )
