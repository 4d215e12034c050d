"""What dockershim shows of sandboxes and containers: CRI messages made once from what Docker says.

Owns the views that the store keeps. Pure: inspect answers, checkpoints and clock readings are arguments. Messages in a
view are shared with every answer and must not be changed; a change makes a new view. Upstream counterpart:
cri-dockerd's core/convert.go and *_status.go. Deliberate differences: times in nanoseconds everywhere, one image id in
every field, addresses from the stored network result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim.translate import etc_files, image_volumes, names
from dockershim.translate.image_refs import is_image_id
from dockershim.translate.image_views import layer_paths
from dockershim.translate.image_volumes import ImageVolume
from dockershim.translate.mounts import to_cri_mounts
from dockershim.translate.resources import to_cri_resources
from dockershim.translate.signals import to_cri_signal
from dockershim.translate.users import container_user
from dockershim.translate.wrapping import log_spool_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """What Docker does not keep of a sandbox; the checkpoint does."""

    id: str
    config: cri.PodSandboxConfig = field(compare=False)
    runtime_handler: str = ""
    created_at_ns: int = 0
    network_ready: bool = False
    network_torn_down: bool = False
    ips: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)
    foreign: bool = False  # written by cri-dockerd: names, ports and host network only

    @property
    def host_network(self) -> bool:
        """Whether the pod shares the node's network."""
        return bool(self.config.linux.security_context.namespace_options.network == cri.NamespaceMode.NODE)


@dataclass(frozen=True, slots=True)
class SandboxView:
    """A sandbox as the store knows it."""

    id: str
    name: str
    running: bool
    pid: int
    created_at_ns: int
    docker_runtime: str
    resolv_conf_path: str
    network_disabled: bool
    """Whether Docker makes no files in /etc for its containers."""
    writable_directory: str
    host_network: bool
    record: SandboxRecord | None
    observed_at_ns: int
    """On the monotonic clock."""
    item: cri.PodSandbox = field(compare=False)
    status: cri.PodSandboxStatus = field(compare=False)

    ghost: bool = False
    """Whether only its record is left: Docker has no such container, and may have given its name to another."""

    @property
    def ready(self) -> bool:
        """Whether containers may run in it."""
        return bool(self.item.state == cri.PodSandboxState.SANDBOX_READY)


@dataclass(frozen=True, slots=True)
class ContainerView:
    """A container as the store knows it."""

    id: str
    name: str
    sandbox_id: str
    pid: int
    docker_log_path: str
    log_path: str
    tty: bool
    stdin_once: bool
    after_start: str
    image_volumes: tuple[ImageVolume, ...]
    writable_directory: str
    observed_at_ns: int
    """On the monotonic clock."""
    item: cri.Container = field(compare=False)
    status: cri.ContainerStatus = field(compare=False)

    log_spool: str = ""
    """The directory of the spool that its output goes to first; empty when Docker is the first to have it."""
    unseen: bool = False
    """Whether it is what was asked for, or its state is what a list or a stop tells, and nobody has looked yet at what
    Docker made of it."""
    exec_user: str = ""
    """User and group of processes that are added, where Docker would give them more groups than the first one has."""

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return bool(self.status.state == cri.ContainerState.CONTAINER_RUNNING)


def parse_time_ns(text: str | None) -> int:
    """Docker's RFC 3339 with up to nine digits of fraction; 0 for its zero time."""
    if not text or text.startswith("0001-"):
        return 0
    base, rest = text[:19], text[19:]
    fraction = ""
    if rest.startswith("."):
        digits = len(rest) - len(rest[1:].lstrip("0123456789")) - 1
        fraction, rest = rest[1 : 1 + digits], rest[1 + digits :]
    moment = datetime.fromisoformat(base + ("+00:00" if rest in ("", "Z") else rest))
    elapsed = moment - _EPOCH
    return (elapsed.days * 86400 + elapsed.seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])


def kind_of(docker_names: Iterable[str], labels: Mapping[str, str]) -> str:
    """Sandbox, container, or something that is not ours (empty).

    A label is not enough: an image may say anything of what somebody runs or builds of it, a name is the runner's.
    """
    is_named_so = any(names.parse_name(name) is not None for name in docker_names)
    return labels.get(names.TYPE_LABEL, "") if is_named_so else ""


