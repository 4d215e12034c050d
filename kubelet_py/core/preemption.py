"""Which pods give way to a critical pod that the node has no room for.

The cheapest set: as few Guaranteed pods as possible, then Burstable, then BestEffort ones; within a class the pods
whose requests come closest to what is missing.

Upstream counterpart: pkg/kubelet/preemption/preemption.go.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.core import qos
from kubelet_py.core.pod_resources import CPU, MEMORY, PODS, compute_pod_requests
from kubelet_py.core.qos import QosClass

REASON: Final = "Preempting"
MESSAGE: Final = "Preempted in order to admit critical pod"
DISRUPTION_MESSAGE: Final = "Pod was preempted by Kubelet to accommodate a critical pod."
OVERDUE_REASON: Final = "ExceededGracePeriod"
OVERDUE_MESSAGE: Final = "Container runtime did not kill the pod within specified grace period."
LEAST_PATIENCE_SECONDS: Final = 10

Shortage = Mapping[str, int]
"""How much is missing of each resource: thousandths of CPU, else whole units."""


def is_preemptable(preemptor: core_v1.Pod, other: core_v1.Pod) -> bool:
    """The other pod has to give way."""
    if podlib.is_critical(preemptor) and not podlib.is_critical(other):
        return True
    mine, its = podlib.spec_of(preemptor).priority, podlib.spec_of(other).priority
    return mine is not None and its is not None and mine > its


def choose_victims(
    preemptor: core_v1.Pod, others: Iterable[core_v1.Pod], shortage: Shortage
) -> tuple[core_v1.Pod, ...] | None:
    """The pods to stop; None when not even all of them would do."""
    by_class: dict[QosClass, list[core_v1.Pod]] = {kind: [] for kind in QosClass}
    for other in others:
        if is_preemptable(preemptor, other):
            by_class[qos.qos_class_of(other)].append(other)
    best_effort, burstable = by_class[QosClass.BEST_EFFORT], by_class[QosClass.BURSTABLE]
    guaranteed = by_class[QosClass.GUARANTEED]
    if _less(shortage, (*best_effort, *burstable, *guaranteed)):
        return None
    dear = _nearest(guaranteed, _less(shortage, (*best_effort, *burstable)))
    middling = _nearest(burstable, _less(shortage, (*best_effort, *dear)))
    cheap = _nearest(best_effort, _less(shortage, (*middling, *dear)))
    return (*cheap, *middling, *dear)


def patience_seconds(grace_seconds: int | None) -> int:
    """How long the critical pod waits for another to stop: half as long again as that one has, and never below 10 s."""
    grace_seconds = grace_seconds or 0
    return max(LEAST_PATIENCE_SECONDS, grace_seconds + grace_seconds // 2)


def describe(shortage: Shortage) -> str:
    """As the Go kubelet lists what is missing."""
    return "[" + "".join(f"(res: {name}, q: {amount}), " for name, amount in shortage.items()) + "]"


def _nearest(pods: Iterable[core_v1.Pod], shortage: Shortage) -> list[core_v1.Pod]:
    left, chosen = list(pods), []
    while shortage:
        best = min(left, key=lambda pod: (_distance(pod, shortage), _request(pod, MEMORY), _request(pod, CPU)))
        left.remove(best)
        chosen.append(best)
        shortage = _less(shortage, (best,))
    return chosen


def _distance(pod: core_v1.Pod, shortage: Shortage) -> float:
    """How far the pod's requests are from what is missing; each resource weighs the same."""
    missing = ((amount - _request(pod, name)) / amount for name, amount in shortage.items())
    return sum(part**2 for part in missing if part > 0)


def _less(shortage: Shortage, pods: Iterable[core_v1.Pod]) -> dict[str, int]:
    """What is still missing when these pods are gone."""
    pods = tuple(pods)
    left = {name: amount - sum(_request(pod, name) for pod in pods) for name, amount in shortage.items()}
    return {name: amount for name, amount in left.items() if amount > 0}


def _request(pod: core_v1.Pod, name: str) -> int:
    if name == PODS:
        return 1
    amount = compute_pod_requests(pod).get(name)
    if amount is None:
        return 0
    return amount.milli_value if name == CPU else amount.value
