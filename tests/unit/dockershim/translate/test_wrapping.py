"""Which containers need dockershim-oci, what it is told, and what is refused where it is missing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.errors import InvalidArgument
from dockershim.oci import instructions as words
from dockershim.translate.container_spec import ContainerContext, to_docker_container
from dockershim.translate.mounts import to_cri_mounts
from dockershim.translate.sandbox_spec import SandboxContext, to_docker_sandbox
from dockershim.translate.security import HostSecurity
from dockershim.translate.users import container_user
from dockershim.translate.wrapping import Wrapping, instruction_of, log_spool_of, wrapped_runtimes
from tests.fakes.docker_node import container_config, sandbox_config

Mode = cri.NamespaceMode
PATH = {"path": f"/opt/bin/{words.PROGRAM}"}
WRAPPING = Wrapping({"": "dockershim", "runc": "dockershim", "crun": "dockershim-crun"})
IDS = [cri.IDMapping(host_id=200000, container_id=0, length=65536)]
MAP = [[0, 200000, 65536]]
USERNS = cri.NamespaceOption(userns_options=cri.UserNamespace(mode=Mode.POD, uids=IDS, gids=IDS))
STRICT = cri.SupplementalGroupsPolicy.Strict


def sandbox(wrapping: Wrapping = WRAPPING, handler: str = "", **secure: Any) -> dict[str, Any]:
    config = sandbox_config()
    config.linux.security_context.MergeFrom(cri.LinuxSandboxSecurityContext(**secure))
    context = SandboxContext("sha256:1", "", publishes_ports=False, runtimes=("runc", "crun"), wrapping=wrapping)
    found: dict[str, Any] = to_docker_sandbox(config, handler, context)["HostConfig"]
    return found


def container(
    mounts: list[cri.Mount] | None = None, context: dict[str, Any] | None = None, **secure: Any
) -> dict[str, Any]:
    config = container_config()
    config.mounts.extend(mounts or ())
    config.linux.security_context.MergeFrom(cri.LinuxContainerSecurityContext(**secure))
    base: dict[str, Any] = {
        "sandbox_id": "s1",
        "sandbox_metadata": sandbox_config().metadata,
        "image_id": "sha256:2",
        "api_version": (1, 41),
        "wrapping": WRAPPING,
    }
    full = ContainerContext(**(base | (context or {})))
    found: dict[str, Any] = to_docker_container(config, sandbox_config(), full)["HostConfig"]
    return found


def told(host_config: dict[str, Any]) -> dict[str, Any]:
    """The instruction but for its version, and the runtime that gets it."""
    said = instruction_of(host_config)
    assert said.pop(words.VERSION) == words.CURRENT_VERSION
    return {**said, "runtime": host_config["Runtime"]}


# ---- which runtimes have it in front


def test_by_name_in_front_of_the_default_and_of_a_handler() -> None:
    runtimes = {"runc": {"path": "runc"}, "crun": {"path": "crun"}, "dockershim": PATH, "dockershim-crun": PATH}
    found = wrapped_runtimes(runtimes, "runc")
    assert {handler: found[handler] for handler in ("", "runc", "crun")} == WRAPPING.runtimes
    assert wrapped_runtimes({"runc": {"path": "runc"}, "kata": {"runtimeType": "io.containerd.kata.v2"}}, "runc") == {}


def test_a_handler_that_is_the_program_itself() -> None:
    """Also as Docker's default."""
    assert wrapped_runtimes({"special": PATH, "runc": {"path": "runc"}}, "special") == {
        "": "special",
        "special": "special",
    }


def test_the_name_alone_is_not_enough() -> None:
    """A runtime of that name with another program behind it carries nothing."""
    assert wrapped_runtimes({"runc": {"path": "runc"}, "dockershim": {"path": "/usr/bin/runc"}}, "runc") == {}


def test_containers_go_back_to_the_runtime_behind() -> None:
    """A pod that needed it says nothing about its containers."""
    assert [WRAPPING.bare(name) for name in ("dockershim", "dockershim-crun", "runc", "kata")] == [
        "",
        "crun",
        "runc",
        "kata",
    ]
    assert Wrapping({"": "special", "special": "special"}).bare("special") == ""


# ---- who needs it


def test_most_need_nothing() -> None:
    """Neither an instruction nor another runtime."""
    for host_config in (sandbox(), container()):
        assert "Runtime" not in host_config
        assert words.KEY not in host_config.get("Sysctls", {})
    one = cri.Int64Value(value=1)
    with_group: dict[str, Any] = {"supplemental_groups_policy": STRICT, "run_as_user": one, "run_as_group": one}
    assert "Runtime" not in container(**with_group)


