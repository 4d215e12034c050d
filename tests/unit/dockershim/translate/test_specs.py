"""Create bodies: what Docker is told, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.errors import InvalidArgument
from dockershim.translate import names, security
from dockershim.translate.container_spec import ContainerContext, log_path, to_docker_container
from dockershim.translate.sandbox_spec import SandboxContext, to_docker_sandbox
from dockershim.translate.security import HostSecurity
from tests.fakes.docker_node import container_config, sandbox_config

Profile = cri.SecurityProfile
Kind = cri.SecurityProfile.ProfileType


def sandbox_body(config: cri.PodSandboxConfig | None = None, handler: str = "", **context: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "image": "sha256:1",
        "network_mode": "",
        "publishes_ports": False,
        "runtimes": ("runc",),
    }
    return to_docker_sandbox(config or sandbox_config(), handler, SandboxContext(**(base | context)))


def container_body(config: cri.ContainerConfig, **context: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "sandbox_id": "s1",
        "sandbox_metadata": sandbox_config().metadata,
        "image_id": "sha256:2",
        "api_version": (1, 41),
    }
    return to_docker_container(config, sandbox_config(), ContainerContext(**(base | context)))


def with_security(**fields: Any) -> cri.ContainerConfig:
    config = container_config()
    config.linux.security_context.MergeFrom(cri.LinuxContainerSecurityContext(**fields))
    return config


def test_a_plain_sandbox_is_what_cri_dockerd_makes() -> None:
    """Pause's settings: shareable IPC, lowest shares, protected from the OOM killer, no new privileges."""
    host_config = sandbox_body()["HostConfig"]
    assert host_config["IpcMode"] == "shareable"
    assert host_config["NetworkMode"] == "none"
    assert (host_config["CpuShares"], host_config["OomScoreAdj"], host_config["ShmSize"]) == (2, -998, 64 << 20)
    assert host_config["SecurityOpt"] == ["no-new-privileges"]
    assert "PortBindings" not in host_config


def test_a_score_below_the_hosts_is_raised() -> None:
    """For pause and for containers; higher ones stay."""
    assert sandbox_body(lowest_oom_score=-5)["HostConfig"]["OomScoreAdj"] == -5
    config = container_config()
    config.linux.resources.oom_score_adj = -997
    assert container_body(config, lowest_oom_score=0)["HostConfig"]["OomScoreAdj"] == 0
    config.linux.resources.oom_score_adj = 900
    assert container_body(config, lowest_oom_score=0)["HostConfig"]["OomScoreAdj"] == 900


def test_host_ports_are_dockers_only_on_its_own_network() -> None:
    """Mappings without a host port are no mappings."""
    config = sandbox_config()
    config.port_mappings.add(container_port=80, host_port=8080, host_ip="127.0.0.1")
    config.port_mappings.add(container_port=53, host_port=53, protocol=cri.Protocol.UDP)
    config.port_mappings.add(container_port=9000)
    body = sandbox_body(config, publishes_ports=True, network_mode="dockershim")
    assert body["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostPort": "8080", "HostIp": "127.0.0.1"}],
        "53/udp": [{"HostPort": "53", "HostIp": ""}],
    }
    assert set(body["ExposedPorts"]) == {"80/tcp", "53/udp"}


def test_cgroup_parents() -> None:
    """The slice's name under systemd, the path under cgroupfs."""
    config = sandbox_config()
    config.linux.cgroup_parent = "/kubepods.slice/kubepods-pod1.slice"
    assert sandbox_body(config, systemd_cgroups=True)["HostConfig"]["CgroupParent"] == "kubepods-pod1.slice"
    assert sandbox_body(config)["HostConfig"]["CgroupParent"] == "/kubepods.slice/kubepods-pod1.slice"


def test_runtime_handlers() -> None:
    """Docker's runtimes, the default under two names, and nothing else."""
    assert sandbox_body(handler="runc")["HostConfig"]["Runtime"] == "runc"
    assert "Runtime" not in sandbox_body(handler="docker")["HostConfig"]
    with pytest.raises(InvalidArgument, match=r"runtime_handler.*kata"):
        sandbox_body(handler="kata")


