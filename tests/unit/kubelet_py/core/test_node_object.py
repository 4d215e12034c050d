"""The Node object as others read it: the whole of it, every condition with its words, and every event."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1, meta_v1
from kubelet_py.core import node_rules as rules
from kubelet_py.core.node_rules import MachineInfo, NodeEvent, NodeObservation, NodeSettings, Pressure, RuntimeState

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MACHINE = MachineInfo(
    machine_id="machine",
    system_uuid="uuid",
    boot_id="boot",
    kernel_version="6.1",
    os_image="Debian",
    cores=4,
    memory_bytes=8 << 30,
    architecture="arm64",
    operating_system="linux",
    swap_bytes=1 << 30,
    ephemeral_storage_bytes=100 << 30,
)
SETTINGS = NodeSettings(name="n1")
ADDRESS = core_v1.NodeAddress(type="InternalIP", address="10.0.0.1")
OBSERVED = NodeObservation(machine=MACHINE, addresses=(ADDRESS,), runtime=RuntimeState("docker://20.10", ()))
HANDLER = core_v1.NodeRuntimeHandler(name="runc", features=core_v1.NodeRuntimeHandlerFeatures(userNamespaces=True))
IMAGE = core_v1.ContainerImage(names=["i:v"], sizeBytes=7)


def conditions(observed: NodeObservation) -> dict[str, tuple[str, str | None, str | None]]:
    found = rules.compute_node_status(SETTINGS, observed, None, NOW).conditions or []
    return {each.type: (each.status, each.reason, each.message) for each in found}


def test_a_new_node_of_a_cloud_carries_all_that_was_set() -> None:
    """Name, labels, provider and the taint that keeps pods away until the cloud has looked."""
    settings = NodeSettings(
        name="n1", external_cloud=True, provider_id="cloud://1", provided_ips=("10.0.0.1", "fd00::1")
    )
    assert rules.initial_node(settings, MACHINE) == core_v1.Node(
        metadata=meta_v1.ObjectMeta(
            name="n1",
            labels={
                "kubernetes.io/hostname": "n1",
                "kubernetes.io/os": "linux",
                "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": "arm64",
                "beta.kubernetes.io/arch": "arm64",
            },
            annotations={
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
                "alpha.kubernetes.io/provided-node-ip": "10.0.0.1,fd00::1",
            },
        ),
        spec=core_v1.NodeSpec(
            providerID="cloud://1",
            taints=[
                core_v1.Taint(key="node.cloudprovider.kubernetes.io/uninitialized", value="true", effect="NoSchedule")
            ],
        ),
    )
    plain = rules.initial_node(SETTINGS, MACHINE).spec
    assert plain == core_v1.NodeSpec()


def test_annotations_of_ours_follow_the_settings_both_ways() -> None:
    """A cloud that reads an address of former settings refuses the node whose addresses it is not among."""
    cloud = replace(SETTINGS, external_cloud=True, provided_ips=("10.0.0.1",))
    by_cloud, plain = (rules.initial_node(settings, MACHINE) for settings in (cloud, SETTINGS))
    address = {"alpha.kubernetes.io/provided-node-ip": "10.0.0.1"}
    attach = {"volumes.kubernetes.io/controller-managed-attach-detach": None}
    assert rules.registration_patch(plain, cloud, MACHINE) == {"metadata": {"annotations": address}}
    no_address = {"alpha.kubernetes.io/provided-node-ip": None}
    for without in (SETTINGS, replace(cloud, provided_ips=()), replace(cloud, provided_ips=("::",))):
        assert rules.registration_patch(by_cloud, without, MACHINE) == {"metadata": {"annotations": no_address}}
    not_attaching = replace(SETTINGS, controller_attach=False)
    assert rules.registration_patch(plain, not_attaching, MACHINE) == {"metadata": {"annotations": attach}}


def test_the_whole_status_but_its_conditions() -> None:
    """Each fact of the machine, the settings and the runtime is in the field that others read."""
    observed = replace(
        OBSERVED,
        runtime=RuntimeState("docker://20.10", (), (HANDLER,), supplemental_groups_policy=True),
        images=(IMAGE,),
        volumes_in_use=("b", "a"),
    )
    settings = replace(SETTINGS, kubelet_port=10260, kubelet_version="v1.37.9", declared_features=("B", "A"))
    status = rules.compute_node_status(settings, observed, None, NOW)
    status.conditions = None
    resources = {"cpu": "4", "ephemeral-storage": "100Gi", "memory": "8Gi", "pods": "110"}
    assert status == core_v1.NodeStatus(
        addresses=[ADDRESS],
        capacity=resources,
        allocatable=resources,
        daemonEndpoints=core_v1.NodeDaemonEndpoints(kubeletEndpoint=core_v1.DaemonEndpoint(Port=10260)),
        declaredFeatures=["A", "B"],
        features=core_v1.NodeFeatures(supplementalGroupsPolicy=True),
        images=[IMAGE],
        nodeInfo=core_v1.NodeSystemInfo(
            architecture="arm64",
            bootID="boot",
            containerRuntimeVersion="docker://20.10",
            kernelVersion="6.1",
            kubeProxyVersion="",
            kubeletVersion="v1.37.9",
            machineID="machine",
            operatingSystem="linux",
            osImage="Debian",
            systemUUID="uuid",
            swap=core_v1.NodeSwapStatus(capacity=1 << 30),
        ),
        runtimeHandlers=[HANDLER],
        volumesInUse=["a", "b"],
    )


def test_what_a_node_does_not_have_is_not_in_its_status() -> None:
    """No empty lists and no swap of nothing."""
    bare = replace(OBSERVED, addresses=(), machine=replace(MACHINE, swap_bytes=0))
    status = rules.compute_node_status(SETTINGS, bare, None, NOW)
    missing = (status.addresses, status.declaredFeatures, status.features, status.images, status.runtimeHandlers)
    assert (*missing, status.volumesInUse) == (None,) * 6
    assert status.nodeInfo is not None
    assert status.nodeInfo.swap is None


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
def test_a_family_that_is_asked_for_is_no_address_for_the_cloud(wildcard: str) -> None:
    settings = replace(SETTINGS, external_cloud=True, provided_ips=(wildcard,))
    metadata = rules.initial_node(settings, MACHINE).metadata
    assert metadata is not None
    assert "alpha.kubernetes.io/provided-node-ip" not in (metadata.annotations or {})


@pytest.mark.parametrize("provided", [(), ("10.0.0.1",), ("0.0.0.0",)])
@pytest.mark.parametrize("external", [True, False])
def test_addresses_that_a_cloud_has_set_are_its_own(external: bool, provided: tuple[str, ...]) -> None:
    """What was seen is there until then, and replaces them where there is no cloud."""
    theirs = core_v1.NodeAddress(type="ExternalIP", address="1.2.3.4")
    settings = replace(SETTINGS, external_cloud=external, provided_ips=provided)
    before = core_v1.NodeStatus(addresses=[theirs])
    status = rules.compute_node_status(settings, OBSERVED, before, NOW)
    assert status.addresses == [theirs if external else ADDRESS]
    assert rules.compute_node_status(settings, OBSERVED, None, NOW).addresses == [ADDRESS]


def test_a_node_keeps_its_addresses_while_the_machine_has_none() -> None:
    """A link that is down for a while, at the start or later, takes nobody's way to the node away."""
    before = core_v1.NodeStatus(addresses=[ADDRESS])
    unseen = replace(OBSERVED, addresses=())
    assert rules.compute_node_status(SETTINGS, unseen, before, NOW).addresses == [ADDRESS]
    assert rules.compute_node_status(SETTINGS, unseen, None, NOW).addresses is None


