"""A pod made anew of what its containers' annotations say, for the stop of a pod that no source knows any more.

Enough to stop it decently: who it is, where it is reached, and each container's preStop hook and ports. Which
containers were init containers is not written anywhere, so no order of stopping is promised.

Upstream counterpart: restoreSpecsFromContainerLabels in kuberuntime_container.go.
"""

from typing import TypeVar

from kubelet_py.api import codec, core_v1, meta_v1
from kubelet_py.core.observed import ObservedContainer, ObservedPod

T = TypeVar("T")


def restore_pod(observed: ObservedPod) -> core_v1.Pod:
    """The pod, as far as it can be told."""
    newest = {container.name: container for container in reversed(observed.containers)}
    sandbox = observed.newest_sandbox
    ips = sandbox.ips if sandbox is not None else ()
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(name=observed.name, namespace=observed.namespace, uid=observed.uid),
        spec=core_v1.PodSpec(
            containers=[_restore_container(container) for container in newest.values()],
            hostNetwork=sandbox is not None and sandbox.host_network,
            terminationGracePeriodSeconds=next(
                (c.grace_period_seconds for c in newest.values() if c.grace_period_seconds is not None), None
            ),
        ),
        status=core_v1.PodStatus(podIPs=[core_v1.PodIP(ip=ip) for ip in ips]),
    )


def _restore_container(container: ObservedContainer) -> core_v1.Container:
    pre_stop = _decoded(core_v1.LifecycleHandler, container.pre_stop_json)
    return core_v1.Container(
        name=container.name,
        image=container.image,
        lifecycle=core_v1.Lifecycle(preStop=pre_stop) if pre_stop is not None else None,
        ports=_decoded(list[core_v1.ContainerPort], container.ports_json),
    )


def _decoded(kind: type[T], text: str) -> T | None:
    """None for nothing, and for what nobody can read: a hook that is lost holds no stop up."""
    if not text:
        return None
    try:
        return codec.decode(kind, text)
    except codec.InvalidObject:
        return None