def test_runtimes_of_other_handlers_learn_of_the_pod() -> None:
    """From Docker 24 on (API 1.43); Docker's default runtime has no use for it."""
    config = sandbox_config()
    config.annotations["io.example/pod"] = "1"
    body = sandbox_body(config, handler="runc", api_version=(1, 43))
    said = body["HostConfig"]["Annotations"]
    assert (said["io.example/pod"], said["io.kubernetes.cri.container-type"]) == ("1", "sandbox")
    assert said["io.kubernetes.cri.sandbox-name"] == config.metadata.name
    said = container_body(container_config(), runtime_handler="runc", api_version=(1, 43))["HostConfig"]["Annotations"]
    assert (said["io.kubernetes.cri.container-type"], said["io.kubernetes.cri.sandbox-id"]) == ("container", "s1")
    for plain in (
        sandbox_body(config, api_version=(1, 43)),
        sandbox_body(config, handler="runc"),
        container_body(container_config(), api_version=(1, 43)),
    ):
        assert "Annotations" not in plain["HostConfig"]


def test_user_namespaces_are_refused_unless_they_are_the_hosts() -> None:
    """What the kubelet sends for hostUsers: true is fine."""
    config = sandbox_config()
    options = config.linux.security_context.namespace_options
    options.userns_options.mode = cri.NamespaceMode.NODE
    sandbox_body(config)
    options.userns_options.mode = cri.NamespaceMode.POD
    with pytest.raises(InvalidArgument, match="userns_options"):
        sandbox_body(config)


def test_a_container_joins_its_sandbox() -> None:
    """Network and IPC; PID as asked."""
    host_config = container_body(container_config())["HostConfig"]
    assert (host_config["NetworkMode"], host_config["IpcMode"]) == ("container:s1", "container:s1")
    for mode, expected in (
        (cri.NamespaceMode.POD, "container:s1"),
        (cri.NamespaceMode.CONTAINER, ""),
        (cri.NamespaceMode.NODE, "host"),
    ):
        options = cri.NamespaceOption(pid=mode)
        assert container_body(with_security(namespace_options=options))["HostConfig"]["PidMode"] == expected
    target = cri.NamespaceOption(pid=cri.NamespaceMode.TARGET, target_id="t1")
    assert container_body(with_security(namespace_options=target))["HostConfig"]["PidMode"] == "container:t1"
    target.target_id = ""
    with pytest.raises(InvalidArgument, match="target_id"):
        container_body(with_security(namespace_options=target))


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, ["seccomp=unconfined"]),
        ({"seccomp": Profile(profile_type=Kind.RuntimeDefault)}, []),
        ({"seccomp": Profile(profile_type=Kind.Unconfined)}, ["seccomp=unconfined"]),
        ({"seccomp": Profile(profile_type=Kind.Localhost, localhost_ref="/p")}, ["seccomp={}"]),
        ({"privileged": True, "seccomp": Profile(profile_type=Kind.Localhost, localhost_ref="/p")}, []),
        ({"privileged": True, "apparmor": Profile(profile_type=Kind.RuntimeDefault)}, []),
        ({"privileged": True, "apparmor_profile": "unconfined"}, []),
        ({"no_new_privs": True}, ["no-new-privileges", "seccomp=unconfined"]),
        (
            {"apparmor": Profile(profile_type=Kind.Localhost, localhost_ref="mine")},
            ["seccomp=unconfined", "apparmor=mine"],
        ),
        ({"apparmor_profile": "localhost/mine"}, ["seccomp=unconfined", "apparmor=mine"]),
        ({"apparmor_profile": "unconfined"}, ["seccomp=unconfined", "apparmor=unconfined"]),
        (
            {"selinux_options": cri.SELinuxOption(type="t", level="s0")},
            ["label=type:t", "label=level:s0", "seccomp=unconfined"],
        ),
    ],
)
def test_security_options(fields: dict[str, Any], options: list[str]) -> None:
    """Each profile in Docker's words."""
    host = HostSecurity(apparmor=True, seccomp_profile="{}")
    assert container_body(with_security(**fields), host=host)["HostConfig"]["SecurityOpt"] == options


@pytest.mark.parametrize(
    "fields",
    [
        {"apparmor": Profile(profile_type=Kind.Localhost, localhost_ref="mine")},
        {"apparmor_profile": "localhost/mine"},
    ],
)
def test_a_privileged_container_with_a_profile_of_its_own_is_refused(fields: dict[str, Any]) -> None:
    """Docker would run it unconfined."""
    config, host = with_security(privileged=True, **fields), HostSecurity(apparmor=True)
    with pytest.raises(InvalidArgument, match=r"^config\.linux\.security_context\.apparmor: profile 'mine'"):
        container_body(config, host=host)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, ""),
        ({"apparmor_profile": "runtime/default"}, ""),
        ({"apparmor_profile": "localhost/mine"}, "mine"),
        ({"apparmor": Profile(profile_type=Kind.Unconfined), "apparmor_profile": "localhost/mine"}, ""),
        ({"apparmor": Profile(profile_type=Kind.Localhost, localhost_ref="localhost/mine")}, "mine"),
        ({"privileged": True, "apparmor_profile": "localhost/mine"}, ""),
    ],
)
def test_which_apparmor_profile_the_kernel_must_know(fields: dict[str, Any], name: str) -> None:
    secure = cri.LinuxContainerSecurityContext(**fields)
    assert security.local_apparmor_profile(secure, "f") == name


