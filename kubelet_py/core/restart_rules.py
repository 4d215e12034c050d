"""Whether a container that stopped is to run again: rules, container policy, pod policy, in this order.

Owns the questions that the actions and the status of a pod must answer alike. Knows nothing of back-off, sandboxes or
time.

Upstream counterpart: ContainerShouldRestart in pkg/api/v1/pod/util.go, ShouldContainerBeRestarted and
ShouldAllContainersRestart in pkg/kubelet/container/helpers.go. Deliberate difference: a container of unknown state is
killed, and started again only where its policy allows another run; the Go kubelet starts it again under Never too.
"""

from kubelet_py.api import core_v1
from kubelet_py.api.pod import containers_of, init_containers_of, metadata_of, spec_of
from kubelet_py.core.observed import ContainerState, ObservedContainer, ObservedPod

ACTION_RESTART_ALL = "RestartAllContainers"
OOM_KILLED = "OOMKilled"

AnyContainer = core_v1.Container | core_v1.EphemeralContainer


def is_being_deleted(pod: core_v1.Pod) -> bool:
    """Somebody asked the API server to delete the pod."""
    return metadata_of(pod).deletionTimestamp is not None


def matching_rule(container: AnyContainer, exit_code: int) -> core_v1.ContainerRestartRule | None:
    """The first restart rule of the container that names this exit code."""
    for rule in container.restartPolicyRules or ():
        if rule.exitCodes is None:
            continue
        is_listed = exit_code in (rule.exitCodes.values or ())
        if (rule.exitCodes.operator == "In" and is_listed) or (rule.exitCodes.operator == "NotIn" and not is_listed):
            return rule
    return None


def restarts_after_exit(pod: core_v1.Pod, container: AnyContainer, exit_code: int) -> bool:
    """Whether a run that ended with this code is followed by another."""
    policy = spec_of(pod).restartPolicy or "Always"
    if container.restartPolicy:
        if matching_rule(container, exit_code) is not None:
            return True  # both actions there are, Restart and RestartAllContainers, start it again
        policy = container.restartPolicy
    match policy:
        case "Never":
            return False
        case "OnFailure":
            return exit_code != 0
        case _:
            return True


def restarts_after_kill(pod: core_v1.Pod, container: AnyContainer) -> bool:
    """Whether a container that a probe gave up on starts again; its rules need an exit code and are not asked."""
    return (container.restartPolicy or spec_of(pod).restartPolicy) != "Never"


def should_be_restarted(pod: core_v1.Pod, container: AnyContainer, newest: ObservedContainer | None) -> bool:
    """Whether a container that does not run should."""
    if is_being_deleted(pod):
        return False
    if newest is None:
        return True
    match newest.state:
        case ContainerState.RUNNING:
            return False
        case ContainerState.EXITED:
            return restarts_after_exit(pod, container, newest.exit_code)
        case ContainerState.CREATED:
            return True  # it never ran
        case _:
            return restarts_after_kill(pod, container)  # it may have run, and is killed to be sure


def is_init_failed(container: ObservedContainer) -> bool:
    """An init container did not do its work: an error, a kill for memory, or nobody knows."""
    return (
        container.state is ContainerState.UNKNOWN
        or container.reason == OOM_KILLED
        or (container.state is ContainerState.EXITED and container.exit_code != 0)
    )


def triggers_restart_all(container: core_v1.Container, observed: ObservedContainer | None) -> bool:
    """The container's last exit asks for a restart of the whole pod in place."""
    if observed is None or observed.state is not ContainerState.EXITED:
        return False
    rule = matching_rule(container, observed.exit_code)
    return rule is not None and rule.action == ACTION_RESTART_ALL


def restarts_all(pod: core_v1.Pod, observed: ObservedPod) -> bool:
    """Some container's last exit asks for a restart of the whole pod, and that container is still there."""
    if is_being_deleted(pod):
        return False
    return any(
        triggers_restart_all(container, observed.newest(container.name))
        for container in (*init_containers_of(pod), *containers_of(pod))
    )


def could_restart_all(pod: core_v1.Pod) -> bool:
    """Some container has a rule that restarts the whole pod."""
    return any(
        rule.action == ACTION_RESTART_ALL
        for container in (*init_containers_of(pod), *containers_of(pod))
        for rule in container.restartPolicyRules or ()
    )
