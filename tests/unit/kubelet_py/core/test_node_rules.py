"""Capacity, allocatable, conditions, labels and events of the node."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.core import node_rules as rules
from kubelet_py.core.node_rules import Hugepages, MachineInfo, NodeObservation, NodeSettings, Pressure, RuntimeState

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MACHINE = MachineInfo(
    machine_id="m",
    system_uuid="s",
    boot_id="b",
    kernel_version="6.1",
    os_image="Debian",
    cores=4,
    memory_bytes=8 << 30,
    ephemeral_storage_bytes=100 << 30,
)
SETTINGS = NodeSettings(name="n1")
OBSERVED = NodeObservation(machine=MACHINE, addresses=(), runtime=RuntimeState("docker://20.10", ()))


def capacity(settings: NodeSettings = SETTINGS, observed: NodeObservation = OBSERVED) -> dict[str, str]:
    return {name: str(amount) for name, amount in rules.compute_capacity(settings, observed).items()}


def allocatable(settings: NodeSettings = SETTINGS, observed: NodeObservation = OBSERVED) -> dict[str, str]:
    resources = rules.compute_capacity(settings, observed)
    return {name: str(amount) for name, amount in rules.compute_allocatable(settings, observed, resources).items()}


def test_capacity_is_what_the_machine_has() -> None:
    assert capacity() == {"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "100Gi"}


@pytest.mark.parametrize(("per_core", "pods"), [(0, "110"), (10, "40"), (100, "110")])
def test_pods_per_core_lowers_but_never_raises_the_number_of_pods(per_core: int, pods: str) -> None:
    assert capacity(replace(SETTINGS, pods_per_core=per_core))["pods"] == pods


def test_without_local_storage_isolation_there_is_no_ephemeral_storage() -> None:
    assert "ephemeral-storage" not in capacity(replace(SETTINGS, local_storage=False))


def test_allocatable_is_less_by_reservations_and_hard_thresholds() -> None:
    settings = replace(
        SETTINGS,
        kube_reserved={"cpu": "500m", "memory": "1Gi"},
        system_reserved={"cpu": "250m", "ephemeral-storage": "10Gi"},
        eviction_hard={"memory.available": "100Mi", "nodefs.available": "10%", "imagefs.available": "15%"},
    )
    found = allocatable(settings)
    assert (found["cpu"], found["memory"], found["pods"]) == ("3250m", f"{7 * 1024 - 100}Mi", "110")
    assert found["ephemeral-storage"] == "80Gi"


@pytest.mark.parametrize("off", ["0%", "100%"])
def test_thresholds_that_are_switched_off_keep_nothing(off: str) -> None:
    """What configurations write that want no eviction."""
    settings = replace(SETTINGS, eviction_hard={"memory.available": off, "nodefs.available": off})
    assert allocatable(settings) == capacity(settings)


def test_huge_pages_are_capacity_and_are_not_memory() -> None:
    machine = replace(MACHINE, hugepages=(Hugepages(2 << 20, 512), Hugepages(1 << 30, 0)))
    observed = replace(OBSERVED, machine=machine)
    assert capacity(observed=observed)["hugepages-2Mi"] == "1Gi"
    assert capacity(observed=observed)["hugepages-1Gi"] == "0"
    assert allocatable(observed=observed)["memory"] == "7Gi"
    alone = {"hugepages-2Mi": rules.compute_capacity(SETTINGS, observed)["hugepages-2Mi"]}
    assert rules.compute_allocatable(SETTINGS, observed, alone) == alone


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 100))
def test_allocatable_is_never_negative_nor_above_capacity(reserved: int, threshold: int, percent: int) -> None:
    settings = replace(
        SETTINGS,
        kube_reserved={"memory": str(reserved), "cpu": str(reserved)},
        eviction_hard={"memory.available": str(threshold), "nodefs.available": f"{percent}%"},
    )
    resources = rules.compute_capacity(settings, OBSERVED)
    for name, amount in rules.compute_allocatable(settings, OBSERVED, resources).items():
        assert 0 <= amount.nanos <= resources[name].nanos


def test_extended_resources_come_from_their_manager() -> None:
    observed = replace(OBSERVED, extended_capacity={"a.com/gpu": "2"}, extended_allocatable={"a.com/gpu": "1"})
    assert capacity(observed=observed)["a.com/gpu"] == "2"
    assert allocatable(observed=observed)["a.com/gpu"] == "1"


def test_node_labels_may_override_the_defaults() -> None:
    settings = replace(SETTINGS, hostname="host", labels={"kubernetes.io/arch": "mine", "a": "b"})
    assert rules.default_labels(settings, MACHINE) == {
        "kubernetes.io/hostname": "host",
        "kubernetes.io/os": "linux",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "mine",
        "beta.kubernetes.io/arch": "amd64",
        "a": "b",
    }


def test_a_node_of_an_external_cloud_waits_for_its_controller() -> None:
    settings = replace(
        SETTINGS, external_cloud=True, provided_ips=("10.0.0.1",), taints=(core_v1.Taint(key="a", effect="NoSchedule"),)
    )
    node = rules.initial_node(settings, MACHINE)
    without_address = rules.initial_node(replace(settings, provided_ips=(), controller_attach=False), MACHINE)
    assert without_address.metadata is not None
    assert without_address.metadata.annotations is None
    assert node.spec is not None
    assert [(taint.key, taint.value, taint.effect) for taint in node.spec.taints or []] == [
        ("a", None, "NoSchedule"),
        ("node.cloudprovider.kubernetes.io/uninitialized", "true", "NoSchedule"),
    ]
    assert node.metadata is not None
    assert (node.metadata.annotations or {})["alpha.kubernetes.io/provided-node-ip"] == "10.0.0.1"


def test_a_node_that_lacks_nothing_is_not_patched() -> None:
    assert rules.registration_patch(rules.initial_node(SETTINGS, MACHINE), SETTINGS, MACHINE) is None


def test_a_node_that_lacks_something_is_patched_with_that_only() -> None:
    node = rules.initial_node(SETTINGS, MACHINE)
    assert node.metadata is not None
    assert node.metadata.labels is not None
    node.metadata.labels["kubernetes.io/hostname"] = "old"
    node.metadata.annotations = None
    assert rules.registration_patch(node, SETTINGS, MACHINE) == {
        "metadata": {
            "labels": {"kubernetes.io/hostname": "n1"},
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        }
    }


def condition(observed: NodeObservation, kind: str) -> core_v1.NodeCondition:
    status = rules.compute_node_status(SETTINGS, observed, None, NOW)
    return next(each for each in status.conditions or [] if each.type == kind)


def test_a_healthy_node_says_so_in_the_wire_words() -> None:
    said = {kind: condition(OBSERVED, kind) for kind in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")}
    assert {kind: (each.status, each.reason) for kind, each in said.items()} == {
        "Ready": ("True", "KubeletReady"),
        "MemoryPressure": ("False", "KubeletHasSufficientMemory"),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure"),
        "PIDPressure": ("False", "KubeletHasSufficientPID"),
    }


def test_pressure_shows_in_its_condition() -> None:
    observed = replace(OBSERVED, pressure=Pressure(memory=True, disk=True, pid=True))
    reasons = [condition(observed, kind).reason for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")]
    assert reasons == ["KubeletHasInsufficientMemory", "KubeletHasDiskPressure", "KubeletHasInsufficientPID"]


def test_every_problem_is_named_when_the_node_is_not_ready() -> None:
    one = replace(OBSERVED, problems=("PLEG is not healthy",))
    two = replace(one, runtime=RuntimeState("", ("container runtime is down",)))
    assert condition(one, "Ready").message == "PLEG is not healthy"
    assert condition(two, "Ready").message == "[container runtime is down, PLEG is not healthy]"
    assert condition(two, "Ready").reason == "KubeletNotReady"


def test_the_size_of_local_storage_must_be_known_where_it_is_counted() -> None:
    unknown = replace(OBSERVED, machine=replace(MACHINE, ephemeral_storage_bytes=0))
    assert condition(unknown, "Ready").message == "missing node capacity for resources: ephemeral-storage"
    status = rules.compute_node_status(replace(SETTINGS, local_storage=False), OBSERVED, None, NOW)
    assert rules.is_ready(status)
    assert not rules.is_ready(None)


def test_the_transition_time_moves_only_with_the_status() -> None:
    first = rules.compute_node_status(SETTINGS, OBSERVED, None, NOW)
    later = NOW + timedelta(minutes=1)
    second = rules.compute_node_status(SETTINGS, OBSERVED, first, later)
    assert {each.lastTransitionTime for each in second.conditions or []} == {NOW}
    assert {each.lastHeartbeatTime for each in second.conditions or []} == {later}
    assert rules.same_apart_from_heartbeats(first, second)
    down = replace(OBSERVED, runtime=RuntimeState("", ("down",)))
    third = rules.compute_node_status(SETTINGS, down, second, later)
    assert not rules.same_apart_from_heartbeats(second, third)
    assert [e.lastTransitionTime for e in third.conditions or [] if e.type == "Ready"] == [later]


def test_transitions_are_events_and_a_first_not_ready_is_none() -> None:
    down = replace(OBSERVED, runtime=RuntimeState("", ("down",)))
    first = rules.compute_node_status(SETTINGS, down, None, NOW)
    second = rules.compute_node_status(SETTINGS, OBSERVED, first, NOW)
    assert "NodeNotReady" not in {event.reason for event in rules.condition_events("n1", None, first)}
    assert rules.condition_events("n1", first, second) == (
        rules.NodeEvent("NodeReady", "Node n1 status is now: NodeReady"),
    )


@pytest.mark.parametrize(
    ("kind", "worse", "better"),
    [
        ("Ready", "NodeReady", "NodeNotReady"),
        ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ("NetworkUnavailable", None, None),
    ],
)
def test_each_condition_has_its_words(kind: str, worse: str | None, better: str | None) -> None:
    """Alerts of others match them. A condition of somebody else's is no event of ours."""

    def status(value: str) -> core_v1.NodeStatus:
        return core_v1.NodeStatus(conditions=[core_v1.NodeCondition(type=kind, status=value)])

    for before, after, word in (("False", "True", worse), ("True", "False", better)):
        events = rules.condition_events("n1", status(before), status(after))
        expected = [] if word is None else [rules.NodeEvent(word, f"Node n1 status is now: {word}")]
        assert list(events) == expected
        assert rules.condition_events("n1", status(after), status(after)) == ()