def test_what_somebody_advertises_for_the_node_stays_and_huge_pages_that_are_gone_go_to_zero() -> None:
    """A patch of the status is how extended resources come without a device plugin; taken back, none is left."""
    before = core_v1.NodeStatus(
        capacity={"a.com/gpu": "2", "hugepages-1Gi": "1Gi"}, allocatable={"a.com/gpu": "1", "a.com/gone": "1"}
    )
    status = rules.compute_node_status(SETTINGS, OBSERVED, before, NOW)
    capacity, allocatable = status.capacity or {}, status.allocatable or {}
    assert (capacity["a.com/gpu"], allocatable["a.com/gpu"]) == ("2", "2")
    assert (capacity["hugepages-1Gi"], allocatable["hugepages-1Gi"]) == ("0", "0")
    assert "a.com/gone" not in allocatable


def test_the_conditions_of_a_healthy_node() -> None:
    """In upstream's words, which people grep for."""
    assert conditions(OBSERVED) == {
        "MemoryPressure": ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        "PIDPressure": ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        "Ready": ("True", "KubeletReady", "kubelet is posting ready status"),
    }


def test_the_conditions_of_a_node_under_pressure_that_is_not_ready() -> None:
    """Each is independent of the others."""
    observed = replace(OBSERVED, pressure=Pressure(memory=True, disk=True, pid=True), problems=("down",))
    assert conditions(observed) == {
        "MemoryPressure": ("True", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        "DiskPressure": ("True", "KubeletHasDiskPressure", "kubelet has disk pressure"),
        "PIDPressure": ("True", "KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        "Ready": ("False", "KubeletNotReady", "down"),
    }


def test_heartbeats_are_whole_seconds_of_utc() -> None:
    """As metav1.Time holds them, wherever the node is."""
    here = datetime(2026, 1, 1, 14, 0, 0, 999, tzinfo=timezone(timedelta(hours=2)))
    beat = (rules.compute_node_status(SETTINGS, OBSERVED, None, here).conditions or [])[0].lastHeartbeatTime
    assert beat == NOW
    assert beat is not None
    assert beat.tzinfo is UTC


def test_a_condition_that_differs_or_is_new_is_worth_a_post() -> None:
    """The moment of a heartbeat and the order are not."""

    def with_conditions(*found: core_v1.NodeCondition) -> core_v1.NodeStatus:
        return core_v1.NodeStatus(conditions=list(found))

    ready = core_v1.NodeCondition(type="Ready", status="True", lastHeartbeatTime=NOW)
    disk = core_v1.NodeCondition(type="DiskPressure", status="False")
    later = core_v1.NodeCondition(type="Ready", status="True", lastHeartbeatTime=NOW + timedelta(seconds=1))
    assert rules.same_apart_from_heartbeats(with_conditions(ready, disk), with_conditions(disk, later))
    assert not rules.same_apart_from_heartbeats(with_conditions(ready), with_conditions(ready, disk))
    down = core_v1.NodeCondition(type="Ready", status="False", lastHeartbeatTime=NOW)
    assert not rules.same_apart_from_heartbeats(with_conditions(ready), with_conditions(down))
    assert not rules.is_ready(with_conditions(down, core_v1.NodeCondition(type="DiskPressure", status="True")))


GOOD = ("NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady")
BAD = ("NodeHasInsufficientMemory", "NodeHasDiskPressure", "NodeHasInsufficientPID", "NodeNotReady")


def test_each_transition_is_an_event_in_its_own_words() -> None:
    """Both ways; foreign conditions are others' to tell; the first look tells of pressure, not of Ready."""
    foreign = core_v1.NodeStatus(conditions=[core_v1.NodeCondition(type="Foreign", status="True")])
    under = replace(OBSERVED, pressure=Pressure(memory=True, disk=True, pid=True), problems=("down",))
    good = rules.compute_node_status(SETTINGS, OBSERVED, foreign, NOW)
    bad = rules.compute_node_status(SETTINGS, under, foreign, NOW)

    def events(*reasons: str) -> tuple[NodeEvent, ...]:
        return tuple(NodeEvent(reason, f"Node n1 status is now: {reason}") for reason in reasons)

    assert rules.condition_events("n1", good, bad) == events(*BAD)
    assert rules.condition_events("n1", bad, good) == events(*GOOD)
    assert rules.condition_events("n1", None, good) == events(*GOOD[:3])
    assert rules.condition_events("n1", good, good) == ()
    ready_first = core_v1.NodeStatus(conditions=list(reversed(good.conditions or [])))
    assert rules.condition_events("n1", None, ready_first) == events(*reversed(GOOD[:3]))


def test_events_of_a_boot_and_of_scheduling_name_the_node() -> None:
    """A status without a machine says nothing of a boot."""
    assert rules.reboot_event("n1", core_v1.NodeStatus(), "new") is None
    before = rules.compute_node_status(SETTINGS, OBSERVED, None, NOW)
    message = "Node n1 has been rebooted, boot id: new"
    assert rules.reboot_event("n1", before, "new") == NodeEvent("Rebooted", message, "Warning")
    stopped = NodeEvent("NodeNotSchedulable", "Node n1 status is now: NodeNotSchedulable")
    assert rules.schedulable_event("n1", False, True) == stopped


def test_runtime_handlers_keep_their_features_and_are_sorted() -> None:
    """So that a status does not differ by the order in which the runtime lists them."""
    features = cri.RuntimeHandlerFeatures
    state = rules.runtime_state(
        cri.VersionResponse(runtime_name="r", runtime_version="1"),
        cri.StatusResponse(
            runtime_handlers=[
                cri.RuntimeHandler(name="b", features=features(user_namespaces=True)),
                cri.RuntimeHandler(name="a", features=features(recursive_read_only_mounts=True)),
            ]
        ),
    )
    told = core_v1.NodeRuntimeHandlerFeatures
    assert state.handlers == (
        core_v1.NodeRuntimeHandler(name="a", features=told(recursiveReadOnlyMounts=True, userNamespaces=False)),
        core_v1.NodeRuntimeHandler(name="b", features=told(recursiveReadOnlyMounts=False, userNamespaces=True)),
    )
    assert not state.supplemental_groups_policy
    assert state.problems == rules.runtime_problems(cri.RuntimeStatus())
