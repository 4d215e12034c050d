"""Pods for tests, from what a manifest would say."""

from typing import Any

from kubelet_py.api import codec, core_v1
from kubelet_py.core.pod_defaults import with_pod_defaults
from kubelet_py.core.pod_validation import validate_pod

NO_QUANTITY = (
    "'x' is no quantity: expected a number with an optional suffix out of n u m k M G T P E, Ki Mi Gi Ti Pi Ei or "
    'e<exponent>, such as "500m" or "1Gi"'
)
UID = "0a1b2c3d-0000-4000-8000-000000000001"


def a_container(name: str = "main", **fields: Any) -> dict[str, Any]:
    """A container as a manifest states it."""
    return {"name": name, "image": "registry.example/app:1", **fields}


def a_pod(*containers: dict[str, Any], metadata: dict[str, Any] | None = None, **spec: Any) -> core_v1.Pod:
    """A pod named web in the namespace shop, with one container unless others are given."""
    return codec.from_builtins(
        core_v1.Pod,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "namespace": "shop", "uid": UID, **(metadata or {})},
            "spec": {"containers": list(containers) or [a_container()], **spec},
        },
    )


def sized(requests: dict[str, Any] | None = None, limits: dict[str, Any] | None = None) -> dict[str, Any]:
    """The resources field of a container."""
    return {"resources": {"requests": requests or {}, "limits": limits or {}}}


def problems_of(pod: core_v1.Pod) -> list[str]:
    """All that is wrong with the pod, as people read it."""
    return [str(problem) for problem in validate_pod(with_pod_defaults(pod))]
