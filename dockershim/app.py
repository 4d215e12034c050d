"""dockershim as a process: makes the parts, connects them, serves until told to stop.

Owns start and end, sockets, and the one lock per root directory. A stop waits for calls, but for no thread, since none
can be interrupted and a file server that is away holds one for ever; what a thread leaves half done is what a crash
leaves. A second signal ends the process where it stands. Upstream counterpart: cri-dockerd's cmd/cri.
Deliberate differences: it starts without Docker and catches up; a second instance is refused; while it is replaced,
callers still find the socket when systemd holds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import structlog

from dockershim import host, namespaces
from dockershim.changed_limits import ChangedLimits
from dockershim.checkpoint import Checkpoints
from dockershim.checkpoint_files import CheckpointFiles
from dockershim.config import PASSED_SOCKET, WITHOUT_EFFECT, Config
from dockershim.engine import DockerEngine
from dockershim.engine.client import DockerClient
from dockershim.errors import AlreadyExists, ConfigError, NotFound, ShimError
from dockershim.image_volumes import ImageVolumes
from dockershim.interceptor import CallInterceptor
from dockershim.logs import ContainerLogs, LogSource
from dockershim.logs.json_file import JsonFileLogs
from dockershim.network import PodNetwork
from dockershim.network.bridge import BridgeNetwork, BridgeSettings, check_ranges
from dockershim.network.cni import INTERFACE
from dockershim.network.selection import NetworkSettings, select_network
from dockershim.node import Node, NodeSettings
from dockershim.oci.instructions import PROGRAM
from dockershim.relay import Relay
from dockershim.sandbox_files import SandboxFiles
from dockershim.service import add_services
from dockershim.stats import Statistics
from dockershim.stats.layers import LayerUsage
from dockershim.store import Store
from dockershim.store.feeder import Feeder
from dockershim.store.observer import FeederHooks
from dockershim.streaming.certificate import Certificate
from dockershim.systemd import Notifier, take_passed_socket
from dockershim.tasks import Tasks
from dockershim.translate.views import ContainerView, SandboxRecord, docker_addresses

if TYPE_CHECKING:
    from dockershim.metrics import Metrics

_log = structlog.get_logger()
MESSAGE_LIMIT_BYTES = 16 * 1024 * 1024
GRACE_SECONDS = 5.0
SOCKET_MODE = 0o660
FORMER_ROOT = Path("/var/lib/cri-dockerd")
_SERVER_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.so_reuseport", 0),
]


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """What a process is made of; tests put other parts in."""

    engine: DockerEngine
    network: PodNetwork
    logs: ContainerLogs
    settings: NodeSettings
    docker_addresses: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    metrics: Metrics | None = None


def make_parts(config: Config) -> Parts:
    """The real parts."""
    metrics = None
    if config.metrics_address is not None:
        from dockershim.metrics import Metrics  # brings prometheus_client, which most nodes do not need

        metrics = Metrics()
    engine = DockerClient(config.docker_endpoint, *(metrics.docker_called,) if metrics else ())
    addresses: dict[str, tuple[str, ...]] = {}
    settings = NetworkSettings(
        state_directory=config.cni_cache_dir,
        pin_directory=config.root_directory / "netns",
        plugin=config.network_plugin,
        configuration_directory=config.cni_conf_dir,
        plugin_directories=config.cni_bin_dirs,
        bridge=BridgeSettings(subnets=config.pod_cidrs, mtu=config.network_mtu),
        pod_cidrs=config.pod_cidrs,
    )

    async def ensure_network(name: str, body: Any) -> None:
        try:
            check_ranges(name, await engine.inspect_network(name), body)
        except NotFound:
            try:
                await engine.create_network({**body, "Name": name})
            except AlreadyExists:
                return

    async def addresses_of(sandbox_id: str) -> tuple[str, ...]:
        seen = addresses.get(sandbox_id)
        return docker_addresses(await engine.inspect_container(sandbox_id)) if seen is None else seen

    network = select_network(settings, ensure_network, addresses_of)
    lowest = host.lowest_oom_score()
    if lowest > -1000:
        _log.warning(
            "oom_score_limited", lowest=lowest, hint="lower values are raised to this one: no CAP_SYS_RESOURCE"
        )
    certificate = Certificate(*config.streaming_certificate) if config.streaming_certificate else None
    if certificate is not None:
        certificate.load()
    verbose = {key: str(value) for key, value in dataclasses.asdict(config).items()}
    return Parts(
        engine,
        network,
        JsonFileLogs(
            config.root_directory / "logs", config.root_directory / "log-spool", spools_new=config.spools_logs
        ),
        NodeSettings(
            pause_image=config.pause_image,
            lowest_oom_score=lowest,
            missing_capabilities=host.missing_capabilities(),
            pull_progress_deadline_seconds=config.pull_progress_deadline_seconds,
            verbose_config=json.dumps(verbose, sort_keys=True),
            streaming_certificate=certificate,
        ),
        addresses,
        metrics,
    )


def build_node(parts: Parts, root_directory: Path, tasks: Tasks) -> Node:
    """Connect the parts."""
    checkpoints = Checkpoints(root_directory, FORMER_ROOT)
    sandbox_files = SandboxFiles(root_directory)
    changed_limits = ChangedLimits(root_directory)
    store = Store(time.time_ns)
    image_volumes = ImageVolumes(root_directory, parts.engine, store.images_mounted)
    logs = parts.logs

    async def load_records() -> dict[str, SandboxRecord]:
        await changed_limits.load()
        return await checkpoints.load_all()

    async def forget_container(container_id: str) -> None:
        await logs.remove(container_id)
        await changed_limits.delete(container_id)

    def follow_log(view: ContainerView) -> None:
        if view.docker_log_path and view.log_path:
            logs.follow(LogSource(view.id, view.docker_log_path, view.log_path, view.tty, view.log_spool))

    async def sandbox_started(resolv_conf_path: str, record: SandboxRecord) -> None:
        if resolv_conf_path and record.config.HasField("dns_config"):
            await host.write_resolv_conf(resolv_conf_path, record.config.dns_config)

    async def connected() -> None:
        if isinstance(parts.network, BridgeNetwork):
            await parts.network.start()

    async def filled(sandbox_ids: set[str], container_ids: set[str]) -> None:
        await logs.retain(container_ids)
        await parts.network.retain(sandbox_ids)
        await sandbox_files.retain(sandbox_ids)
        await changed_limits.retain(container_ids)

    async def compared() -> None:
        await image_volumes.collect()
        for view in list(store.sandboxes.values()):
            if not view.running or view.record is None:
                continue
            try:
                await sandbox_started(view.resolv_conf_path, view.record)
            except ShimError as error:
                _log.warning("resolv_conf_not_checked", sandbox=view.id, error=str(error))

    hooks = FeederHooks(
        load_records,
        follow_log,
        logs.finish,
        forget_container,
        sandbox_started,
        connected,
        filled,
        compared,
        _addresses_inside,
        host.resolve_container_user,
        changed_limits.find,
        parts.metrics.event_read if parts.metrics else None,
    )
    pinned = (parts.settings.pause_image,)
    feeder = Feeder(parts.engine, store, tasks, hooks, time.time_ns, time.monotonic_ns, pinned)
    return Node(
        parts.engine,
        store,
        feeder,
        parts.network,
        logs,
        checkpoints,
        CheckpointFiles(root_directory),
        sandbox_files,
        changed_limits,
        image_volumes,
        Statistics(time.time_ns, LayerUsage(time.time_ns), INTERFACE),
        tasks,
        parts.settings,
        time.time_ns,
        time.monotonic_ns,
        parts.docker_addresses,
    )


async def _addresses_inside(pid: int) -> tuple[str, ...]:
    """What a pod's interface has, read once for sandboxes that another shim connected."""
    try:
        return await asyncio.to_thread(namespaces.read_addresses, f"/proc/{pid}/ns/net", INTERFACE)
    except OSError as error:
        _log.warning("addresses_unreadable", pid=pid, error=error.strerror or str(error))
        return ()