def test_the_runtimes_words_reach_the_ready_condition() -> None:
    status = cri.RuntimeStatus(
        conditions=[
            cri.RuntimeCondition(type="RuntimeReady", status=True),
            cri.RuntimeCondition(type="NetworkReady", status=False, reason="NetworkPluginNotReady", message="no cni"),
        ]
    )
    assert rules.runtime_problems(status) == (
        "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:no cni",
    )


def test_a_runtime_that_says_nothing_of_itself_is_not_ready() -> None:
    assert rules.runtime_problems(cri.RuntimeStatus()) == (
        "container runtime not ready: the runtime does not report RuntimeReady",
        "container runtime network not ready: the runtime does not report NetworkReady",
    )


def test_handlers_and_features_come_from_the_runtime() -> None:
    handler = cri.RuntimeHandler(name="runc", features=cri.RuntimeHandlerFeatures(recursive_read_only_mounts=True))
    state = rules.runtime_state(
        cri.VersionResponse(runtime_name="containerd", runtime_version="1.6.20"),
        cri.StatusResponse(
            status=cri.RuntimeStatus(
                conditions=[cri.RuntimeCondition(type=kind, status=True) for kind in ("RuntimeReady", "NetworkReady")]
            ),
            runtime_handlers=[handler],
            features=cri.RuntimeFeatures(supplemental_groups_policy=True),
        ),
    )
    status = rules.compute_node_status(SETTINGS, replace(OBSERVED, runtime=state), None, NOW)
    assert status.nodeInfo is not None
    assert status.nodeInfo.containerRuntimeVersion == "containerd://1.6.20"
    assert status.features == core_v1.NodeFeatures(supplementalGroupsPolicy=True)
    assert [each.name for each in status.runtimeHandlers or []] == ["runc"]
    assert condition(replace(OBSERVED, runtime=state), "Ready").status == "True"


