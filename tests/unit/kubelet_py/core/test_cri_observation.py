"""CRI messages to observations."""

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.core.cri_observation import observe_container, observe_pod, observe_sandbox, state_of
from kubelet_py.core.labels import compute_container_annotations
from kubelet_py.core.observed import ContainerState, ObservedContainer, ObservedPod, ObservedSandbox
from tests.sim.pods import make_container, make_pod


def sandbox_status(id: str = "s0", attempt: int = 0, created_at: int = 5) -> cri.PodSandboxStatus:  # noqa: A002 - CRI's own word
    return cri.PodSandboxStatus(
        id=id,
        metadata=cri.PodSandboxMetadata(name="web", namespace="shop", uid="u-1", attempt=attempt),
        state=cri.SANDBOX_READY,
        created_at=created_at,
        network=cri.PodSandboxNetworkStatus(ip="10.0.0.9", additional_ips=[cri.PodIP(ip="fd00::9")]),
        runtime_handler="kata",
    )


def test_a_sandbox() -> None:
    """All addresses in their order."""
    assert observe_sandbox(sandbox_status(attempt=2)) == ObservedSandbox(
        "s0", 2, True, 5, ("10.0.0.9", "fd00::9"), False, "kata"
    )


def test_a_sandbox_in_the_network_of_the_host() -> None:
    """Not ready and without an address."""
    status = cri.PodSandboxStatus(id="s0", state=cri.SANDBOX_NOTREADY)
    status.linux.namespaces.options.network = cri.NODE
    assert observe_sandbox(status) == ObservedSandbox("s0", 0, False, 0, (), True)


def test_states() -> None:
    """What a newer CRI may bring is unknown."""
    names = [cri.CONTAINER_CREATED, cri.CONTAINER_RUNNING, cri.CONTAINER_EXITED, cri.CONTAINER_UNKNOWN, 77]
    assert [state_of(value) for value in names] == ["created", "running", "exited", "unknown", "unknown"]


def test_a_container_with_the_annotations_that_we_write() -> None:
    """What `labels` writes at creation comes back."""
    pod = make_pod(
        make_container(
            "app",
            terminationMessagePath="/dev/log",
            terminationMessagePolicy="File",
            lifecycle={"preStop": {"sleep": {"seconds": 3}}},
            ports=[{"containerPort": 80}],
        ),
        metadata={"deletionGracePeriodSeconds": 4},
    )
    assert pod.spec is not None
    notes = compute_container_annotations(pod, pod.spec.containers[0], 3)
    status = cri.ContainerStatus(
        id="c1",
        metadata=cri.ContainerMetadata(name="app", attempt=1),
        state=cri.CONTAINER_EXITED,
        created_at=1,
        started_at=2,
        finished_at=3,
        exit_code=9,
        reason="Error",
        message="boom",
        image=cri.ImageSpec(image="app:1"),
        image_ref="app@sha256:1",
        image_id="sha256:2",
        annotations=notes,
        labels={"io.kubernetes.container.name": "app"},
        log_path="/var/log/pods/app/3.log",
    )
    assert observe_container(status, "s0") == ObservedContainer(
        id="c1",
        name="app",
        sandbox_id="s0",
        state=ContainerState.EXITED,
        attempt=1,
        created_at_ns=1,
        started_at_ns=2,
        finished_at_ns=3,
        exit_code=9,
        reason="Error",
        message="boom",
        image="app:1",
        image_ref="app@sha256:1",
        image_id="sha256:2",
        hash=notes["io.kubernetes.container.hash"],
        restart_count=3,
        log_path="/var/log/pods/app/3.log",
        termination_message_path="/dev/log",
        termination_message_policy="File",
        grace_period_seconds=4,
        pre_stop_json='{"sleep":{"seconds":3}}',
        ports_json='[{"containerPort":80}]',
    )


def test_the_grace_period_of_the_spec_without_one_of_a_deletion() -> None:
    """30 s of the spec."""
    pod = make_pod("app")
    assert pod.spec is not None
    status = cri.ContainerStatus(annotations=compute_container_annotations(pod, core_v1.Container(name="app"), 0))
    assert observe_container(status).grace_period_seconds == 30


def test_a_container_of_somebody_who_wrote_no_annotations() -> None:
    """CRI's own name and attempt number help out; nonsense is passed over."""
    status = cri.ContainerStatus(
        metadata=cri.ContainerMetadata(name="app", attempt=2),
        annotations={"io.kubernetes.container.restartCount": "many"},
    )
    observed = observe_container(status)
    assert (observed.name, observed.restart_count, observed.grace_period_seconds, observed.hash) == ("app", 2, None, "")
    assert (observed.pre_stop_json, observed.ports_json) == ("", "")
    assert (observed.termination_message_path, observed.termination_message_policy) == ("", "")
    assert observed.resources is None
    assert observed.user is None


def test_resources_user_and_mounts_are_handed_on() -> None:
    """As the runtime gives them."""
    status = cri.ContainerStatus(mounts=[cri.Mount(container_path="/data")])
    status.resources.linux.cpu_shares = 512
    status.user.linux.uid = 1000
    observed = observe_container(status)
    assert observed.resources is not None
    assert observed.resources.cpu_shares == 512
    assert observed.user is not None
    assert observed.user.uid == 1000
    assert [m.container_path for m in observed.mounts] == ["/data"]


def test_a_pod_newest_first() -> None:
    """Equal times are told apart by the attempt number."""
    sandboxes = [sandbox_status("old", 0, 5), sandbox_status("new", 1, 5)]
    containers = [
        cri.ContainerStatus(id=id_, created_at=at, metadata=cri.ContainerMetadata(name="app", attempt=attempt))
        for id_, at, attempt in (("b", 7, 0), ("c", 7, 1), ("a", 9, 0))
    ]
    pod = observe_pod("u-1", sandboxes, containers, 99, {"a": "new"})
    assert (pod.uid, pod.name, pod.namespace, pod.observed_at_ns) == ("u-1", "web", "shop", 99)
    assert [s.id for s in pod.sandboxes] == ["new", "old"]
    assert [(c.id, c.sandbox_id) for c in pod.containers] == [("a", "new"), ("c", ""), ("b", "")]


def test_a_pod_whose_sandboxes_are_gone_is_named_by_its_containers() -> None:
    """While there is a sandbox, that says it."""
    labels = {"io.kubernetes.pod.name": "left", "io.kubernetes.pod.namespace": "over"}
    containers = [cri.ContainerStatus(id="a", labels=labels), cri.ContainerStatus(id="b")]
    pod = observe_pod("u-1", [], containers, 1)
    assert (pod.name, pod.namespace) == ("left", "over")
    pod = observe_pod("u-1", [sandbox_status()], containers, 1)
    assert (pod.name, pod.namespace) == ("web", "shop")
    pod = observe_pod("u-1", [], reversed(containers), 1)
    assert (pod.name, pod.namespace) == ("", "")


def test_a_pod_of_which_nothing_is_left() -> None:
    """It has only its UID."""
    assert observe_pod("u-1", [], [], 1) == ObservedPod("u-1", observed_at_ns=1)
