"""No field of any request is ignored in silence: it changes what is done, or is refused, or stands here with a reason.

The fields come from the contract itself, so a field that a newer CRI adds fails this test until somebody decides.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from cri_proto import runtime_v1 as cri
from cri_proto.runtime_v1 import api_pb2
from dockershim.errors import InvalidArgument
from dockershim.lifecycle import network_request
from dockershim.translate.container_spec import ContainerContext, to_docker_container
from dockershim.translate.etc_files import render_resolv_conf
from dockershim.translate.image_volumes import wanted_volumes
from dockershim.translate.resources import cgroup_writes, to_docker_update
from dockershim.translate.sandbox_spec import SandboxContext, to_docker_sandbox
from dockershim.translate.security import HostSecurity
from dockershim.translate.views import SandboxRecord

WINDOWS = "windows"  # refused as a whole
HOST = HostSecurity(apparmor=True, seccomp_profile="{}", selinux=True)

# What each of these means, and why it changes nothing that Docker is told.
RUN_WITHOUT_EFFECT = {
    "metadata.attempt": "part of the name, which is no part of the body",
    "log_directory": "CreateContainer brings it again, with the log's own path",
    "linux.overhead": "for plugins of the runtime to look at; the kubelet sets the pod's cgroup",
    "linux.resources": "for plugins of the runtime to look at; the kubelet sets the pod's cgroup",
    "linux.security_context.seccomp_profile_path": "`seccomp` beside it counts; alone it is refused",
    "linux.security_context.apparmor.localhost_ref": "counts for Localhost only, see test_specs",
    "linux.security_context.seccomp.localhost_ref": "read by host.read_seccomp_profile, see test_host",
}
CREATE_WITHOUT_EFFECT = {
    "image.annotations": "for plugins of the runtime to look at; the kubelet sends the pod's own",
    "image.runtime_handler": "Docker has one store of images for all runtimes",
    "image.image_ref": "says again, as a reference, what `image` says",
    "log_path": "counts together with the sandbox's log_directory, see test_logs_stay_in_the_pods_directory",
    "linux.security_context.seccomp_profile_path": "`seccomp` beside it counts; alone it is refused",
    "linux.security_context.apparmor_profile": "`apparmor` beside it counts; alone it is read, see test_specs",
    "linux.security_context.apparmor.localhost_ref": "counts for Localhost only, see test_specs",
    "linux.security_context.seccomp.localhost_ref": "read by host.read_seccomp_profile, see test_host",
    "metadata.name": "part of the name, which is no part of the body",
    "metadata.attempt": "part of the name, which is no part of the body",
}
IMAGE_VOLUME_WITHOUT_EFFECT = {
    "mounts.selinux_relabel": "Docker labels what it mounts for a container by itself",
    "mounts.recursive_read_only": "nothing is mounted below an image, so read-only is all of it",
    **{f"mounts.{field}": reason for field, reason in CREATE_WITHOUT_EFFECT.items() if field.startswith("image.")},
}
OTHER_VALUES: dict[str, Any] = {
    "permissions": "rm",
    "host_path": "/other",
    "container_path": "/other",
    "working_dir": "/other",
    "container_port": 81,
    "cgroup_parent": "/other",
    "page_size": "1GB",
    "log_directory": "/var/log/other",
}


def full_sandbox() -> cri.PodSandboxConfig:
    """Every part is there, so that each field can change."""
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name="web", namespace="default", uid="u"),
        hostname="web",
        log_directory="/var/log/pods/x",
        dns_config=cri.DNSConfig(servers=["1.1.1.1"]),
        port_mappings=[cri.PortMapping(container_port=80, host_port=8080)],
    )
    secure = config.linux.security_context
    secure.namespace_options.SetInParent()
    secure.run_as_user.value = secure.run_as_group.value = 1
    for part in ("selinux_options", "seccomp", "apparmor"):
        getattr(secure, part).SetInParent()
    return config


def full_container() -> cri.ContainerConfig:
    """The same for a container."""
    config = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="main"),
        image=cri.ImageSpec(image="sha256:1"),
        mounts=[cri.Mount(container_path="/a", host_path="/b", readonly=True)],
        devices=[cri.Device(container_path="/dev/a", host_path="/dev/b", permissions="rwm")],
        CDI_devices=[cri.CDIDevice(name="v/c=d")],
        envs=[cri.KeyValue(key="A", value=b"b")],
    )
    config.linux.resources.memory_limit_in_bytes = 1 << 20
    config.linux.resources.hugepage_limits.add(page_size="2MB", limit=2)
    secure = config.linux.security_context
    secure.run_as_user.value = secure.run_as_group.value = 1
    for part in ("capabilities", "namespace_options", "selinux_options", "seccomp", "apparmor"):
        getattr(secure, part).SetInParent()
    return config


def run_outcome(config: cri.PodSandboxConfig) -> Any:
    """Docker's body, the pod's resolv.conf, and what the network is told."""
    body = to_docker_sandbox(config, "", SandboxContext("sha256:1", "net", publishes_ports=True, host=HOST))
    return body, render_resolv_conf(config.dns_config), network_request(SandboxRecord("s", config), 1)


def with_image_volume() -> cri.ContainerConfig:
    """The same with an image for a volume."""
    config = full_container()
    del config.mounts[:]
    config.mounts.add(container_path="/a", readonly=True, image=cri.ImageSpec(image="sha256:2"))
    return config


def create_outcome(config: cri.ContainerConfig) -> Any:
    """Docker's body, with the labels that carry the rest."""
    metadata = cri.PodSandboxMetadata(name="web", namespace="default", uid="u")
    volumes = wanted_volumes(config.mounts, lambda reference: reference)
    context = ContainerContext("s", metadata, "sha256:1", (1, 48), cgroup_version="2", host=HOST, image_volumes=volumes)
    return to_docker_container(config, cri.PodSandboxConfig(), context)