def test_features_stay_while_the_runtime_says_nothing_of_them() -> None:
    """It is an old one, or has not answered yet; a pod that needs one would be refused for good."""
    silent = rules.runtime_state(cri.VersionResponse(), cri.StatusResponse())
    assert silent.supplemental_groups_policy is None
    before = core_v1.NodeStatus(features=core_v1.NodeFeatures(supplementalGroupsPolicy=True))
    status = rules.compute_node_status(SETTINGS, replace(OBSERVED, runtime=silent), before, NOW)
    assert status.features == before.features
    without = replace(silent, supplemental_groups_policy=False)
    status = rules.compute_node_status(SETTINGS, replace(OBSERVED, runtime=without), before, NOW)
    assert status.features == core_v1.NodeFeatures(supplementalGroupsPolicy=False)


def test_the_biggest_images_are_shown_digests_first() -> None:
    images = [core_v1.ContainerImage(names=[f"i{n}:v", f"i{n}@sha256:0"], sizeBytes=n) for n in range(60)]
    shown = rules.reported_images(images, 50)
    assert len(shown) == 50
    assert shown[0] == core_v1.ContainerImage(names=["i59@sha256:0", "i59:v"], sizeBytes=59)
    assert len(rules.reported_images(images, -1)) == 60
    assert rules.reported_images(images, 0) == []