def sandbox_view(
    inspect: Mapping[str, Any], record: SandboxRecord | None, observed_at_ns: int, default_runtime: str = ""
) -> SandboxView:
    """The view of a pause container. `default_runtime` is Docker's, empty where that is not known."""
    config, host_config, state = inspect["Config"], inspect["HostConfig"], inspect["State"]
    labels, annotations = names.from_docker_labels(config.get("Labels") or {})
    names.strip_sandbox_marker(labels)
    name = str(inspect.get("Name", "")).removeprefix("/")
    running = bool(state.get("Running"))
    host_network = host_config.get("NetworkMode") == "host"
    network_disabled = bool(config.get("NetworkDisabled"))
    connected = host_network or record is None or record.network_ready or record.foreign
    ready = running and connected and not (record is not None and record.network_torn_down)
    namespaces = cri.NamespaceOption(
        network=cri.NamespaceMode.NODE if host_network else cri.NamespaceMode.POD,
        pid=cri.NamespaceMode.NODE if host_config.get("PidMode") == "host" else cri.NamespaceMode.CONTAINER,
        ipc=cri.NamespaceMode.NODE if host_config.get("IpcMode") == "host" else cri.NamespaceMode.POD,
    )
    if record is not None and not record.foreign:
        namespaces.CopyFrom(record.config.linux.security_context.namespace_options)
    created = parse_time_ns(inspect.get("Created"))
    common = _SandboxParts(
        id=str(inspect["Id"]),
        metadata=_sandbox_metadata(name, labels, record),
        created_at_ns=created,
        labels=labels,
        annotations=annotations,
        runtime_handler=_handler(host_config, record, default_runtime),
        ready=ready,
    )
    ips = record.ips if record and not host_network else ()
    return SandboxView(
        id=common.id,
        name=name,
        running=running,
        pid=int(state.get("Pid") or 0),
        created_at_ns=created,
        docker_runtime=str(host_config.get("Runtime") or ""),
        # a restarted engine names one that it has not made
        resolv_conf_path="" if network_disabled else str(inspect.get("ResolvConfPath") or ""),
        network_disabled=network_disabled,
        writable_directory=str(layer_paths(inspect).get("UpperDir") or ""),
        host_network=host_network,
        record=record,
        observed_at_ns=observed_at_ns,
        item=_sandbox_item(common),
        status=_sandbox_status(common, namespaces, ips),
    )


def _handler(host_config: Mapping[str, Any], record: SandboxRecord | None, default_runtime: str) -> str:
    """What was asked for. The checkpoint of cri-dockerd's does not tell: there, a runtime that is not the default."""
    if record is not None and not record.foreign:
        return record.runtime_handler
    runtime = str(host_config.get("Runtime") or "")
    return runtime if default_runtime and runtime != default_runtime else ""


def ended_sandbox_view(view: SandboxView, observed_at_ns: int) -> SandboxView:
    """The same sandbox after pause has ended."""
    item, status = cri.PodSandbox(), cri.PodSandboxStatus()
    item.CopyFrom(view.item)
    status.CopyFrom(view.status)
    item.state = status.state = cri.PodSandboxState.SANDBOX_NOTREADY
    return replace(view, running=False, pid=0, observed_at_ns=observed_at_ns, item=item, status=status)


def ghost_sandbox_view(record: SandboxRecord, observed_at_ns: int) -> SandboxView:
    """A sandbox whose container is gone while its record is not: shown as not ready, so that it gets stopped."""
    config = record.config
    common = _SandboxParts(
        id=record.id,
        metadata=config.metadata,
        created_at_ns=record.created_at_ns,
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        runtime_handler=record.runtime_handler,
        ready=False,
    )
    return SandboxView(
        id=record.id,
        name=names.sandbox_name(config.metadata),
        running=False,
        pid=0,
        created_at_ns=record.created_at_ns,
        docker_runtime="",
        resolv_conf_path="",
        network_disabled=False,
        writable_directory="",
        host_network=record.host_network,
        record=record,
        observed_at_ns=observed_at_ns,
        item=_sandbox_item(common),
        status=_sandbox_status(common, config.linux.security_context.namespace_options, ()),
        ghost=True,
    )


def docker_addresses(inspect: Mapping[str, Any]) -> tuple[str, ...]:
    """The addresses that Docker's own networks gave a container, IPv4 before IPv6."""
    networks = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    found = [
        str(end[key] or "") for key in ("IPAddress", "GlobalIPv6Address") for end in networks.values() if end.get(key)
    ]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _SandboxParts:
    id: str
    metadata: cri.PodSandboxMetadata
    created_at_ns: int
    labels: dict[str, str]
    annotations: dict[str, str]
    runtime_handler: str
    ready: bool

    @property
    def state(self) -> cri.PodSandboxState:
        return cri.PodSandboxState.SANDBOX_READY if self.ready else cri.PodSandboxState.SANDBOX_NOTREADY