def test_strict_groups() -> None:
    assert told(container(supplemental_groups_policy=STRICT, supplemental_groups=[7])) == {
        words.STRICT_GROUPS: [7],
        "runtime": "dockershim",
    }
    assert told(sandbox(handler="crun", supplemental_groups_policy=STRICT))["runtime"] == "dockershim-crun"
    with pytest.raises(InvalidArgument, match="supplemental_groups_policy: 5: want Merge or Strict"):
        container(supplemental_groups_policy=5)


def test_recursive_read_only_on_engines_that_do_not_know_it() -> None:
    mount = cri.Mount(container_path="//a/./b/", host_path="/b", readonly=True, recursive_read_only=True)
    assert told(container([mount]))[words.RECURSIVE_READ_ONLY] == ["/a/b"]  # as Docker cleans it
    assert "Runtime" not in container([mount], {"api_version": (1, 44)})


def test_privileged_where_the_host_lacks_capabilities() -> None:
    """On old engines, pause included; and no more than that where nothing can be done about it."""
    lacking = HostSecurity(missing_capabilities=("SYS_RESOURCE",))
    assert told(container(context={"host": lacking}, privileged=True))[words.POSSIBLE_CAPABILITIES] is True
    assert "Runtime" not in container(privileged=True)
    config = sandbox_config()
    config.linux.security_context.privileged = True
    context = SandboxContext("sha256:1", "", publishes_ports=False, host=lacking, wrapping=WRAPPING)
    assert told(to_docker_sandbox(config, "", context)["HostConfig"])[words.POSSIBLE_CAPABILITIES] is True
    assert "Runtime" not in container(context={"host": lacking, "wrapping": Wrapping()}, privileged=True)


def test_ambient_capabilities() -> None:
    wanted = cri.Capability(add_ambient_capabilities=["cap_kill", "CHOWN"])
    assert told(container(capabilities=wanted))[words.AMBIENT_CAPABILITIES] == ["CAP_KILL", "CAP_CHOWN"]


def test_sysctls_of_the_pod_stay_beside_it() -> None:
    config = sandbox_config()
    config.linux.sysctls["net.a"] = "1"
    config.linux.security_context.supplemental_groups_policy = STRICT
    context = SandboxContext("sha256:1", "", publishes_ports=False, wrapping=WRAPPING)
    assert set(to_docker_sandbox(config, "", context)["HostConfig"]["Sysctls"]) == {"net.a", words.KEY}
    config.linux.sysctls[words.KEY] = "{}"
    with pytest.raises(InvalidArgument, match="no sysctl of the kernel"):
        to_docker_sandbox(config, "", context)


# ---- user namespaces


def test_a_sandbox_gets_a_new_namespace_and_its_containers_join_it() -> None:
    """Mounts have the pod's ids where they say so."""
    assert told(sandbox(namespace_options=USERNS))[words.USER_NAMESPACE] == {
        words.UIDS: MAP,
        words.GIDS: MAP,
        words.JOINS: False,
        words.UNMAPPED_MOUNTS: [],
    }
    mounts = [
        cri.Mount(container_path="/mapped", host_path="/b", uidMappings=IDS, gidMappings=IDS),
        cri.Mount(container_path="/plain", host_path="/c"),
    ]
    for options in (USERNS, cri.NamespaceOption()):  # a container may leave it to its sandbox
        host_config = container(mounts, {"sandbox_namespaces": USERNS}, namespace_options=options)
        assert told(host_config)[words.USER_NAMESPACE] == {
            words.UIDS: MAP,
            words.GIDS: MAP,
            words.JOINS: True,
            words.UNMAPPED_MOUNTS: ["/plain"],
        }


