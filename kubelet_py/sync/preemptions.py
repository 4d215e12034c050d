"""Pods that wait for the place of others: each starts when the pods that give way to it have stopped.

Owns who waits for whom, and the event about a pod that does not stop in time; after that nobody waits for it any more.

Upstream counterpart: killPodNow in pkg/kubelet/pod_workers.go, as pkg/kubelet/preemption calls it. Deliberate
difference: there the loop over all pods stands still, for one pod to stop after the other; here all of them stop at
once and only the pod that needs their place waits.
"""

from collections.abc import Callable, Iterable

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core import preemption
from kubelet_py.sync.ports import EventSink


class Preemptions:
    """Who waits. `clock` gives seconds that never go back."""

    def __init__(self, events: EventSink, clock: Callable[[], float]) -> None:
        self._events = events
        self._clock = clock
        self._deadlines: dict[str, dict[str, tuple[float, core_v1.Pod]]] = {}  # by waiting UID, then by victim's UID

    def wait(self, pod_uid: str, victims: Iterable[core_v1.Pod]) -> None:
        """From now on the pod waits for these to stop."""
        waits = self._deadlines.setdefault(pod_uid, {})
        for victim in victims:
            patience_seconds = preemption.patience_seconds(pods.spec_of(victim).terminationGracePeriodSeconds)
            waits[pods.uid_of(victim)] = (self._clock() + patience_seconds, victim)

    def stopped(self, pod_uid: str) -> list[str]:
        """A pod has stopped; those that wait for nobody now."""
        free = [uid for uid, waits in self._deadlines.items() if waits.pop(pod_uid, None) and not waits]
        for uid in free:
            del self._deadlines[uid]
        return free

    def forget(self, pod_uid: str) -> None:
        """The pod that waits is gone itself."""
        self._deadlines.pop(pod_uid, None)

    def seconds_left(self, pod_uid: str) -> float:
        """How long the pod waits at most before it is worth asking again; 0 when it may start."""
        waits = self._deadlines.get(pod_uid, {})
        now = self._clock()
        for victim_uid, (deadline, victim) in list(waits.items()):
            if deadline <= now:
                del waits[victim_uid]
                self._events(victim, "Warning", preemption.OVERDUE_REASON, preemption.OVERDUE_MESSAGE)
        if waits:
            return min(deadline for deadline, _ in waits.values()) - now
        self.forget(pod_uid)
        return 0.0
