"""Sandbox and container configurations carry what the Go kubelet's carry."""

import json
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.core import labels
from kubelet_py.core.cgroup_rules import CgroupDriver, CgroupSettings
from kubelet_py.core.container_config import ContainerContext, compute_container_config, to_cri_env
from kubelet_py.core.dns import NodeDns
from kubelet_py.core.env import EnvSources
from kubelet_py.core.sandbox_config import (
    SandboxContext,
    compute_port_mappings,
    compute_sandbox_config,
    compute_sandbox_plan,
    compute_sysctls,
    normal_sysctl_name,
    sysctl_namespace,
)
from kubelet_py.core.security import ImageUser, SecuritySettings
from kubelet_py.errors import SyncError
from tests.unit.kubelet_py.core.pod_builder import UID, a_container, a_pod, sized


def test_sandbox_identity_and_paths() -> None:
    """Metadata, labels, annotations, log directory, cgroup."""
    pod = a_pod(metadata={"labels": {"app": "web"}, "annotations": {"note": "x"}})
    config = compute_sandbox_config(pod, 3, SandboxContext(cgroups=CgroupSettings(driver=CgroupDriver.SYSTEMD)))
    assert config.metadata == cri.PodSandboxMetadata(name="web", namespace="shop", uid=UID, attempt=3)
    assert dict(config.labels) == {
        "app": "web",
        "io.kubernetes.pod.name": "web",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": UID,
    }
    assert dict(config.annotations) == {"note": "x"}
    assert config.log_directory == f"/var/log/pods/shop_web_{UID}"
    assert config.hostname == "web"
    assert config.linux.cgroup_parent.startswith("/kubepods.slice/kubepods-besteffort.slice/")


def test_a_sandbox_as_a_whole() -> None:
    """Everything that the runtime is told of a pod; a field that goes missing shows here."""
    pod = a_pod(
        a_container(
            resources={"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}},
            ports=[{"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}],
        ),
        metadata={"labels": {"app": "web"}, "annotations": {"note": "x"}},
        dnsPolicy="None",
        dnsConfig={"nameservers": ["192.0.2.53"], "searches": ["shop.example"], "options": [{"name": "ndots"}]},
        overhead={"cpu": "10m", "memory": "8Mi"},
        securityContext={"fsGroup": 7, "sysctls": [{"name": "net.core.somaxconn", "value": "9"}]},
    )
    context = SandboxContext(pod_logs_root="/logs", default_sysctls={"net.ipv4.ip_forward": "1"})
    runtime_default = cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)
    assert compute_sandbox_config(pod, 2, context) == cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name="web", namespace="shop", uid=UID, attempt=2),
        hostname="web",
        log_directory=f"/logs/shop_web_{UID}",
        dns_config=cri.DNSConfig(servers=["192.0.2.53"], searches=["shop.example"], options=["ndots"]),
        port_mappings=[cri.PortMapping(protocol=cri.TCP, container_port=80, host_port=8080)],
        labels={
            "app": "web",
            "io.kubernetes.pod.name": "web",
            "io.kubernetes.pod.namespace": "shop",
            "io.kubernetes.pod.uid": UID,
        },
        annotations={"note": "x"},
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent=f"/kubepods/burstable/pod{UID}",
            security_context=cri.LinuxSandboxSecurityContext(
                namespace_options=cri.NamespaceOption(network=cri.POD, pid=cri.CONTAINER, ipc=cri.POD),
                supplemental_groups=[7],
                seccomp=runtime_default,
            ),
            sysctls={"net.ipv4.ip_forward": "1", "net.core.somaxconn": "9"},
            resources=cri.LinuxContainerResources(
                cpu_period=100_000, cpu_quota=20_000, cpu_shares=102, memory_limit_in_bytes=128 << 20
            ),
            overhead=cri.LinuxContainerResources(
                cpu_period=100_000, cpu_quota=1000, cpu_shares=10, memory_limit_in_bytes=8 << 20
            ),
        ),
    )


