"""What a pod and its containers ask for and may use, summed by the rules of the API.

Main containers and sidecars add up; the init containers, each with the sidecars that run beside it, set a floor.
Pod-level requests and limits replace the sum; overhead comes on top.

Upstream counterpart: component-helpers/resource/helpers.go. Not here yet: resources that devices claim (DRA), and the
status side of in-place resize.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.api import quantity as q

ResourceList = dict[str, q.Quantity]

CPU: Final = "cpu"
MEMORY: Final = "memory"
EPHEMERAL_STORAGE: Final = "ephemeral-storage"
PODS: Final = "pods"
HUGEPAGES_PREFIX: Final = "hugepages-"

AnyContainer = core_v1.Container | core_v1.EphemeralContainer


def quantities(raw: Mapping[str, Any] | None) -> ResourceList:
    """A resource list as amounts."""
    return {name: q.parse(value) for name, value in (raw or {}).items()}


def quantity_of(raw: Mapping[str, Any] | None, name: str) -> q.Quantity:
    """One amount; zero when it is not there."""
    value = (raw or {}).get(name)
    return q.ZERO if value is None else q.parse(value)


def requests_of(container: AnyContainer) -> Mapping[str, Any]:
    """The requests as written."""
    return (container.resources.requests if container.resources else None) or {}


def limits_of(container: AnyContainer) -> Mapping[str, Any]:
    """The limits as written."""
    return (container.resources.limits if container.resources else None) or {}


def pod_level_requests_of(pod: core_v1.Pod) -> ResourceList:
    """The supported pod-level requests."""
    resources = podlib.spec_of(pod).resources
    return _supported_at_pod_level(resources.requests if resources else None)


def pod_level_limits_of(pod: core_v1.Pod) -> ResourceList:
    """The supported pod-level limits."""
    resources = podlib.spec_of(pod).resources
    return _supported_at_pod_level(resources.limits if resources else None)


def has_pod_level_resources(pod: core_v1.Pod) -> bool:
    """The pod as a whole names a request or limit."""
    return bool(pod_level_requests_of(pod) or pod_level_limits_of(pod))


def is_extended_resource(name: str) -> bool:
    """A resource of some vendor, counted in whole units: `example.com/gpu`."""
    if "/" not in name or name.startswith("requests."):
        return False
    return not name.split("/", 1)[0].endswith("kubernetes.io")


def compute_container_requests(pod: core_v1.Pod) -> ResourceList:
    """What the containers ask for together, without pod-level requests and overhead."""
    return _sum_over_containers(pod, requests_of)


def compute_pod_requests(pod: core_v1.Pod, overhead: bool = True) -> ResourceList:
    """What the pod asks for."""
    total = compute_container_requests(pod) | pod_level_requests_of(pod)
    if overhead:
        _add(total, quantities(podlib.spec_of(pod).overhead))
    return total


def compute_pod_limits(pod: core_v1.Pod, overhead: bool = True) -> ResourceList:
    """What the pod may use; overhead is added only where there is a limit."""
    total = _sum_over_containers(pod, limits_of) | pod_level_limits_of(pod)
    if overhead:
        _add(total, {n: v for n, v in quantities(podlib.spec_of(pod).overhead).items() if total.get(n)})
    return total


def _supported_at_pod_level(raw: Mapping[str, Any] | None) -> ResourceList:
    names = [n for n in raw or {} if n in (CPU, MEMORY) or n.startswith(HUGEPAGES_PREFIX)]
    return {name: quantity_of(raw, name) for name in names}


def _sum_over_containers(pod: core_v1.Pod, read: Callable[[AnyContainer], Mapping[str, Any]]) -> ResourceList:
    total: ResourceList = {}
    sidecars: ResourceList = {}
    floor: ResourceList = {}
    for container in podlib.containers_of(pod):
        _add(total, quantities(read(container)))
    for container in podlib.init_containers_of(pod):
        own = quantities(read(container))
        if podlib.is_sidecar(container):
            _add(total, own)
            _add(sidecars, own)
            while_it_starts = sidecars
        else:
            _add(own, sidecars)
            while_it_starts = own
        _raise_to(floor, while_it_starts.items())
    _raise_to(total, floor.items())
    return total


def _add(total: ResourceList, more: ResourceList) -> None:
    for name, amount in more.items():
        total[name] = total[name] + amount if name in total else amount


def _raise_to(total: ResourceList, amounts: Iterable[tuple[str, q.Quantity]]) -> None:
    for name, amount in amounts:
        if name not in total or total[name] < amount:
            total[name] = amount