def test_what_the_cloud_and_other_controllers_wrote_is_kept() -> None:
    before = core_v1.NodeStatus(
        addresses=[core_v1.NodeAddress(type="ExternalIP", address="1.2.3.4")],
        volumesAttached=[core_v1.AttachedVolume(name="v", devicePath="")],
        conditions=[core_v1.NodeCondition(type="Foreign", status="True")],
        capacity={"hugepages-2Mi": "1Gi"},
    )
    after = rules.compute_node_status(replace(SETTINGS, external_cloud=True), OBSERVED, before, NOW)
    assert after.addresses == before.addresses
    assert after.volumesAttached == before.volumesAttached
    assert (after.conditions or [])[0].type == "Foreign"
    assert (after.capacity or {})["hugepages-2Mi"] == "0"


def test_a_reboot_needs_a_boot_before() -> None:
    status = rules.compute_node_status(SETTINGS, OBSERVED, None, NOW)
    assert rules.reboot_event("n1", None, "b2") is None
    assert rules.reboot_event("n1", status, "b") is None
    event = rules.reboot_event("n1", status, "b2")
    assert event is not None
    assert (event.type, event.reason) == ("Warning", "Rebooted")


@pytest.mark.parametrize(
    ("was", "now", "reason"),
    [(None, True, None), (False, True, "NodeNotSchedulable"), (True, False, "NodeSchedulable"), (True, True, None)],
)
def test_a_flip_of_unschedulable_is_an_event(was: bool | None, now: bool, reason: str | None) -> None:
    event = rules.schedulable_event("n1", was, now)
    assert (event.reason if event else None) == reason


def test_events_about_a_node_point_at_its_name() -> None:
    assert rules.node_reference("n1") == core_v1.ObjectReference(apiVersion="v1", kind="Node", name="n1", uid="n1")