async def serve(config: Config, parts: Parts, stop: asyncio.Event) -> None:
    """Serve CRI until `stop` is set."""
    lock = lock_root(config.root_directory)
    passed = take_passed_socket(os.environ)
    if passed is None and config.needs_passed_socket:
        raise ConfigError(f"--container-runtime-endpoint {PASSED_SOCKET}: systemd passed no socket (want one)")
    for flag in config.ignored:
        _log.warning("flag_without_effect", flag=flag, reason=WITHOUT_EFFECT[flag])
    socket_path = config.root_directory / "grpc.sock" if passed else config.socket_path
    if passed is None:
        claim_socket(socket_path)
    notifier = Notifier(os.environ)
    try:
        async with Tasks() as tasks:
            node = build_node(parts, config.root_directory, tasks)
            await asyncio.to_thread(node.checkpoints.prepare)
            await asyncio.to_thread(node.checkpoint_files.prepare)
            if not isinstance(parts.network, BridgeNetwork):
                await parts.network.start()
            metrics = parts.metrics
            interceptor = CallInterceptor(node.feeder, metrics.rpc_ended if metrics else None)
            server = grpc.aio.server(interceptors=[interceptor], options=_SERVER_OPTIONS)
            add_services(server, node)
            bind(server, socket_path)
            await server.start()
            tasks.spawn_logged(parts.logs.run(), "logs")
            tasks.spawn_logged(parts.network.run(), "pod network")
            tasks.spawn_logged(node.feeder.run(), "docker feed")
            tasks.spawn_logged(node.stats.layers.run(), "layer counts")
            tasks.spawn_logged(notifier.watchdog_loop(), "watchdog")
            if passed is not None:
                tasks.spawn_logged(Relay(passed, str(socket_path), tasks).run(), "activated socket")
            try:
                async with _metrics_endpoint(config, metrics, node):
                    _log.info("serving", socket=str(config.socket_path), docker=config.docker_endpoint)
                    notifier.notify("READY=1")
                    tasks.spawn_logged(_check_engine(node, config), "engine check")
                    await stop.wait()
                    notifier.notify("STOPPING=1")
                _log.info("stopping")
            finally:
                await server.stop(GRACE_SECONDS)
            tasks.shut_down()
    finally:
        await parts.network.close()
        await parts.engine.close()
        if passed is None:
            socket_path.unlink(missing_ok=True)
        os.close(lock)