def test_a_container_as_a_whole() -> None:
    """Everything that the runtime is told of a container; a field that goes missing shows here."""
    pod = a_pod(
        a_container(
            image="registry/web:1",
            command=["run", "$(WHERE)"],
            args=["--at=$(WHERE)"],
            workingDir="/srv",
            env=[{"name": "WHERE", "value": "here"}],
            stdin=True,
            stdinOnce=True,
            tty=True,
            terminationMessagePath="/dev/end",
            terminationMessagePolicy="File",
            resources={"limits": {"cpu": "1", "memory": "64Mi"}},
            securityContext={"runAsUser": 5, "readOnlyRootFilesystem": True},
        )
    )
    container = podlib.containers_of(pod)[0]
    context = ContainerContext(
        image_ref="sha256:web",
        restart_count=4,
        env=EnvSources(pod_ips=("192.0.2.9",)),
        mounts=(cri.Mount(container_path="/data", host_path="/volume"),),
        hosts_file_host_path="/hosts",
        termination_message_host_path="/end",
        devices=(cri.Device(container_path="/dev/a", host_path="/dev/b", permissions="r"),),
        cdi_devices=(cri.CDIDevice(name="vendor/kind=one"),),
        extra_annotations={"from": "a plugin"},
    )
    config = compute_container_config(pod, container, context)
    assert config.metadata == cri.ContainerMetadata(name=container.name, attempt=4)
    assert config.image == cri.ImageSpec(image="sha256:web", user_specified_image="registry/web:1")
    assert (list(config.command), list(config.args)) == (["run", "here"], ["--at=here"])
    assert (config.working_dir, config.log_path) == ("/srv", f"{container.name}/4.log")
    assert (config.stdin, config.stdin_once, config.tty) == (True, True, True)
    assert list(config.envs) == [cri.KeyValue(key="WHERE", value=b"here")]
    assert [(mount.container_path, mount.host_path) for mount in config.mounts] == [
        ("/data", "/volume"),
        ("/etc/hosts", "/hosts"),
        ("/dev/end", "/end"),
    ]
    assert list(config.devices) == list(context.devices)
    assert list(config.CDI_devices) == list(context.cdi_devices)
    assert dict(config.labels) == labels.compute_container_labels(pod, container)
    assert config.annotations["from"] == "a plugin"
    assert config.annotations["io.kubernetes.container.restartCount"] == "4"
    assert config.annotations["io.kubernetes.container.terminationMessagePath"] == "/dev/end"
    limits = config.linux.resources
    assert (limits.cpu_quota, limits.cpu_period, limits.memory_limit_in_bytes) == (100_000, 100_000, 64 << 20)
    security = config.linux.security_context
    assert (security.run_as_user.value, security.readonly_rootfs) == (5, True)


def test_ids_and_groups_reach_sandbox_and_container() -> None:
    """A pod with a user namespace of its own runs under its mapping everywhere, with the groups of its volumes."""
    mapping = cri.UserNamespace(mode=cri.POD, uids=[cri.IDMapping(host_id=65536, length=65536)])
    sandbox = compute_sandbox_config(a_pod(), 0, SandboxContext(user_namespace=mapping, volume_groups=(9,)))
    container = _config(a_container(), ContainerContext("sha256:1", user_namespace=mapping, volume_groups=(9,)))
    for security in (sandbox.linux.security_context, container.linux.security_context):
        assert security.namespace_options.userns_options == mapping
        assert list(security.supplemental_groups) == [9]


def test_the_hostname_may_be_the_full_one() -> None:
    dns = NodeDns(cluster_domain="c.local")
    pod = a_pod(subdomain="sub", setHostnameAsFQDN=True)
    assert compute_sandbox_config(pod, 0, SandboxContext(dns=dns)).hostname == "web.sub.shop.svc.c.local"


def test_sandbox_on_the_host_network_has_no_name() -> None:
    """The node's own name holds there."""
    assert compute_sandbox_config(a_pod(hostNetwork=True), 0, SandboxContext()).hostname == ""


def test_sandbox_warnings_come_along() -> None:
    """What DNS had to leave out is for the pod's owner to know."""
    plan = compute_sandbox_plan(a_pod(dnsPolicy="ClusterFirst"), 0, SandboxContext())
    assert [warning.reason for warning in plan.warnings] == ["MissingClusterDNS", "MissingClusterDNS"]


def test_impossible_name_stops_the_sandbox() -> None:
    """With the reason that the pod's status shows."""
    with pytest.raises(SyncError, match="not a valid DNS label"):
        compute_sandbox_config(a_pod(hostname="A"), 0, SandboxContext())