def _sandbox_item(parts: _SandboxParts) -> cri.PodSandbox:
    return cri.PodSandbox(
        id=parts.id,
        metadata=parts.metadata,
        state=parts.state,
        created_at=parts.created_at_ns,
        labels=parts.labels,
        annotations=parts.annotations,
        runtime_handler=parts.runtime_handler,
    )


def _sandbox_status(
    parts: _SandboxParts, namespaces: cri.NamespaceOption, ips: tuple[str, ...]
) -> cri.PodSandboxStatus:
    return cri.PodSandboxStatus(
        id=parts.id,
        metadata=parts.metadata,
        state=parts.state,
        created_at=parts.created_at_ns,
        network=cri.PodSandboxNetworkStatus(
            ip=ips[0] if ips else "", additional_ips=[cri.PodIP(ip=ip) for ip in ips[1:]]
        ),
        linux=cri.LinuxPodSandboxStatus(namespaces=cri.Namespace(options=namespaces)),
        labels=parts.labels,
        annotations=parts.annotations,
        runtime_handler=parts.runtime_handler,
    )


def _sandbox_metadata(name: str, labels: Mapping[str, str], record: SandboxRecord | None) -> cri.PodSandboxMetadata:
    if record is not None and not record.foreign:
        return record.config.metadata
    parsed = names.parse_name(name)
    return cri.PodSandboxMetadata(
        name=labels.get(names.POD_NAME_LABEL) or (parsed.pod if parsed else ""),
        namespace=labels.get(names.POD_NAMESPACE_LABEL) or (parsed.namespace if parsed else ""),
        uid=labels.get(names.POD_UID_LABEL) or (parsed.uid if parsed else ""),
        attempt=parsed.attempt if parsed else 0,
    )


def foreign_record(inspect: Mapping[str, Any], found: SandboxRecord | None) -> SandboxRecord:
    """What can be said of a sandbox that cri-dockerd made: by its checkpoint where there is one, and by its labels."""
    config = cri.PodSandboxConfig()
    if found is not None:
        config.CopyFrom(found.config)
    labels, annotations = names.from_docker_labels(inspect["Config"].get("Labels") or {})
    names.strip_sandbox_marker(labels)
    name = str(inspect.get("Name", "")).removeprefix("/")
    config.metadata.CopyFrom(_sandbox_metadata(name, labels, None))
    config.labels.update(labels)
    config.annotations.update(annotations)
    return SandboxRecord(
        id=str(inspect["Id"]),
        config=config,
        created_at_ns=parse_time_ns(inspect.get("Created")),
        network_ready=True,
        network_torn_down=found is not None and found.network_torn_down,
        foreign=True,
    )


def container_view(
    inspect: Mapping[str, Any],
    image_name: Callable[[str], str],
    observed_at_ns: int,
    user: cri.LinuxContainerUser | None = None,
    after_start: str | None = None,
) -> ContainerView:
    """The view of a workload container. `image_name` gives a name for an image id, for containers not made by us.

    `after_start` are the cgroup files that were written since, where they are no longer those of the creation.

    `user` is who the first process runs as. Only the container's own files say what a name means, and which groups a
    user has there, so before the first start and after a restart of dockershim that found the container ended it is
    left unset, which the kubelet takes as unknown.
    """
    config, host_config, state = inspect["Config"], inspect["HostConfig"], inspect["State"]
    docker_labels = config.get("Labels") or {}
    labels, annotations = names.from_docker_labels(docker_labels)
    name = str(inspect.get("Name", "")).removeprefix("/")
    parsed = names.parse_name(name)
    metadata = cri.ContainerMetadata(
        name=labels.get(names.CONTAINER_NAME_LABEL) or (parsed.container if parsed else ""),
        attempt=parsed.attempt if parsed else 0,
    )
    image_id = str(inspect.get("Image") or "")
    requested = docker_labels.get(names.IMAGE_LABEL) or str(config.get("Image") or "")
    shown = image_name(image_id) or requested if is_image_id(requested) else requested
    spec = cri.ImageSpec(image=shown, user_specified_image=docker_labels.get(names.IMAGE_LABEL, ""))
    status = _container_status(inspect, metadata)
    status.image.CopyFrom(spec)
    status.image_ref = status.image_id = image_id
    status.labels.update(labels)
    status.annotations.update(annotations)
    volumes = image_volumes.decode(docker_labels.get(names.IMAGE_VOLUMES_LABEL, ""))
    mounted = to_cri_mounts(inspect.get("Mounts") or (), host_config, volumes)
    status.mounts.extend(etc_files.without_own(mounted, docker_labels.get(names.SANDBOX_ID_LABEL, "")))
    status.log_path = docker_labels.get(names.LOG_PATH_LABEL, "")
    if after_start is None:
        after_start = docker_labels.get(names.AFTER_START_LABEL, "")
    status.resources.linux.CopyFrom(to_cri_resources(host_config, names.cgroup_writes_of(after_start)))
    status.stop_signal = to_cri_signal(str(config.get("StopSignal") or ""))
    if user is not None:
        status.user.linux.CopyFrom(user)
    item = cri.Container(
        id=status.id,
        pod_sandbox_id=docker_labels.get(names.SANDBOX_ID_LABEL, ""),
        metadata=metadata,
        image=spec,
        image_ref=image_id,
        image_id=image_id,
        state=status.state,
        created_at=status.created_at,
        labels=labels,
        annotations=annotations,
    )
    return ContainerView(
        id=status.id,
        name=name,
        sandbox_id=item.pod_sandbox_id,
        pid=int(state.get("Pid") or 0),
        docker_log_path=str(inspect.get("LogPath") or ""),
        log_path=status.log_path,
        tty=bool(config.get("Tty")),
        stdin_once=bool(config.get("StdinOnce")),
        after_start=after_start,
        image_volumes=volumes,
        writable_directory=str(layer_paths(inspect).get("UpperDir") or ""),
        observed_at_ns=observed_at_ns,
        item=item,
        status=status,
        log_spool=log_spool_of(host_config),
        exec_user=f"{user.uid}:{user.gid}" if user is not None and container_user(inspect).strict else "",
    )


