"""Records, and the events between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_proto import runtime_v1 as cri
from kubelet_py.core.cri_observation import observe_pod
from kubelet_py.core.observed import ContainerState
from kubelet_py.core.pleg_diff import (
    ContainerRecord,
    EventKind,
    PodLifecycleEvent,
    PodRecord,
    diff_pod,
    diff_pods,
    is_known,
    pod_records,
    record_of,
)
from tests.sim.pods import CREATED, EXITED, RUNNING, UNKNOWN

STARTED, DIED = EventKind.CONTAINER_STARTED, EventKind.CONTAINER_DIED
REMOVED, CHANGED = EventKind.CONTAINER_REMOVED, EventKind.CONTAINER_CHANGED


def record(state: ContainerState | None = None, ready: bool | None = True, uid: str = "u") -> PodRecord:
    containers = () if state is None else (ContainerRecord("c", "app", "s", state),)
    return PodRecord(uid, "web", "shop", () if ready is None else (("s", ready),), containers)


@pytest.mark.parametrize(
    ("old", "new", "kinds"),
    [
        (None, RUNNING, [STARTED]),
        (None, CREATED, [CHANGED]),
        (None, EXITED, [DIED]),
        (CREATED, RUNNING, [STARTED]),
        (RUNNING, EXITED, [DIED]),
        (RUNNING, UNKNOWN, [CHANGED]),
        (UNKNOWN, RUNNING, [STARTED]),
        (EXITED, None, [REMOVED]),
        (RUNNING, None, [DIED, REMOVED]),
        (RUNNING, RUNNING, []),
        (None, None, []),
    ],
)
def test_events_of_a_container(old: ContainerState | None, new: ContainerState | None, kinds: list[EventKind]) -> None:
    """A container that vanished alive died first."""
    assert diff_pod(record(old), record(new)) == tuple(PodLifecycleEvent("u", kind, "c") for kind in kinds)


def test_events_of_a_sandbox() -> None:
    """It came, it died, it went."""
    event = (PodLifecycleEvent("u", EventKind.SANDBOX_CHANGED, "s"),)
    assert diff_pod(None, record()) == event
    assert diff_pod(record(), record(ready=False)) == event
    assert diff_pod(record(), None) == event
    assert diff_pod(record(), record()) == ()
    assert diff_pod(None, None) == ()


CREATED_EVENT, STARTED_EVENT = cri.CONTAINER_CREATED_EVENT, cri.CONTAINER_STARTED_EVENT


@pytest.mark.parametrize(
    ("seen", "of", "kind", "known"),
    [
        (record(RUNNING), "c", STARTED_EVENT, True),
        (record(RUNNING), "c", CREATED_EVENT, True),
        (record(CREATED), "c", CREATED_EVENT, True),
        (record(CREATED), "c", STARTED_EVENT, False),
        (record(EXITED), "c", STARTED_EVENT, False),
        (record(UNKNOWN), "c", STARTED_EVENT, False),
        (record(RUNNING), "another", STARTED_EVENT, False),
        (record(RUNNING), "c", cri.CONTAINER_STOPPED_EVENT, False),
        (record(RUNNING), "c", cri.CONTAINER_DELETED_EVENT, False),
        (record(), "s", STARTED_EVENT, True),
        (record(ready=False), "s", STARTED_EVENT, False),
        (record(), "s", cri.CONTAINER_STOPPED_EVENT, False),
        (None, "s", STARTED_EVENT, False),
    ],
)
def test_which_events_a_look_was_before(seen: PodRecord | None, of: str, kind: int, known: bool) -> None:
    """Only those of a beginning: an end is always looked at."""
    assert is_known(seen, of, kind) is known


def test_only_pods_that_changed_need_a_look() -> None:
    """By UID."""
    old = {"a": record(RUNNING, uid="a"), "b": record(RUNNING, uid="b"), "c": record(uid="c")}
    new = {"a": record(RUNNING, uid="a"), "b": record(EXITED, uid="b"), "d": record(ready=None, uid="d")}
    assert diff_pods(old, new) == {
        "b": (PodLifecycleEvent("b", DIED, "c"),),
        "c": (PodLifecycleEvent("c", EventKind.SANDBOX_CHANGED, "s"),),
    }


def test_the_lists_by_pod() -> None:
    """UID from the sandbox's metadata or label, of a container from its label or its sandbox; no UID, not ours."""
    sandboxes = [
        cri.PodSandbox(
            id="s1",
            metadata=cri.PodSandboxMetadata(uid="u1", name="web", namespace="shop"),
            state=cri.SANDBOX_READY,
        ),
        cri.PodSandbox(id="s2", labels={"io.kubernetes.pod.uid": "u2"}, state=cri.SANDBOX_NOTREADY),
        cri.PodSandbox(id="s3"),
    ]
    named = {"io.kubernetes.pod.uid": "u1", "io.kubernetes.container.name": "app"}
    containers = [
        cri.Container(id="c2", pod_sandbox_id="s1", labels=named, state=cri.CONTAINER_RUNNING),
        cri.Container(
            id="c1", pod_sandbox_id="s1", metadata=cri.ContainerMetadata(name="db"), state=cri.CONTAINER_EXITED
        ),
        cri.Container(id="c3", pod_sandbox_id="s3"),
        cri.Container(id="c4", pod_sandbox_id="gone", labels={"io.kubernetes.pod.uid": "u4"}),
    ]
    assert pod_records(sandboxes, containers) == {
        "u1": PodRecord(
            "u1",
            "web",
            "shop",
            (("s1", True),),
            (ContainerRecord("c1", "db", "s1", EXITED), ContainerRecord("c2", "app", "s1", RUNNING)),
        ),
        "u2": PodRecord("u2", "", "", (("s2", False),)),
        "u4": PodRecord("u4", "", "", (), (ContainerRecord("c4", "", "gone", CREATED),)),
    }


