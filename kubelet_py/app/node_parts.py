"""The node's half of the agent: facts, settings and the objects that speak to the API server about the node itself."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from kubelet_py.api.quantity import Quantity
from kubelet_py.config import KUBERNETES_VERSION, Settings
from kubelet_py.core.admission import NodeState
from kubelet_py.core.declared_features import declared_features
from kubelet_py.core.node_rules import MachineInfo, NodeSettings, RuntimeState, default_labels
from kubelet_py.core.orphaned_devices import registered_resources
from kubelet_py.core.user_namespaces import (
    DEFAULT_IDS_PER_POD,
    IdRange,
    default_range,
    parse_subids,
    range_problem,
)
from kubelet_py.errors import ConfigError
from kubelet_py.host.cgroups import CgroupTree
from kubelet_py.host.machine import AddressWish, parse_node_ip, read_machine_info
from kubelet_py.kube.client import ApiClient, ClientSettings
from kubelet_py.kube.connection import Connection
from kubelet_py.kube.kubeconfig import load_kubeconfig

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who this node is and where it should be reached."""

    settings: NodeSettings
    machine: MachineInfo
    wish: AddressWish
    orphaned_devices: tuple[str, ...] = ()
    """Resources of device plugins that the kubelet before this agent had. They are here, and nobody hands them out."""


@dataclass(frozen=True, slots=True)
class ApiClients:
    """One connection, three clients: each has its own rate limit, so that none starves another."""

    main: ApiClient
    events: ApiClient
    heartbeat: ApiClient

    async def close(self) -> None:
        """Closes all."""
        for client in (self.main, self.events, self.heartbeat):
            await client.close()


def local_node_state(
    identity: NodeIdentity, allocatable: Mapping[str, Quantity], runtime: RuntimeState, has_apparmor: bool
) -> NodeState:
    """What the node knows of itself: what its object will say that it has not registered yet."""
    return NodeState(
        identity.settings.name,
        default_labels(identity.settings, identity.machine),
        dict(allocatable),
        identity.settings.taints,
        strict_supplemental_groups=bool(runtime.supplemental_groups_policy),
        apparmor=has_apparmor,
        declared_features=identity.settings.declared_features,
    )


def node_name_of(settings: Settings) -> str:
    """--hostname-override, or the host's name, lower case as object names are."""
    return (settings.flags.hostname_override or socket.gethostname()).strip().lower()


def read_identity(settings: Settings) -> NodeIdentity:
    """Everything that does not change while the agent runs. Blocking; raises ConfigError for a bad --node-ip."""
    config, flags = settings.config, settings.flags
    name = node_name_of(settings)
    ips = tuple(ip.strip() for ip in flags.node_ip.split(",") if ip.strip())
    external = flags.cloud_provider == "external"
    node = NodeSettings(
        name=name,
        hostname=socket.gethostname().lower() if not flags.hostname_override else name,
        labels=flags.node_labels,
        taints=config.registerWithTaints,
        register=config.registerNode,
        provider_id=config.providerID,
        external_cloud=external,
        provided_ips=ips,
        controller_attach=config.enableControllerAttachDetach,
        max_pods=config.maxPods,
        pods_per_core=config.podsPerCore,
        kube_reserved=config.kubeReserved,
        system_reserved=config.systemReserved,
        eviction_hard=config.evictionHard,
        local_storage=config.localStorageCapacityIsolation,
        kubelet_port=config.port,
        kubelet_version=KUBERNETES_VERSION,
        max_images=config.nodeStatusMaxImages,
        status_update_seconds=config.nodeStatusUpdateFrequency,
        status_report_seconds=config.nodeStatusReportFrequency,
        lease_duration_seconds=config.nodeLeaseDurationSeconds,
        declared_features=declared_features(settings.gates.enabled),
    )
    wish = AddressWish(name, node.hostname or name, tuple(parse_node_ip(ip) for ip in ips), external)
    root = Path(flags.root_dir)
    return NodeIdentity(node, read_machine_info(root), wish, read_orphaned_devices(root))


def read_orphaned_devices(root_dir: Path) -> tuple[str, ...]:
    """From the checkpoint of the Go kubelet's device manager, which is left as it is. Blocking."""
    path = root_dir / "device-plugins" / "kubelet_internal_checkpoint"
    try:
        resources = registered_resources(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        consequence = "what the node object says of its plugins' devices stays as it is"
        log.warning("device_checkpoint_not_read", path=str(path), error=str(error), consequence=consequence)
        return ()
    if resources:
        log.warning("devices_without_plugins", resources=resources, consequence="the node has none for pods")
    return resources


def make_clients(settings: Settings) -> ApiClients:
    """The API clients of a kubeconfig; raises ConfigError. Nothing is dialled yet."""
    config = settings.config
    connection = Connection(load_kubeconfig(Path(settings.flags.kubeconfig)))
    agent = f"kubelet-py/{KUBERNETES_VERSION} (linux)"
    heartbeat_seconds = min(config.nodeStatusUpdateFrequency, float(config.nodeLeaseDurationSeconds))
    return ApiClients(
        ApiClient(connection, ClientSettings(agent, float(config.kubeAPIQPS), config.kubeAPIBurst)),
        ApiClient(connection, ClientSettings(agent, float(config.eventRecordQPS), config.eventBurst)),
        ApiClient(connection, ClientSettings(agent, 0.0, 1, timeout_seconds=heartbeat_seconds)),
    )


def read_user_ids(settings: Settings) -> IdRange:
    """The host ids that pods with user namespaces of their own may have; ConfigError when they make no sense."""
    config = settings.config
    ids_per_pod = (config.userNamespaces.idsPerPod if config.userNamespaces else None) or DEFAULT_IDS_PER_POD
    program = shutil.which("getsubids")
    try:
        pwd.getpwnam("kubelet")
    except KeyError:
        program = None
    if program is None:
        return default_range(ids_per_pod)

    def asked(*flags: str) -> str:
        return subprocess.run([program, *flags, "kubelet"], capture_output=True, text=True, check=True).stdout

    try:
        ids = parse_subids(asked(), asked("-g"), ids_per_pod)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise ConfigError(f"the ids of user kubelet cannot be read: {error}") from error
    if problem := range_problem(ids, config.maxPods):
        raise ConfigError(problem)
    return ids


def counts_swap(tree: CgroupTree) -> bool:
    """The kernel limits the swap of cgroups."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return tree.counts_swap(next((line.removeprefix("0::") for line in lines if line.startswith("0::")), ""))


def has_selinux() -> bool:
    """The kernel labels processes and files: with a policy loaded, what a process is called is more than "kernel"."""
    try:
        return Path("/sys/fs/selinux/enforce").exists() and ":" in Path("/proc/self/attr/current").read_text()
    except OSError:
        return False


def has_apparmor() -> bool:
    """The kernel enforces AppArmor profiles; looked at once, since a host does not change that while it runs."""
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False


def is_unified_cgroup() -> bool:
    """The machine's controllers are on cgroup v2."""
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")
