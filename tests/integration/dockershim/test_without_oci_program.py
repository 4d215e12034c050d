"""A Docker that dockershim-oci is not registered with: what needs it is refused by name, and Status says so."""

from __future__ import annotations

import json
from collections.abc import Iterator

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import Shim, code_of
from tests.lab.engines.docker import VERSIONS
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

IDS = [cri.IDMapping(host_id=200000, container_id=0, length=65536)]


@pytest.fixture(scope="module", params=VERSIONS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab.start(docker=request.param, docker_settings={"runtimes": {}}) as started:
        yield started


def test_status_promises_nothing_of_it(shim: Shim) -> None:
    """Recursive read-only mounts are the engine's own from 25 on."""
    status = shim.runtime.Status(cri.StatusRequest())
    assert not status.features.supplemental_groups_policy
    own = shim.lab.docker.version != "20.10"
    assert {handler.features.recursive_read_only_mounts for handler in status.runtime_handlers} == {own}
    assert {handler.features.user_namespaces for handler in status.runtime_handlers} == {False}


def test_containers_are_refused_by_the_fields_name(shim: Shim) -> None:
    """No field is dropped in silence."""
    sandbox = shim.run_sandbox()
    strict = cri.LinuxContainerSecurityContext(supplemental_groups_policy=cri.SupplementalGroupsPolicy.Strict)
    ambient = cri.LinuxContainerSecurityContext(capabilities=cri.Capability(add_ambient_capabilities=["CHOWN"]))
    for secure, field in (
        (strict, "config.linux.security_context.supplemental_groups_policy"),
        (ambient, "config.linux.security_context.capabilities.add_ambient_capabilities"),
    ):
        linux = cri.LinuxContainerConfig(security_context=secure)
        code, message = code_of(lambda linux=linux: shim.create(sandbox, "true", linux=linux))  # type: ignore[misc]  # mypy#15459
        assert (code, message.split(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
        assert "dockershim-oci" in message
    if shim.lab.docker.version == "20.10":
        edits = {"deviceNodes": [{"path": "/dev/null"}]}
        content = {"kind": "example.com/thing", "devices": [{"name": "one", "containerEdits": edits}]}
        shim.lab.run(["sh", "-c", "mkdir -p /etc/cdi && cat > /etc/cdi/thing.json"], text_input=json.dumps(content))
        devices = [cri.CDIDevice(name="example.com/thing=one")]
        code, message = code_of(lambda: shim.create(sandbox, "true", CDI_devices=devices))
        assert (code, message.split(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "config.CDI_devices")
        assert "dockershim-oci" in message
    mount = cri.Mount(container_path="/m", host_path="/tmp", readonly=True, recursive_read_only=True)
    code, message = code_of(lambda: shim.create(sandbox, "true", mounts=[mount]))
    if shim.lab.docker.version == "20.10":
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert message.startswith("RROUnsupported")
    else:
        assert code is grpc.StatusCode.OK


def test_sandboxes_are_refused_by_the_fields_name(shim: Shim) -> None:
    """And leave nothing behind."""
    options = cri.NamespaceOption(userns_options=cri.UserNamespace(mode=cri.NamespaceMode.POD, uids=IDS, gids=IDS))
    userns = cri.LinuxSandboxSecurityContext(namespace_options=options)
    strict = cri.LinuxSandboxSecurityContext(supplemental_groups_policy=cri.SupplementalGroupsPolicy.Strict)
    for secure, field in (
        (userns, "config.linux.security_context.namespace_options.userns_options"),
        (strict, "config.linux.security_context.supplemental_groups_policy"),
    ):
        config = shim.sandbox_config(linux=cri.LinuxPodSandboxConfig(security_context=secure))
        code, message = code_of(lambda config=config: shim.run_sandbox(config))  # type: ignore[misc]  # as above
        assert (code, message.split(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
        assert "dockershim-oci" in message
    assert shim.docker_ids() == []