def test_an_empty_list_of_masked_paths_unmasks() -> None:
    """Docker gets an empty list and not null; without a security context its defaults stay."""
    assert container_body(with_security())["HostConfig"]["MaskedPaths"] == []
    assert container_body(with_security(masked_paths=["/proc/kcore"]))["HostConfig"]["MaskedPaths"] == ["/proc/kcore"]
    assert "MaskedPaths" not in container_body(with_security(privileged=True))["HostConfig"]
    assert "MaskedPaths" not in container_body(container_config())["HostConfig"]


def test_users_and_groups() -> None:
    """By number or by name; a group alone is refused."""
    both = with_security(run_as_user=cri.Int64Value(value=0), run_as_group=cri.Int64Value(value=5))
    assert container_body(both)["User"] == "0:5"
    assert container_body(with_security(run_as_username="web", supplemental_groups=[7]))["HostConfig"]["GroupAdd"] == [
        "7"
    ]
    with pytest.raises(InvalidArgument, match="run_as_group"):
        container_body(with_security(run_as_group=cri.Int64Value(value=5)))


def test_all_capabilities_are_those_that_there_are() -> None:
    """ALL leaves out what the host cannot give; single ones are passed on."""
    host = HostSecurity(missing_capabilities=("SYS_RESOURCE",))
    everything = with_security(capabilities=cri.Capability(add_capabilities=["ALL"]))
    assert container_body(everything, host=host)["HostConfig"]["CapDrop"] == ["SYS_RESOURCE"]
    some = with_security(capabilities=cri.Capability(add_capabilities=["CAP_NET_ADMIN"], drop_capabilities=["all"]))
    assert container_body(some, host=host)["HostConfig"]["CapAdd"] == ["NET_ADMIN"]
    assert container_body(some, host=host)["HostConfig"]["CapDrop"] == ["ALL"]


def test_swap_is_off_unless_it_is_asked_for() -> None:
    """Memory and swap together are the limit."""
    config = container_config()
    config.linux.resources.memory_limit_in_bytes = 100
    assert container_body(config)["HostConfig"]["MemorySwap"] == 100
    config.linux.resources.memory_swap_limit_in_bytes = 150
    assert container_body(config)["HostConfig"]["MemorySwap"] == 150


def test_of_cdi_devices_an_old_engine_is_told_what_it_understands() -> None:
    """Variables and groups, so that added processes have them too; only the rest needs the program."""
    edits: dict[str, Any] = {"env": ["A=b"], "additionalGids": [7]}
    config = with_security(supplemental_groups=[5])
    config.envs.add(key="X", value=b"y")
    body = container_body(config, cdi_edits=edits)
    assert (body["Env"], body["HostConfig"]["GroupAdd"]) == (["X=y", "A=b"], ["5", "7"])
    with pytest.raises(InvalidArgument, match=r"^config.CDI_devices: needs dockershim-oci"):
        container_body(config, cdi_edits={**edits, "hooks": [{"hookName": "prestart", "path": "/h"}]})


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (with_security(supplemental_groups_policy=cri.SupplementalGroupsPolicy.Strict), "supplemental_groups_policy"),
        (with_security(namespace_options=cri.NamespaceOption(network=cri.NamespaceMode.NODE)), "options.network"),
        (with_security(namespace_options=cri.NamespaceOption(ipc=cri.NamespaceMode.NODE)), "options.ipc"),
        (with_security(namespace_options=cri.NamespaceOption(ipc=cri.NamespaceMode.CONTAINER)), "options.ipc"),
        (with_security(namespace_options=cri.NamespaceOption(target_id="x")), "target_id"),
        (with_security(seccomp_profile_path="unconfined"), "seccomp_profile_path"),
        (with_security(run_as_user=cri.Int64Value(value=1), run_as_username="web"), "run_as_username"),
        (with_security(capabilities=cri.Capability(add_ambient_capabilities=["KILL"])), "add_ambient_capabilities"),
        (with_security(apparmor_profile="mine"), "apparmor_profile"),
        (with_security(apparmor=Profile(profile_type=Kind.Localhost, localhost_ref="x")), "AppArmor"),
        (cri.ContainerConfig(), "metadata.name"),
        (cri.ContainerConfig(metadata=cri.ContainerMetadata(name="a_b")), "metadata.name"),
        (cri.ContainerConfig(mounts=[cri.Mount(container_path="/a", host_path="b")]), "host_path"),
        (
            cri.ContainerConfig(mounts=[cri.Mount(container_path="/a", host_path="/b", mount_options=["x"])]),
            "mount_options",
        ),
        (cri.ContainerConfig(devices=[cri.Device(host_path="/dev/x", permissions="q")]), "permissions"),
        (cri.ContainerConfig(envs=[cri.KeyValue(key="A", value=b"\xff")]), "envs"),
        (
            cri.ContainerConfig(
                linux=cri.LinuxContainerConfig(resources=cri.LinuxContainerResources(unified={"memory.high": "1"}))
            ),
            "unified",
        ),
    ],
)
def test_what_docker_cannot_do_is_named(config: cri.ContainerConfig, field: str) -> None:
    """Refused with the field, never dropped."""
    whole = container_config() if config.metadata.name == "" and field != "metadata.name" else cri.ContainerConfig()
    whole.MergeFrom(config)
    with pytest.raises(InvalidArgument, match=field):
        container_body(whole)