def test_port_mappings() -> None:
    """Every port once, by its name or by all that makes it one; odd protocols count as TCP."""
    ports = [
        {"containerPort": 80, "hostPort": 8080, "name": "http", "protocol": "TCP"},
        {"containerPort": 81, "name": "http"},
        {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.0.2.1"},
        {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "fd00::1"},
        {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.0.2.1"},
        {"containerPort": 9, "protocol": "SCTP"},
        {"containerPort": 10, "protocol": "ODD"},
        {"containerPort": 9, "protocol": "TCP"},
        {"containerPort": 9},
    ]
    mappings = compute_port_mappings(a_pod(a_container(ports=ports), a_container("b")))
    assert [(m.protocol, m.container_port, m.host_port, m.host_ip) for m in mappings] == [
        (cri.TCP, 80, 8080, ""),
        (cri.UDP, 53, 53, "192.0.2.1"),
        (cri.UDP, 53, 53, "fd00::1"),
        (cri.SCTP, 9, 0, ""),
        (cri.TCP, 10, 0, ""),
        (cri.TCP, 9, 0, ""),
    ]


DEFAULTS = {
    "net/ipv4/ip_forward": "1",
    "kernel.shmmax": "2",
    "fs.mqueue.x": "3",
    "user.max_x": "4",
    "kernel.domainname": "5",
    "vm.swappiness": "6",
}


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ({}, {"net.ipv4.ip_forward", "kernel.shmmax", "fs.mqueue.x", "kernel.domainname"}),
        ({"hostNetwork": True}, {"kernel.shmmax", "fs.mqueue.x"}),
        ({"hostIPC": True}, {"net.ipv4.ip_forward", "kernel.domainname"}),
        ({"hostUsers": False, "hostNetwork": True, "hostIPC": True}, {"user.max_x"}),
    ],
)
def test_default_sysctls(spec: dict[str, Any], names: set[str]) -> None:
    """Are set only in namespaces that the pod has to itself."""
    assert set(compute_sysctls(a_pod(**spec), DEFAULTS)) == names


def test_own_sysctls_win() -> None:
    """The pod's value holds over the node's default."""
    pod = a_pod(securityContext={"sysctls": [{"name": "kernel.shmmax", "value": "9"}]})
    assert compute_sysctls(pod, {"kernel.shmmax": "1"}) == {"kernel.shmmax": "9"}


def test_a_sysctl_has_one_name() -> None:
    """However the pod spells it: otherwise both it and the node's default would be set."""
    pod = a_pod(securityContext={"sysctls": [{"name": "net/ipv4/conf/eth0.1/forwarding", "value": "0"}]})
    name = "net.ipv4.conf.eth0/1.forwarding"
    assert compute_sysctls(pod, {name: "1"}) == {name: "0"}


@pytest.mark.parametrize(
    ("name", "normal", "namespace"),
    [
        ("kernel.sem", "kernel.sem", "IPC"),
        ("net/ipv4/conf/eth0.1/forwarding", "net.ipv4.conf.eth0/1.forwarding", "Net"),
        ("net.ipv4.conf.eth0/1.x", "net.ipv4.conf.eth0/1.x", "Net"),
        ("plain", "plain", ""),
        ("user.x", "user.x", "User"),
    ],
)
def test_sysctl_names(name: str, normal: str, namespace: str) -> None:
    """Slashes become dots when the first separator is one."""
    assert normal_sysctl_name(name) == normal
    assert sysctl_namespace(name) == namespace


def _config(container: dict[str, Any], context: ContainerContext | None = None, **spec: Any) -> cri.ContainerConfig:
    pod = a_pod(container, **spec)
    return compute_container_config(pod, podlib.containers_of(pod)[0], context or ContainerContext("sha256:1"))


def test_container_process() -> None:
    """Command and arguments expand over the environment; the rest is as the pod says."""
    config = _config(
        a_container(
            command=["sh", "$(A)"],
            args=["$(DEV)", "$$(A)"],
            env=[{"name": "A", "value": "1"}],
            workingDir="/w",
            stdin=True,
            stdinOnce=True,
            tty=True,
        ),
        ContainerContext("sha256:1", restart_count=2, extra_env={"DEV": "d", "A": "hidden"}),
    )
    assert (list(config.command), list(config.args)) == (["sh", "1"], ["d", "$(A)"])
    assert {e.key: e.value for e in config.envs} == {"A": b"1", "DEV": b"d"}
    assert config.metadata == cri.ContainerMetadata(name="main", attempt=2)
    assert config.image == cri.ImageSpec(image="sha256:1", user_specified_image="registry.example/app:1")
    assert config.log_path == "main/2.log"
    assert (config.working_dir, config.stdin, config.stdin_once, config.tty) == ("/w", True, True, True)


def test_container_refusals() -> None:
    """A policy that the image breaks stops it before the runtime is asked."""
    with pytest.raises(SyncError, match="image will run as root"):
        _config(a_container(securityContext={"runAsNonRoot": True}))


