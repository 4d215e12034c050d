"""CRI status messages of one pod to an ObservedPod.

What CRI itself does not keep stands in annotations whose names `core.labels` owns; the Go kubelet writes and reads the
same ones, so pods survive a change of agent in both directions.

Upstream counterpart: toKubeContainerStatus and getPodContainerStatuses in kuberuntime_container.go, labels.go.
"""

from collections.abc import Iterable, Mapping

from cri_proto import runtime_v1 as cri
from kubelet_py.api.pod import CONTAINER_NAME_LABEL, POD_NAME_LABEL, POD_NAMESPACE_LABEL
from kubelet_py.core.labels import (
    DELETION_GRACE_PERIOD_ANNOTATION,
    HASH_ANNOTATION,
    PORTS_ANNOTATION,
    PRE_STOP_ANNOTATION,
    RESTART_COUNT_ANNOTATION,
    TERMINATION_GRACE_PERIOD_ANNOTATION,
    TERMINATION_MESSAGE_PATH_ANNOTATION,
    TERMINATION_MESSAGE_POLICY_ANNOTATION,
)
from kubelet_py.core.observed import ContainerState, ObservedContainer, ObservedPod, ObservedSandbox

STATES: dict[int, ContainerState] = {
    cri.CONTAINER_CREATED: ContainerState.CREATED,
    cri.CONTAINER_RUNNING: ContainerState.RUNNING,
    cri.CONTAINER_EXITED: ContainerState.EXITED,
}


def state_of(value: int) -> ContainerState:
    """CRI's state under our name; what this version does not know is UNKNOWN."""
    return STATES.get(value, ContainerState.UNKNOWN)


def _int_or(text: str, default: int) -> int:
    try:
        return int(text)
    except ValueError:
        return default


def grace_period_of(annotations: Mapping[str, str]) -> int | None:
    """The seconds that a container has to stop, by its notes: those of its pod's deletion before those of its spec."""
    text = annotations.get(DELETION_GRACE_PERIOD_ANNOTATION, "") or annotations.get(
        TERMINATION_GRACE_PERIOD_ANNOTATION, ""
    )
    seconds = _int_or(text, -1)
    return seconds if seconds >= 0 else None


def observe_sandbox(status: cri.PodSandboxStatus) -> ObservedSandbox:
    """One sandbox."""
    is_host_network = status.linux.namespaces.options.network == cri.NODE
    ips = [status.network.ip, *(extra.ip for extra in status.network.additional_ips)]
    return ObservedSandbox(
        id=status.id,
        attempt=status.metadata.attempt,
        ready=status.state == cri.SANDBOX_READY,
        created_at_ns=status.created_at,
        ips=tuple(ip for ip in ips if ip),
        host_network=is_host_network,
        runtime_handler=status.runtime_handler,
    )


def observe_container(status: cri.ContainerStatus, sandbox_id: str = "") -> ObservedContainer:
    """One container. A restart count that is missing or unreadable falls back to the attempt number of CRI."""
    notes = status.annotations
    return ObservedContainer(
        id=status.id,
        name=status.labels.get(CONTAINER_NAME_LABEL, status.metadata.name),
        sandbox_id=sandbox_id,
        state=state_of(status.state),
        attempt=status.metadata.attempt,
        created_at_ns=status.created_at,
        started_at_ns=status.started_at,
        finished_at_ns=status.finished_at,
        exit_code=status.exit_code,
        reason=status.reason,
        message=status.message,
        image=status.image.image,
        image_ref=status.image_ref,
        image_id=status.image_id,
        hash=notes.get(HASH_ANNOTATION, ""),
        restart_count=_int_or(notes.get(RESTART_COUNT_ANNOTATION, ""), status.metadata.attempt),
        log_path=status.log_path,
        termination_message_path=notes.get(TERMINATION_MESSAGE_PATH_ANNOTATION, ""),
        termination_message_policy=notes.get(TERMINATION_MESSAGE_POLICY_ANNOTATION, ""),
        grace_period_seconds=grace_period_of(notes),
        pre_stop_json=notes.get(PRE_STOP_ANNOTATION, ""),
        ports_json=notes.get(PORTS_ANNOTATION, ""),
        resources=status.resources.linux if status.resources.HasField("linux") else None,
        user=status.user.linux if status.user.HasField("linux") else None,
        mounts=tuple(status.mounts),
    )


def observe_pod(
    uid: str,
    sandboxes: Iterable[cri.PodSandboxStatus],
    containers: Iterable[cri.ContainerStatus],
    now_ns: int,
    sandbox_ids: Mapping[str, str] | None = None,
) -> ObservedPod:
    """The pod as the runtime shows it, newest first.

    `sandbox_ids` maps container ids to sandbox ids: a ContainerStatus does not say where the container lives, the list
    of containers does. Without it, containers of earlier sandboxes cannot be told from those of the present one.
    """
    sandbox_list, container_list = list(sandboxes), list(containers)
    where = sandbox_ids or {}
    names = [(s.metadata.name, s.metadata.namespace) for s in sandbox_list]
    names += [(c.labels.get(POD_NAME_LABEL, ""), c.labels.get(POD_NAMESPACE_LABEL, "")) for c in container_list]
    name, namespace = names[0] if names else ("", "")
    return ObservedPod(
        uid=uid,
        name=name,
        namespace=namespace,
        sandboxes=tuple(
            sorted((observe_sandbox(s) for s in sandbox_list), key=lambda s: (s.created_at_ns, s.attempt), reverse=True)
        ),
        containers=tuple(
            sorted(
                (observe_container(c, where.get(c.id, "")) for c in container_list),
                key=lambda c: (c.created_at_ns, c.attempt),
                reverse=True,
            )
        ),
        observed_at_ns=now_ns,
    )