@contextlib.asynccontextmanager
async def _metrics_endpoint(config: Config, metrics: Metrics | None, node: Node) -> AsyncIterator[None]:
    if metrics is None or config.metrics_address is None:
        yield
        return
    metrics.show(node.store, node.feeder)
    close = await asyncio.to_thread(metrics.serve, *config.metrics_address)
    try:
        yield
    finally:
        await asyncio.to_thread(close)


async def _check_engine(node: Node, config: Config) -> None:
    info = await node.feeder.wait_info()
    docker = info.cgroup_driver
    if config.spools_logs and "" not in info.wrapped_runtimes:
        hint = f"register {PROGRAM} with Docker as a runtime; logs come from Docker meanwhile"
        _log.error("log_spool_without_oci_program", flag="--spool-logs", hint=hint)
    if config.cgroup_driver and docker != config.cgroup_driver:
        _log.error("cgroup_driver_differs", wanted=config.cgroup_driver, docker=docker, hint="change daemon.json")


def lock_root(root_directory: Path) -> int:
    """Hold the root directory for this process; ConfigError when another one has it."""
    try:
        root_directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        descriptor = os.open(root_directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"--root-directory {root_directory}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ConfigError(f"--root-directory {root_directory}: another dockershim is using it") from None
    return descriptor


def claim_socket(path: Path) -> None:
    """Make room for our socket; ConfigError when somebody listens there."""
    if not path.exists() and not path.is_symlink():
        if not path.parent.is_dir():
            raise ConfigError(f"--container-runtime-endpoint: {path.parent} is no directory")
        return
    if not path.is_socket():
        raise ConfigError(f"--container-runtime-endpoint: {path} exists and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ConfigError(f"--container-runtime-endpoint: {path}: {error.strerror or error}") from error
    raise ConfigError(f"--container-runtime-endpoint: somebody else serves {path} already")


def bind(server: grpc.aio.Server, path: Path) -> None:
    """Listen on a socket that only root and its group can reach, from the first moment."""
    before = os.umask(0o777 & ~SOCKET_MODE)
    try:
        server.add_insecure_port(f"unix://{path}")
    except RuntimeError as error:
        raise ConfigError(f"--container-runtime-endpoint: cannot listen on {path}: {error}") from error
    finally:
        os.umask(before)
    path.chmod(SOCKET_MODE)


async def run(config: Config) -> None:
    """The program: serve until SIGTERM or SIGINT."""
    soft, hard = host.raise_open_files()
    _log.debug("open_files_limit", before=soft, now=hard)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(_Threads(thread_name_prefix="asyncio"))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop)
    await serve(config, make_parts(config), stop)


def _on_signal(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(1)
    stop.set()


class _Threads(ThreadPoolExecutor):
    """The loop's threads, for which the end of the loop does not wait."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Begin nothing more."""
        super().shutdown(wait=False, cancel_futures=True)
