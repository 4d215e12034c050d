"""Probe results by container.

Upstream counterpart: pkg/kubelet/prober. Not here yet: the probes themselves. Until they are, a container with a
probe stays not ready and not started, which the agent says once for each pod.
"""

from collections.abc import Mapping, Sequence

import structlog

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.observed import ObservedContainer, ProbeVerdict

log = structlog.get_logger()


class NoProber:
    """Says that nothing was probed."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def verdicts(self, pod_uid: str) -> Mapping[str, ProbeVerdict]:
        """None."""
        return {}

    def sync_pod(self, pod: core_v1.Pod, running: Sequence[ObservedContainer], pod_ips: tuple[str, ...]) -> None:
        """Tells once that the pod has probes that nobody runs."""
        uid = pods.uid_of(pod)
        if uid in self._told:
            return
        probed = [
            container.name
            for container in (*pods.init_containers_of(pod), *pods.containers_of(pod))
            if container.readinessProbe or container.livenessProbe or container.startupProbe
        ]
        if probed:
            self._told.add(uid)
            log.warning("probes_not_implemented", pod=pods.display_name(pod), pod_uid=uid, containers=probed)

    def stop_for_termination(self, pod_uid: str) -> None:
        """Nothing to stop."""

    def forget_pod(self, pod_uid: str) -> None:
        """Nothing to stop."""
        self._told.discard(pod_uid)