def test_the_record_of_an_observation_is_that_of_the_lists() -> None:
    """So that what a worker saw is no news to the next list."""
    metadata = cri.PodSandboxMetadata(uid="u", name="web", namespace="shop")
    names = {"io.kubernetes.pod.uid": "u", "io.kubernetes.container.name": "app"}
    sandboxes = {"s2": cri.SANDBOX_READY, "s1": cri.SANDBOX_NOTREADY}
    containers = {"c2": ("s2", cri.CONTAINER_RUNNING), "c1": ("s1", cri.CONTAINER_EXITED)}
    observed = observe_pod(
        "u",
        [cri.PodSandboxStatus(id=name, metadata=metadata, state=state) for name, state in sandboxes.items()],
        [cri.ContainerStatus(id=name, labels=names, state=state) for name, (_, state) in containers.items()],
        1,
        {name: sandbox for name, (sandbox, _) in containers.items()},
    )
    assert {"u": record_of(observed)} == pod_records(
        [cri.PodSandbox(id=name, metadata=metadata, state=state) for name, state in sandboxes.items()],
        [
            cri.Container(id=name, pod_sandbox_id=sandbox, labels=names, state=state)
            for name, (sandbox, state) in containers.items()
        ],
    )


def test_what_is_alive() -> None:
    """A ready sandbox, a running or unknown container."""
    assert record(EXITED).is_alive
    assert record(RUNNING, ready=False).is_alive
    assert record(UNKNOWN, ready=None).is_alive
    assert not record(EXITED, ready=False).is_alive
    assert not record(CREATED, ready=None).is_alive


states = st.none() | st.sampled_from(list(ContainerState))


@given(states, st.none() | st.booleans(), states, st.none() | st.booleans())
def test_no_change_escapes(
    old_state: ContainerState | None,
    old_ready: bool | None,
    new_state: ContainerState | None,
    new_ready: bool | None,
) -> None:
    """Different records always give events, equal ones never."""
    old, new = record(old_state, old_ready), record(new_state, new_ready)
    assert bool(diff_pod(old, new)) == (old != new)