def test_container_mounts() -> None:
    """Volumes, then hosts file, then termination message; ids are mapped in all of them."""
    mapping = cri.UserNamespace(
        mode=cri.POD, uids=[cri.IDMapping(host_id=65536, length=65536)], gids=[cri.IDMapping(host_id=1, length=2)]
    )
    volume = cri.Mount(container_path="/data", host_path="/v")
    context = ContainerContext(
        "sha256:1",
        mounts=(volume,),
        env=EnvSources(pod_ips=("10.0.0.1",)),
        hosts_file_host_path="/p/etc-hosts",
        termination_message_host_path="/p/0000beef",
        user_namespace=mapping,
        security=SecuritySettings(selinux_enabled=True),
    )
    mounts = _config(a_container(terminationMessagePath="/dev/termination-log"), context).mounts
    assert [(m.container_path, m.host_path, m.selinux_relabel) for m in mounts] == [
        ("/data", "/v", False),
        ("/etc/hosts", "/p/etc-hosts", True),
        ("/dev/termination-log", "/p/0000beef", True),
    ]
    assert all(m.uidMappings[0].host_id == 65536 and m.gidMappings[0].length == 2 for m in mounts)
    assert not volume.uidMappings
    assert not _config(a_container()).mounts
    ended = a_container(terminationMessagePath="/dev/termination-log")
    assert not _config(ended, ContainerContext("sha256:1", env=EnvSources(pod_ips=("10.0.0.1",)))).mounts
    nowhere = ContainerContext("sha256:1", termination_message_host_path="/p/0000beef", hosts_file_host_path="/p/hosts")
    assert not _config(a_container(), nowhere).mounts
    (hosts,) = _config(a_container(), nowhere, hostNetwork=True).mounts
    assert hosts.container_path == "/etc/hosts"


def test_ephemeral_container_joins_its_target() -> None:
    """Unless processes are shared anyway."""
    context = ContainerContext("sha256:1", target_container_id="abc")
    options = _config(a_container(), context).linux.security_context.namespace_options
    assert (options.pid, options.target_id) == (cri.TARGET, "abc")
    options = _config(a_container(), context, hostPID=True).linux.security_context.namespace_options
    assert (options.pid, options.target_id) == (cri.NODE, "")


def test_container_limits_and_user() -> None:
    """From the settings and the image."""
    context = ContainerContext("sha256:1", image_user=ImageUser(5), cgroups=CgroupSettings(node_memory_bytes=2**30))
    linux = _config(a_container(**sized({"cpu": "1"})), context).linux
    assert linux.resources.cpu_shares == 1024
    assert linux.security_context.run_as_user.value == 5


def test_environment_is_bytes() -> None:
    """What came as bytes leaves as the same bytes."""
    assert to_cri_env({"A": b"\xff".decode("utf-8", "surrogateescape")})[0].value == b"\xff"


def _annotated(pod: core_v1.Pod) -> dict[str, str]:
    return labels.compute_container_annotations(pod, podlib.containers_of(pod)[0], 4, {"dev": "x"})


def test_container_annotations() -> None:
    """All that must be known when the manifest is gone."""
    pod = a_pod(
        a_container(
            terminationMessagePath="/t",
            terminationMessagePolicy="File",
            lifecycle={"preStop": {"exec": {"command": ["x"]}}},
            ports=[{"containerPort": 80}],
        ),
        metadata={"deletionGracePeriodSeconds": 7},
        terminationGracePeriodSeconds=30,
    )
    found = _annotated(pod)
    assert json.loads(found.pop("io.kubernetes.container.preStopHandler")) == {"exec": {"command": ["x"]}}
    assert json.loads(found.pop("io.kubernetes.container.ports")) == [{"containerPort": 80}]
    assert len(found.pop("io.kubernetes.container.hash")) <= 8
    assert found == {
        "dev": "x",
        "io.kubernetes.container.restartCount": "4",
        "io.kubernetes.container.terminationMessagePath": "/t",
        "io.kubernetes.container.terminationMessagePolicy": "File",
        "io.kubernetes.pod.deletionGracePeriod": "7",
        "io.kubernetes.pod.terminationGracePeriod": "30",
    }
    plain = _annotated(a_pod(a_container(lifecycle={})))
    assert not {name for name in plain if name.endswith(("Period", "Handler", "ports"))}


def test_container_labels_and_log_names() -> None:
    """The pod's own labels stay with the sandbox; file names fit the file system."""
    pod = a_pod(metadata={"labels": {"app": "web"}})
    assert labels.compute_container_labels(pod, podlib.containers_of(pod)[0]) == {
        "io.kubernetes.pod.name": "web",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": UID,
        "io.kubernetes.container.name": "main",
    }
    assert labels.pod_uid_of_log_directory(f"shop_web_{UID}") == UID
    assert labels.pod_log_directory("/logs/", "n", "p", "u") == "/logs/n_p_u"
    assert labels.legacy_log_link_name("p", "n", "c", "id") == "p_n_c-id.log"
    long = labels.legacy_log_link_name("p" * 253, "n", "c", "id")
    assert len(long) == 255
    assert long.endswith("pp.log")


def test_links_for_log_collectors_are_beside_the_logs_of_pods() -> None:
    assert labels.log_links_root("/var/log/pods") == "/var/log/containers"
    assert labels.log_links_root("/data/logs/") == "/data/containers"
