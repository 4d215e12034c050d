"""Short ways to write pods and observations in tests."""

from collections.abc import Sequence
from typing import Any

from kubelet_py.api import codec, core_v1
from kubelet_py.core.container_hash import compute_container_hash
from kubelet_py.core.observed import ContainerState, ObservedContainer, ObservedPod, ObservedSandbox

SECOND = 1_000_000_000
NOW_NS = 1_700_000_000 * SECOND

RUNNING = ContainerState.RUNNING
EXITED = ContainerState.EXITED
CREATED = ContainerState.CREATED
UNKNOWN = ContainerState.UNKNOWN


def make_container(name: str, **more: Any) -> dict[str, Any]:
    """A container of a pod spec as JSON has it."""
    return {"name": name, "image": f"{name}:1", **more}


def make_sidecar(name: str, **more: Any) -> dict[str, Any]:
    """An init container that keeps running."""
    return make_container(name, restartPolicy="Always", **more)


def restart_rule(action: str, operator: str, *codes: int) -> dict[str, Any]:
    """A restart rule by exit codes."""
    return {"action": action, "exitCodes": {"operator": operator, "values": list(codes)}}


def make_pod(
    *containers: str | dict[str, Any],
    init: Sequence[str | dict[str, Any]] = (),
    ephemeral: Sequence[str | dict[str, Any]] = (),
    metadata: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> core_v1.Pod:
    """A pod; containers by name or in full."""

    def full(given: Sequence[str | dict[str, Any]]) -> list[dict[str, Any]]:
        return [make_container(c) if isinstance(c, str) else c for c in given]

    return codec.from_builtins(
        core_v1.Pod,
        {
            "metadata": {"name": "web", "namespace": "shop", "uid": "u-1", **(metadata or {})},
            "spec": {
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 30,
                "containers": full(containers or ("app",)),
                "initContainers": full(init),
                "ephemeralContainers": full(ephemeral),
                **spec,
            },
            "status": status or {},
        },
    )


def make_sandbox(sandbox_id: str = "s0", attempt: int = 0, ready: bool = True, **more: Any) -> ObservedSandbox:
    """A sandbox; a later attempt is younger."""
    fields = {"ips": ("10.0.0.9",), "created_at_ns": NOW_NS + attempt * SECOND, **more}
    return ObservedSandbox(id=sandbox_id, attempt=attempt, ready=ready, **fields)


def make_run(
    name: str, state: ContainerState = RUNNING, restart_count: int = 0, image: str = "", **more: Any
) -> ObservedContainer:
    """A run of a container of `make_container`; the hash is that of its image."""
    image = image or f"{name}:1"
    fields: dict[str, Any] = {
        "id": f"{name}-{restart_count}",
        "sandbox_id": "s0",
        "created_at_ns": NOW_NS + restart_count * SECOND,
        "started_at_ns": NOW_NS + restart_count * SECOND,
        "finished_at_ns": NOW_NS + (restart_count + 1) * SECOND if state is EXITED else 0,
        "hash": compute_container_hash(core_v1.Container(name=name, image=image)),
        **more,
    }
    return ObservedContainer(name=name, state=state, restart_count=restart_count, image=image, **fields)


def make_observed(*containers: ObservedContainer, sandboxes: Sequence[ObservedSandbox] | None = None) -> ObservedPod:
    """The pod with one ready sandbox unless others are given."""
    return ObservedPod(
        uid="u-1",
        name="web",
        namespace="shop",
        sandboxes=tuple([make_sandbox()] if sandboxes is None else sandboxes),
        containers=tuple(sorted(containers, key=lambda c: c.created_at_ns, reverse=True)),
        observed_at_ns=NOW_NS,
    )


NOTHING = make_observed(sandboxes=())
