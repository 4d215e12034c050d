"""Start, life and end of the agent.

Order: who the node is, the runtime's socket (waited for), the API clients, managers, sources, servers. One TaskGroup
owns every task; an endless task that ends is an error and ends the agent. A stop ends the tasks and touches no
container: pods outlive their agent. It waits for no thread, since none can be interrupted and a name server that is
away holds one for half a minute; what a thread leaves half done is what a crash leaves. A second signal ends the
process where it stands.

Upstream counterpart: cmd/kubelet/app/server.go (run, RunKubelet) and Kubelet.Run; for signals, apiserver/pkg/server.
"""

import asyncio
import os
import signal
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from kubelet_py.api import quantity
from kubelet_py.app.agent import Agent
from kubelet_py.app.backend import NodeBackend
from kubelet_py.app.node_parts import ApiClients, make_clients, read_identity
from kubelet_py.app.pod_objects import ApiObjects
from kubelet_py.app.serving import api_reviews, server_config
from kubelet_py.config import Settings
from kubelet_py.core.labels import log_links_root
from kubelet_py.cri import connect
from kubelet_py.cri.client import wait_until_ready
from kubelet_py.errors import ConfigError
from kubelet_py.host.process import raise_open_files, set_oom_score_adj
from kubelet_py.host.systemd import READY, STOPPING, WATCHDOG, notifier_from, watchdog_interval_seconds
from kubelet_py.kube.pods import ApiPodSource
from kubelet_py.managers.cgroup_driver import ask_cgroup_driver
from kubelet_py.managers.lease import LeaseManager
from kubelet_py.managers.log_rotation import LogRotator, RotationSettings
from kubelet_py.server.listener import KubeletServer
from kubelet_py.sync.sources.file import FileSource
from kubelet_py.sync.sources.url import UrlSource

log = structlog.get_logger()


async def run(settings: Settings) -> None:
    """The whole life. Returns after SIGTERM or SIGINT; raises ConfigError when it cannot start."""
    for warning in settings.warnings:
        log.warning("configuration", warning=warning)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(_Threads(thread_name_prefix="asyncio"))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop)
    identity = await asyncio.to_thread(read_identity, settings)
    log.info("starting", node=identity.settings.name, standalone=settings.standalone)
    async with AsyncExitStack() as stack:
        config = settings.config
        client = connect(config.containerRuntimeEndpoint, config.runtimeRequestTimeout, config.imageServiceEndpoint)
        stack.push_async_callback(client.close)
        clients = None if settings.standalone else make_clients(settings)
        if clients is not None:
            stack.push_async_callback(clients.close)
        await _until_stopped(_live(Agent(settings, identity, client, clients), stack), stop)
    log.info("stopped", consequence="containers keep running")