def userns(mode: cri.NamespaceMode = Mode.POD, uids: Any = IDS, gids: Any = IDS, **others: Any) -> cri.NamespaceOption:
    return cri.NamespaceOption(userns_options=cri.UserNamespace(mode=mode, uids=uids, gids=gids), **others)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (userns(Mode.CONTAINER), "mode 1: want POD or NODE"),
        (userns(Mode.TARGET), "mode 3"),
        (userns(Mode.NODE), "takes no mappings"),
        (userns(uids=[]), "uids: has 0 mappings"),
        (userns(gids=[*IDS, *IDS]), "gids: has 2 mappings"),
        (userns(uids=[cri.IDMapping(host_id=1, container_id=1, length=5)]), "from 1 on"),
        (userns(uids=[cri.IDMapping(host_id=1, container_id=0, length=0)]), "maps 0 ids"),
        (userns(network=Mode.NODE), "together with network NODE"),
        (userns(ipc=Mode.NODE), "together with ipc NODE"),
        (userns(pid=Mode.NODE), "together with pid NODE"),
    ],
)
def test_namespaces_that_cannot_be(options: cri.NamespaceOption, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        sandbox(namespace_options=options)


def test_a_container_cannot_differ_from_its_sandbox() -> None:
    with pytest.raises(InvalidArgument, match="differs from that of the sandbox"):
        container(namespace_options=USERNS)
    with pytest.raises(InvalidArgument, match="differs from that of the sandbox"):
        container(context={"sandbox_namespaces": USERNS}, namespace_options=userns(Mode.NODE, [], []))
    mount = cri.Mount(container_path="/a", host_path="/b", uidMappings=IDS, gidMappings=IDS)
    with pytest.raises(InvalidArgument, match="uidMappings: differ from those of the pod"):
        container([mount])


def test_a_host_that_cannot_says_why() -> None:
    with pytest.raises(InvalidArgument, match="is older than"):
        sandbox(Wrapping(WRAPPING.runtimes, "kernel 4.4 is older than 5.19"), namespace_options=USERNS)


# ---- output


def test_output_is_spooled_where_it_can_be() -> None:
    """Not that of a container that wants no log, and not without the program. A terminal's takes another way."""
    spooled = {"log_spool": "/spool"}

    def made(context: dict[str, Any] = spooled, **fields: Any) -> dict[str, Any]:
        config = cri.ContainerConfig(**{"log_path": "0.log", **fields})
        config.metadata.name = "main"
        context = {"wrapping": WRAPPING, "docker_runtime": "", **context}
        about = ContainerContext("s", cri.PodSandboxMetadata(), "i", (1, 41), **context)
        host_config: dict[str, Any] = to_docker_container(config, cri.PodSandboxConfig(), about)["HostConfig"]
        return host_config

    def spool(context: dict[str, Any] = spooled, **fields: Any) -> str:
        return log_spool_of(made(context, **fields))

    assert spool() == spool(tty=True) == "/spool"
    assert words.LOG_SPOOL in instruction_of(made())
    assert words.LOG_SPOOL not in instruction_of(made(tty=True))
    assert spool({}) == spool({}, tty=True) == ""
    assert spool(log_path="") == ""
    assert spool({**spooled, "wrapping": Wrapping()}) == ""
    assert spool({**spooled, "docker_runtime": "kata"}) == ""


# ---- without it


@pytest.mark.parametrize(
    ("secure", "field"),
    [
        ({"supplemental_groups_policy": STRICT}, "supplemental_groups_policy"),
        ({"capabilities": cri.Capability(add_ambient_capabilities=["KILL"])}, "add_ambient_capabilities"),
    ],
)
def test_the_refusal_names_the_field_and_the_missing_runtime(secure: dict[str, Any], field: str) -> None:
    for runtime, missing in (("", "'dockershim'"), ("kata", "'dockershim-kata'")):
        with pytest.raises(InvalidArgument, match=f"{field}: needs dockershim-oci.*{missing}"):
            container(context={"wrapping": Wrapping(), "docker_runtime": runtime}, **secure)


# ---- reading it back


def test_status_shows_what_was_asked_for() -> None:
    """Ids and read-only of mounts, and whose groups count, from what Docker keeps of the container."""
    mounts = [
        cri.Mount(container_path="/a", host_path="/b", readonly=True, recursive_read_only=True),
        cri.Mount(container_path="/c", host_path="/d", uidMappings=IDS, gidMappings=IDS),
    ]
    host_config = container(mounts, {"sandbox_namespaces": USERNS}, supplemental_groups_policy=STRICT)
    listed = [
        {"Type": "bind", "Source": mount.host_path, "Destination": mount.container_path, "RW": not mount.readonly}
        for mount in mounts
    ]
    assert to_cri_mounts(listed, host_config) == mounts
    assert container_user({"Config": {"User": ""}, "HostConfig": host_config}).strict


@pytest.mark.parametrize("text", ["{", "[]", json.dumps("x")])
def test_what_somebody_else_wrote_is_no_instruction(text: str) -> None:
    assert instruction_of({"Sysctls": {words.KEY: text}}) == {}
