"""Pods whose specs ask for other resources than they were given: which of them get it, and when.

Upstream counterpart: the queue of pkg/kubelet/allocation/allocation_manager.go. Deliberate difference: the queue is
looked at with every housekeeping, since a look costs next to nothing, instead of at certain events and each three
minutes.
"""

from collections.abc import Callable

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.admission import Rejection
from kubelet_py.core.cgroup_rules import CgroupSettings
from kubelet_py.core.resize_rules import INFEASIBLE, infeasibility, queue_position
from kubelet_py.managers.allocations import PodAllocations


class PendingResizes:
    """The queue. `refusal` says why a pod of this size does not fit; `wake` is told of each pod whose status moves."""

    def __init__(
        self,
        allocations: PodAllocations,
        settings: Callable[[], CgroupSettings],
        refusal: Callable[[core_v1.Pod], Rejection | None],
        wake: Callable[[str, str], None],
    ) -> None:
        self._allocations = allocations
        self._settings = settings
        self._refusal = refusal
        self._wake = wake
        self._waiting: dict[str, core_v1.Pod] = {}

    def consider(self, pod: core_v1.Pod) -> None:
        """The pod's configuration, new or changed. It joins the queue when it asks for something else."""
        uid = pods.uid_of(pod)
        if not self._allocations.is_allocated(uid):
            self.drop(uid)
            return
        if self._allocations.allocated(pod) is not pod:
            self._waiting[uid] = pod
            return
        self._waiting.pop(uid, None)
        self._allocations.clear_pending(uid)

    def drop(self, pod_uid: str) -> None:
        """The pod is gone, or going."""
        self._waiting.pop(pod_uid, None)

    def retry(self) -> None:
        """Accepts what fits now, the most deserving first."""
        for pod in sorted(self._waiting.values(), key=self._position):
            self._try(pod)

    def _position(self, pod: core_v1.Pod) -> tuple[object, ...]:
        return queue_position(pod, self._allocations.allocated(pod), self._allocations.pending(pods.uid_of(pod)))

    def _try(self, pod: core_v1.Pod) -> None:
        uid = pods.uid_of(pod)
        if not self._allocations.is_allocated(uid):  # it has ended meanwhile
            self.drop(uid)
            return
        before = self._allocations.pending(uid)
        reason = infeasibility(pod, self._allocations.allocated(pod), self._settings())
        if reason:
            self._allocations.put_off(pod, INFEASIBLE, reason)
            self.drop(uid)
        elif (rejection := self._refusal(pod)) is not None:
            self._allocations.put_off(pod, rejection.reason, rejection.message)
        else:
            self._allocations.accept(pod)
            self.drop(uid)
            self._wake(uid, "the resize was accepted")
            return
        if self._allocations.pending(uid) is not before:
            self._wake(uid, "the resize is pending")