def _on_signal(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(1)
    stop.set()


class _Threads(ThreadPoolExecutor):
    """The loop's threads, for which the end of the loop does not wait."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Begin nothing more."""
        super().shutdown(wait=False, cancel_futures=True)


async def _until_stopped(life: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """Runs the agent until it is told to stop; an error of the agent comes out as it is."""
    async with asyncio.TaskGroup() as tasks:
        living = tasks.create_task(life, name="agent")
        stopping = tasks.create_task(stop.wait(), name="stop")
        await asyncio.wait((living, stopping), return_when=asyncio.FIRST_COMPLETED)
        notifier_from(os.environ).notify(STOPPING)
        living.cancel()
        stopping.cancel()


async def _live(agent: Agent, stack: AsyncExitStack) -> None:
    """Runs until cancelled."""
    await asyncio.to_thread(_prepare, agent)
    await agent.addresses.look_first()
    stack.push_async_callback(agent.allocations.flush)
    backend = NodeBackend(agent.settings, agent.client, agent.pleg, agent.statuses, agent.stories, agent.merge.pods)
    config = server_config(agent.settings, agent.identity.settings.name, agent.node.host_ips())
    reviews = api_reviews(agent.clients) if agent.clients is not None else None
    await stack.enter_async_context(KubeletServer(config, backend, reviews))
    async with asyncio.TaskGroup() as tasks:
        for name, work in _runtime_tasks(agent):
            tasks.create_task(work, name=name)
        if agent.clients is not None:
            for name, work in _api_tasks(agent, agent.clients):
                tasks.create_task(work, name=name)
        notifier_from(os.environ).notify(f"STATUS=waiting for {agent.settings.config.containerRuntimeEndpoint}")
        await wait_until_ready(agent.client)
        agent.cgroup_driver = await ask_cgroup_driver(agent.client, agent.cgroup_driver)
        await agent.node_allocatable.enforce_reserved()
        tasks.create_task(agent.node_allocatable.enforce_pods(), name="node-allocatable")
        agent.warn_of_dns()
        await agent.images.images.prepare()
        tasks.create_task(agent.images.gc.run(), name="image-gc")
        for name, work in _source_tasks(agent):
            tasks.create_task(work, name=name)
        tasks.create_task(_watchdog(), name="watchdog")
        notifier_from(os.environ).notify(READY, f"STATUS=node {agent.identity.settings.name}")


def _prepare(agent: Agent) -> None:
    config = agent.settings.config
    raise_open_files(config.maxOpenFiles)
    set_oom_score_adj(config.oomScoreAdj)
    problems = []
    for setting, directory, prepare in (
        ("--root-dir", agent.settings.flags.root_dir, partial(_prepare_root, agent)),
        ("podLogsDir", config.podLogsDir, partial(_make_log_directories, config.podLogsDir)),
    ):
        try:
            prepare()
        except OSError as error:
            what = f"cannot use {error.filename or directory}: {error.strerror or error}"
            problems.append(f"{setting} {directory}: {what}; it must be a directory that can be written to")
    if problems:
        raise ConfigError(*problems)


def _prepare_root(agent: Agent) -> None:
    agent.volumes.prepare()
    agent.allocations.load()
    agent.user_namespaces.load()


def _make_log_directories(pod_logs: str) -> None:
    for path, mode in ((pod_logs, 0o750), (log_links_root(pod_logs), 0o755)):
        os.makedirs(path, mode=mode, exist_ok=True)


def _runtime_tasks(agent: Agent) -> list[tuple[str, Coroutine[Any, Any, None]]]:
    return [
        ("runtime-health", agent.health.run()),
        ("node-addresses", agent.addresses.run()),
        ("pleg", agent.pleg.run()),
        ("pod-workers", agent.workers.run()),
        ("prober", agent.prober.run()),
        ("sync-loop", agent.loop.run()),
        ("pod-statuses", agent.statuses.run()),
        ("events", agent.events.run()),
        ("allocations", agent.allocations.run()),
        ("container-gc", agent.make_gc().run()),
        ("log-rotation", _make_log_rotator(agent).run()),
    ]


def _make_log_rotator(agent: Agent) -> LogRotator:
    config = agent.settings.config
    settings = RotationSettings(
        Path(config.podLogsDir),
        quantity.parse(config.containerLogMaxSize).value,
        config.containerLogMaxFiles,
        config.containerLogMaxWorkers,
        config.containerLogMonitorInterval,
    )
    return LogRotator(agent.client, settings)


def _api_tasks(agent: Agent, clients: ApiClients) -> list[tuple[str, Coroutine[Any, Any, None]]]:
    if agent.node_manager is None or agent.mirrors is None or not isinstance(agent.objects, ApiObjects):
        raise RuntimeError("an agent with an API server has a node manager, mirrors and objects")
    settings = agent.identity.settings
    source = ApiPodSource(clients.main, settings.name, agent.node_manager.registered, agent.on_api_pods)
    return [
        ("node", agent.node_manager.run()),
        ("lease", LeaseManager(clients.heartbeat, settings, agent.node_object).run()),
        ("mirror-pods", agent.mirrors.run()),
        ("pod-objects", agent.objects.run()),
        ("api-pods", source.run()),
        ("take-api-pods", agent.take_api_pods()),
    ]


def _source_tasks(agent: Agent) -> list[tuple[str, Coroutine[Any, Any, None]]]:
    config, name = agent.settings.config, agent.identity.settings.name
    tasks: list[tuple[str, Coroutine[Any, Any, None]]] = []
    if config.staticPodPath:
        files = FileSource(config.staticPodPath, name, config.fileCheckFrequency, agent.take_static_pods)
        tasks.append(("file-source", files.run()))
    if config.staticPodURL:
        url = UrlSource(
            config.staticPodURL, config.staticPodURLHeader, name, config.httpCheckFrequency, agent.take_static_pods
        )
        tasks.append(("url-source", url.run()))
    return tasks


async def _watchdog() -> None:
    """Tells systemd that the loop still turns."""
    interval_seconds = watchdog_interval_seconds(os.environ, os.getpid())
    if interval_seconds is None:
        await asyncio.Event().wait()
    notifier = notifier_from(os.environ)
    while True:
        notifier.notify(WATCHDOG)
        await asyncio.sleep(interval_seconds or 1.0)