def _container_status(inspect: Mapping[str, Any], metadata: cri.ContainerMetadata) -> cri.ContainerStatus:
    state = inspect["State"]
    started, finished = parse_time_ns(state.get("StartedAt")), parse_time_ns(state.get("FinishedAt"))
    docker_labels = inspect["Config"].get("Labels") or {}
    created = names.created_at_of(docker_labels) or parse_time_ns(inspect.get("Created"))
    exit_code = int(state.get("ExitCode") or 0)
    status = cri.ContainerStatus(
        id=str(inspect["Id"]), metadata=metadata, created_at=created, message=str(state.get("Error") or "")
    )
    if state.get("Running"):
        status.state = cri.ContainerState.CONTAINER_RUNNING
        status.started_at = started
    elif finished:
        status.state = cri.ContainerState.CONTAINER_EXITED
        # Docker notes the start when it hears of it, which can be after a short process has ended
        status.started_at, status.finished_at, status.exit_code = started, max(started, finished), exit_code
        status.reason = _exit_reason(bool(state.get("OOMKilled")), exit_code)
    elif exit_code:
        # Docker could not start the process at all: there is an exit code and no time
        status.state = cri.ContainerState.CONTAINER_EXITED
        status.started_at = status.finished_at = created
        status.exit_code = exit_code
        status.reason = "ContainerCannotRun"
    else:
        status.state = cri.ContainerState.CONTAINER_CREATED
    return status


def started_container_view(view: ContainerView, started_at_ns: int, observed_at_ns: int) -> ContainerView:
    """The same container after a start of which nothing else is known yet, not even its process."""
    status = cri.ContainerStatus()
    status.CopyFrom(view.status)
    status.state = cri.ContainerState.CONTAINER_RUNNING
    status.started_at, status.finished_at = started_at_ns, 0
    status.exit_code, status.reason, status.message = 0, "", ""
    return _in_another_state(view, status, observed_at_ns)


def ended_container_view(
    view: ContainerView, exit_code: int, trouble: str, finished_at_ns: int, observed_at_ns: int
) -> ContainerView:
    """The same container after an end of which Docker tells no more. `trouble` is why."""
    status = cri.ContainerStatus()
    status.CopyFrom(view.status)
    status.state = cri.ContainerState.CONTAINER_EXITED
    status.finished_at = max(status.started_at, finished_at_ns)
    status.started_at = status.started_at or status.finished_at
    status.exit_code, status.reason, status.message = exit_code, _exit_reason(False, exit_code), trouble
    return _in_another_state(view, status, observed_at_ns)


def _in_another_state(view: ContainerView, status: cri.ContainerStatus, observed_at_ns: int) -> ContainerView:
    item = cri.Container()
    item.CopyFrom(view.item)
    item.state = status.state
    return replace(view, pid=0, observed_at_ns=observed_at_ns, item=item, status=status, unseen=True)


def _exit_reason(oom_killed: bool, exit_code: int) -> str:
    if oom_killed:
        return "OOMKilled"
    return "Error" if exit_code else "Completed"