def update_outcome(resources: cri.LinuxContainerResources) -> Any:
    """Docker's update, the cgroup files and the score that is written by ourselves."""
    writes = cgroup_writes(resources, cgroup_version="2", field="linux")
    return to_docker_update(resources, "linux"), writes, resources.oom_score_adj


def outcome_of(decide: Callable[[Any], Any], request: Any) -> Any:
    """What comes of a request, or the refusal."""
    try:
        return decide(request)
    except InvalidArgument as refusal:
        return str(refusal)


def leaves(message: Any, path: str = "") -> Iterator[tuple[str, Any, FieldDescriptor]]:
    """Every field below a message that holds a value: its path, its owner, itself. Lists are entered at their first."""
    for field in message.DESCRIPTOR.fields:
        name = f"{path}{field.name}"
        kind = field.message_type
        if name == WINDOWS or kind is None or kind.GetOptions().map_entry:
            yield name, message, field
            continue
        value = getattr(message, field.name)
        if not field.is_repeated:
            yield from leaves(value, f"{name}.") if message.HasField(field.name) else [(name, message, field)]
        elif len(value):
            yield from leaves(value[0], f"{name}.")
        else:
            yield name, message, field


def change(owner: Any, field: FieldDescriptor) -> None:
    """Another value than the one that is there."""
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        getattr(owner, field.name)["memory.high" if field.name == "unified" else "some.key"] = "5"
    elif kind is not None:
        target = getattr(owner, field.name)
        filled = target.add() if field.is_repeated else target
        filled.SetInParent()
        if not field.is_repeated:
            for inner in kind.fields:
                change(filled, inner)
    elif field.is_repeated:
        texts = field.type == FieldDescriptor.TYPE_STRING
        getattr(owner, field.name).append("KILL" if texts else 7)
    elif field.type == FieldDescriptor.TYPE_STRING:
        setattr(owner, field.name, OTHER_VALUES.get(field.name, getattr(owner, field.name) + "x"))
    elif field.type == FieldDescriptor.TYPE_BYTES:
        setattr(owner, field.name, b"other")
    elif field.type == FieldDescriptor.TYPE_BOOL:
        setattr(owner, field.name, not getattr(owner, field.name))
    elif field.enum_type is not None:
        setattr(owner, field.name, 2)
    else:
        setattr(owner, field.name, OTHER_VALUES.get(field.name, getattr(owner, field.name) + 1))