def test_relabeling_goes_through_binds_where_there_is_selinux() -> None:
    """Docker's Mounts cannot say it; without SELinux there is nothing to relabel."""
    config = container_config()
    config.mounts.add(container_path="/a", host_path="/b", selinux_relabel=True, readonly=True)
    config.mounts.add(container_path="/c", host_path="/d")
    host_config = container_body(config)["HostConfig"]
    assert ([mount["Target"] for mount in host_config["Mounts"]], host_config["Binds"]) == (["/a", "/c"], [])
    host_config = container_body(config, host=HostSecurity(selinux=True))["HostConfig"]
    assert ([mount["Target"] for mount in host_config["Mounts"]], host_config["Binds"]) == (["/c"], ["/b:/a:ro,Z"])
    config.mounts[0].host_path = "/with:colon"
    with pytest.raises(InvalidArgument, match="selinux_relabel"):
        container_body(config, host=HostSecurity(selinux=True))


def test_limits_that_docker_has_no_word_for_are_written_after_the_start() -> None:
    """Kept in a label, so that a restart between create and start loses nothing."""
    config = container_config()
    config.linux.resources.unified["memory.high"] = "1000"
    config.linux.resources.hugepage_limits.add(page_size="2MB", limit=0)
    labels = container_body(config, cgroup_version="2")["Labels"]
    assert labels["io.kubernetes.dockershim.after-start"] == '{"hugetlb.2MB.max": "0", "memory.high": "1000"}'


def test_a_container_has_every_label_of_ours() -> None:
    """Docker takes from the image what a request leaves out, and an image may say anything."""
    labels = container_body(container_config())["Labels"]
    assert labels.keys() >= names._OWN_LABELS
    assert labels[names.AFTER_START_LABEL] == labels[names.IMAGE_VOLUMES_LABEL] == ""


@pytest.mark.parametrize("key", ["../x", "memory", "memory.high\n", "cgroup.procs", "cgroup.threads"])
def test_unified_keys_are_files_that_limit_the_container(key: str) -> None:
    """And bring nobody else into its cgroup."""
    config = container_config()
    config.linux.resources.unified[key] = "1"
    with pytest.raises(InvalidArgument, match="is no cgroup file that limits anything"):
        container_body(config, cgroup_version="2")


@pytest.mark.parametrize(
    ("directory", "relative", "fine"),
    [
        ("/var/log/pods/x", "c/0.log", True),
        ("", "c/0.log", True),
        ("/var/log/pods/x", "../y", False),
        ("/var/log/pods/x", "/etc/passwd", False),
        ("relative", "c/0.log", False),
        ("/var/../etc", "c", False),
    ],
)
def test_logs_stay_in_the_pods_directory(directory: str, relative: str, fine: bool) -> None:
    """No way out of it."""
    sandbox = cri.PodSandboxConfig(log_directory=directory)
    config = cri.ContainerConfig(log_path=relative)
    if fine:
        assert log_path(config, sandbox) == (f"{directory}/{relative}" if directory else "")
    else:
        with pytest.raises(InvalidArgument):
            log_path(config, sandbox)