@pytest.mark.parametrize(
    ("base", "decide", "explained"),
    [
        (full_sandbox(), run_outcome, RUN_WITHOUT_EFFECT),
        (full_container(), create_outcome, CREATE_WITHOUT_EFFECT),
        (with_image_volume(), create_outcome, {**CREATE_WITHOUT_EFFECT, **IMAGE_VOLUME_WITHOUT_EFFECT}),
        (cri.LinuxContainerResources(), update_outcome, {}),
    ],
    ids=["RunPodSandbox", "CreateContainer", "CreateContainer with an image volume", "UpdateContainerResources"],
)
def test_every_field_counts_is_refused_or_is_explained(
    base: Any, decide: Callable[[Any], Any], explained: dict[str, str]
) -> None:
    """Change one field at a time and look whether anything changes; the list of exceptions is exact."""
    before = outcome_of(decide, base)
    assert not isinstance(before, str), before
    silent = set()
    for index, (path, _, _) in enumerate(leaves(base)):
        changed = copy.deepcopy(base)
        _, owner, field = list(leaves(changed))[index]
        change(owner, field)
        if outcome_of(decide, changed) == before:
            silent.add(path)
    assert silent == set(explained)


# Of the other calls: where each field of the request counts.
ELSEWHERE = {
    "RunPodSandboxRequest": {"config": "above", "runtime_handler": "Docker's runtime; unknown ones are refused"},
    "CreateContainerRequest": {
        "pod_sandbox_id": "must be a ready sandbox",
        "config": "above",
        "sandbox_config": "log_directory, cgroup_parent, annotations; the rest is what RunPodSandbox was given",
    },
    "UpdateContainerResourcesRequest": {
        "container_id": "must exist and not have ended",
        "linux": "above",
        "windows": "refused",
        "annotations": "refused",
    },
    "VersionRequest": {"version": "the caller's own version; there is one CRI v1 to answer with"},
    "StatusRequest": {"verbose": "adds info"},
    "RuntimeConfigRequest": {},
    "UpdateRuntimeConfigRequest": {"runtime_config": "the pod CIDR goes to the network"},
    "StopPodSandboxRequest": {"pod_sandbox_id": "which; unknown is done"},
    "RemovePodSandboxRequest": {"pod_sandbox_id": "which; unknown is done"},
    "UpdatePodSandboxResourcesRequest": {
        "pod_sandbox_id": "must be a ready sandbox",
        "overhead": "becomes part of the sandbox's configuration",
        "resources": "becomes part of the sandbox's configuration",
    },
    "PodSandboxStatusRequest": {"pod_sandbox_id": "which", "verbose": "adds info"},
    "ListPodSandboxRequest": {"filter": "id, state, label_selector"},
    "StreamPodSandboxesRequest": {"filter": "id, state, label_selector"},
    "StartContainerRequest": {"container_id": "which"},
    "StopContainerRequest": {"container_id": "which; unknown is done", "timeout": "a negative one counts as none"},
    "RemoveContainerRequest": {"container_id": "which; unknown is done"},
    "ContainerStatusRequest": {"container_id": "which", "verbose": "adds info"},
    "ListContainersRequest": {"filter": "id, state, pod_sandbox_id, label_selector"},
    "StreamContainersRequest": {"filter": "id, state, pod_sandbox_id, label_selector"},
    "ReopenContainerLogRequest": {"container_id": "which; it must run"},
    "ExecSyncRequest": {"container_id": "which", "cmd": "what", "timeout": "kills; negative is refused"},
    "CheckpointContainerRequest": {
        "container_id": "which; it must run",
        "location": "the archive",
        "timeout": "ends it; negative is refused",
    },
    "CheckpointPodRequest": {
        "pod_sandbox_id": "which; it must be ready",
        "output_path": "a new or empty directory",
        "container_ids": "which of its containers; others are refused",
        "options": "refused: there are none",
    },
    "RestorePodRequest": {
        "checkpoint_path": "a directory of CheckpointPod",
        "config": "the sandbox; else that of the checkpoint",
        "runtime_handler": "as in RunPodSandbox",
        "options": "refused: there are none",
        "container_configs": "by name; one for each container of the checkpoint",
    },
    "GetEventsRequest": {},
    "ContainerStatsRequest": {"container_id": "which"},
    "ListContainerStatsRequest": {"filter": "all fields"},
    "StreamContainerStatsRequest": {"filter": "all fields"},
    "PodSandboxStatsRequest": {"pod_sandbox_id": "which; it must be ready"},
    "ListPodSandboxStatsRequest": {"filter": "all fields"},
    "StreamPodSandboxStatsRequest": {"filter": "all fields"},
    "ListMetricDescriptorsRequest": {},
    "ListPodSandboxMetricsRequest": {},
    "StreamPodSandboxMetricsRequest": {},
    "ListImagesRequest": {"filter": "image.image; the rest of an ImageSpec selects nothing"},
    "StreamImagesRequest": {"filter": "image.image; the rest of an ImageSpec selects nothing"},
    "ImageStatusRequest": {"image": "image.image, as above", "verbose": "adds info"},
    "PullImageRequest": {
        "image": "image.image; annotations are for plugins; Docker has one store for all runtime handlers",
        "auth": "all fields",
        "sandbox_config": "for plugins of the runtime to look at",
    },
    "RemoveImageRequest": {"image": "image.image, as above"},
    "ImageFsInfoRequest": {},
}
FILTERS = {
    "PodSandboxFilter": {"id", "state", "label_selector"},
    "ContainerFilter": {"id", "state", "pod_sandbox_id", "label_selector"},
    "ImageFilter": {"image"},
    "ContainerStatsFilter": {"id", "pod_sandbox_id", "label_selector"},
    "PodSandboxStatsFilter": {"id", "label_selector"},
    "AuthConfig": {"username", "password", "auth", "server_address", "identity_token", "registry_token"},
    "RuntimeConfig": {"network_config"},
    "NetworkConfig": {"pod_cidr"},
}
# Calls of the streaming server decide about their fields in their own tests.
STREAMING = {"ExecRequest", "AttachRequest", "PortForwardRequest"}


def test_every_request_that_is_answered_stands_in_the_table() -> None:
    """By name, field for field."""
    requests: dict[str, Descriptor] = {}
    for service in api_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            requests[method.input_type.name] = method.input_type
    found = {name: {field.name for field in kind.fields} for name, kind in requests.items() if name not in STREAMING}
    assert found == {name: set(fields) for name, fields in ELSEWHERE.items()}
    messages = api_pb2.DESCRIPTOR.message_types_by_name
    assert {name: {field.name for field in messages[name].fields} for name in FILTERS} == FILTERS


def test_swap_without_a_limit_and_negative_limits_are_refused() -> None:
    """Docker has no way to say them."""
    for resources, field in (
        (cri.LinuxContainerResources(memory_swap_limit_in_bytes=5), "linux.memory_swap_limit_in_bytes"),
        (cri.LinuxContainerResources(memory_limit_in_bytes=-1), "linux.memory_limit_in_bytes"),
    ):
        with pytest.raises(InvalidArgument, match=field):
            update_outcome(resources)
