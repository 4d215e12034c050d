"""Pod networks made by CNI plugins.

Owns when plugins run, the undo of a set-up that failed in the middle, and the watch on the configuration. Must not know
Docker. Upstream counterpart: cri-dockerd's network/cni. Deliberate differences: the result is kept and is the pod's
address; DEL uses the configuration that ADD used, so it needs none in the directory; every attachment is recorded
before the first plugin runs, so a crash in the middle leaves nothing that DEL would not find; the namespace is pinned,
so the end of pause takes nothing away; `lo` is brought up without a plugin; a configuration that vanishes makes the
network not ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from dockershim import inotify, namespaces
from dockershim.network import NetworkCondition, NetworkFailed, NetworkRequest, NetworkResult, cni_config, pod_settings
from dockershim.network.cni_config import CniNetworkConfig, Directory
from dockershim.network.cni_exec import Attachment, PluginRunner
from dockershim.network.cni_records import KIND, AttachmentRecords, netns_of

INTERFACE = "eth0"
PLUGIN_SECONDS = 120.0
UNDO_SECONDS = 60.0
STATUS_SECONDS = 10.0
VERSIONS_WITH_GC = VERSIONS_WITH_STATUS = ("1.1.0",)
VERSIONS_WITHOUT_CHECK = ("0.1.0", "0.2.0", "0.3.0", "0.3.1")
_NOT_ASKED = "the network's plugins have not said yet whether they are ready"
_WATCHED = (
    inotify.CLOSE_WRITE
    | inotify.MOVED_TO
    | inotify.MOVED_FROM
    | inotify.CREATE
    | inotify.DELETE
    | inotify.DELETE_SELF
    | inotify.MOVE_SELF
    | inotify.ONLY_DIRECTORY
)

logger = structlog.get_logger()


class CniNetwork:
    """`PodNetwork` by CNI.

    Attachments are recorded in `state_directory` and their namespaces pinned in `pin_directory`, one file per sandbox
    in each. `pod_cidrs` count until the kubelet has said others.
    """

    docker_network_mode = ""
    publishes_ports = False

    def __init__(
        self,
        configuration_directory: Path,
        plugin_directories: Sequence[Path],
        state_directory: Path,
        pin_directory: Path,
        *,
        pod_cidrs: Sequence[str] = (),
        plugin_seconds: float = PLUGIN_SECONDS,
    ) -> None:
        self._configuration_directory = configuration_directory
        self._records = AttachmentRecords(state_directory, pin_directory)
        self._runner = PluginRunner(plugin_directories, plugin_seconds)
        self._directory = Directory(None, ())
        self._pod_cidrs = tuple(pod_cidrs)
        self._asked_plugins = asyncio.Event()
        self._status_trouble = _NOT_ASKED
        self._set_up_here: set[str] = set()
        self._inotify: inotify.Inotify | None = None
        self._watch_trouble = ""

    # configuration

    async def start(self) -> None:
        """See PodNetwork."""
        try:
            self._inotify = inotify.Inotify()
        except OSError as error:
            self._watch_trouble = str(error)
            logger.warning("cni_configuration_not_watched", error=str(error), hint="restart to take up changes")
        else:
            asyncio.get_running_loop().add_reader(self._inotify.fd, self._changed)
        self.reload()
        told = await asyncio.to_thread(self._records.load_pod_cidrs)
        if told:
            self._pod_cidrs = told

    async def run(self) -> None:
        """See PodNetwork: asks the plugins how they are (STATUS, since 1.1.0), at once when the network changes."""
        while True:
            self._asked_plugins.clear()
            network = self._directory.network
            if network is not None and network.version in VERSIONS_WITH_STATUS:
                await self._ask_status(network)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATUS_SECONDS):
                    await self._asked_plugins.wait()

    async def _ask_status(self, network: CniNetworkConfig) -> None:
        before = self._status_trouble
        try:
            await self._runner.status(network)
        except NetworkFailed as failure:
            self._status_trouble = str(failure)
        else:
            self._status_trouble = ""
        if self._status_trouble != before and before != _NOT_ASKED:
            logger.info("cni_status", network=network.name, trouble=self._status_trouble)

    async def close(self) -> None:
        """See PodNetwork."""
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None

    def _changed(self) -> None:
        if self._inotify is not None and self._inotify.read():
            self.reload()

    def reload(self) -> None:
        """Read the directory again: a few small files. Watches it first, or what it will be made in."""
        if self._inotify is not None:
            self._watch(self._inotify)
        before, self._directory = self._directory, cni_config.load_directory(self._configuration_directory)
        if before.network != self._directory.network:
            network = self._directory.network
            self._status_trouble = _NOT_ASKED
            self._asked_plugins.set()
            logger.info(
                "cni_network_chosen" if network else "cni_network_gone",
                network=network.name if network else before.network and before.network.name,
                plugins=[plugin["type"] for plugin in network.plugins] if network else [],
                directory=str(self._configuration_directory),
            )
        for line in set(self._directory.broken) - set(before.broken):
            logger.warning("cni_configuration_broken", file=line, directory=str(self._configuration_directory))

    def _watch(self, watcher: inotify.Inotify) -> None:
        """Watch the directory, or what it will be made in: of that the kernel tells once the watch is there.

        What was made a moment before that watch nobody tells, so the way down is tried once more.
        """
        directory = self._configuration_directory
        above = [directory, *directory.parents]
        while True:
            for index, path in enumerate(above):
                try:
                    watcher.add(path, _WATCHED)
                    break
                except OSError as error:
                    if index == len(above) - 1:
                        logger.warning("cni_configuration_not_watched", error=str(error))
                        return
            if index == 0:
                return
            try:
                watcher.add(above[index - 1], _WATCHED)
            except OSError:
                return

    async def set_pod_cidr(self, text: str) -> None:
        """See PodNetwork: they are for plugins that take ipRanges."""
        cidrs = pod_settings.pod_cidrs(text)
        if cidrs != self._pod_cidrs:
            logger.info("pod_cidrs_set", now=cidrs, before=self._pod_cidrs)
            self._pod_cidrs = cidrs
            await asyncio.to_thread(self._records.save_pod_cidrs, cidrs)

    @property
    def has_configuration(self) -> bool:
        """A usable configuration is there now."""
        return self._directory.network is not None

    def condition(self) -> NetworkCondition:
        """See PodNetwork."""
        network = self._directory.network
        broken = "; ".join(self._directory.broken)
        if network is None:
            found = f"no usable file (broken: {broken})" if broken else "no .conflist, .conf or .json file"
            return NetworkCondition(
                False, "NetworkPluginNotReady", f"cni config uninitialized: {found} in {self._configuration_directory}"
            )
        missing = self._runner.missing(network)
        if missing:
            return NetworkCondition(
                False, "NetworkPluginNotReady", f"network {network.name}: plugins not installed: {', '.join(missing)}"
            )
        if network.version in VERSIONS_WITH_STATUS and self._status_trouble:
            return NetworkCondition(False, "NetworkPluginNotReady", self._status_trouble)
        return NetworkCondition(True, "", f"passed over: {broken}" if broken else "")

    # pods

    def check_annotations(self, annotations: Mapping[str, str]) -> None:
        """See PodNetwork: bandwidth."""
        pod_settings.bandwidth(annotations)

    async def set_up(self, request: NetworkRequest) -> NetworkResult:
        """See PodNetwork."""
        network = self._directory.network
        if network is None:
            raise NetworkFailed(self.condition().message)
        limits = pod_settings.bandwidth(request.annotations)
        self._set_up_here.add(request.sandbox_id)
        unpinned = self._attachment(network, request, limits)
        raw = await asyncio.to_thread(self._prepare, request, _to_raw(unpinned))
        attachment = dataclasses.replace(unpinned, netns_path=raw["netns"])
        result: dict[str, Any] | None = None
        try:
            result = await self._runner.add(attachment)
            ips = _ips(result, network)
        except BaseException:
            await asyncio.shield(self._undo(attachment, result))
            raise
        return NetworkResult(ips, {**raw, "result": result})

    def _attachment(self, network: CniNetworkConfig, request: NetworkRequest, limits: Mapping[str, int]) -> Attachment:
        runtime_config = pod_settings.runtime_config(request, self._pod_cidrs, limits)
        args = pod_settings.cni_args(request)
        return Attachment(network, request.sandbox_id, request.netns_path, INTERFACE, args, runtime_config)

    def _prepare(self, request: NetworkRequest, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Everything before the first plugin; in a thread."""
        try:
            record = self._records.begin(request.sandbox_id, request.netns_path, raw)
            namespaces.bring_loopback_up(request.netns_path)
        except OSError as error:
            problem = f"network namespace {request.netns_path}: {error.strerror or error}"
            self._records.forget(request.sandbox_id)
            raise NetworkFailed(problem) from error
        return record

    async def _undo(self, attachment: Attachment, result: Mapping[str, Any] | None) -> None:
        try:
            async with asyncio.timeout(UNDO_SECONDS):
                await self._runner.delete(attachment, result)
        except (NetworkFailed, TimeoutError) as error:
            logger.warning("cni_undo_failed", sandbox_id=attachment.container_id, error=str(error) or "took too long")
            return  # the record stays for tear_down
        await self._forget(attachment.container_id)

    async def _forget(self, sandbox_id: str) -> None:
        self._set_up_here.discard(sandbox_id)
        await asyncio.to_thread(self._records.forget, sandbox_id)

    async def tear_down(self, request: NetworkRequest, raw: Mapping[str, Any]) -> None:
        """See PodNetwork."""
        record = raw if raw.get("kind") == KIND else await asyncio.to_thread(self._records.find, request.sandbox_id)
        network = self._directory.network
        if record is not None:
            netns_path = await asyncio.to_thread(netns_of, request.netns_path, record)
            attachment = _from_raw(record, request.sandbox_id, netns_path)
        elif network is not None:  # given back already, or connected by another runtime before us: DEL is harmless
            limits = pod_settings.readable_bandwidth(request.annotations)
            attachment = self._attachment(network, request, limits)
        else:
            return
        await self._runner.delete(attachment, record.get("result") if record is not None else None)
        await self._forget(request.sandbox_id)

    async def check(self, request: NetworkRequest, raw: Mapping[str, Any]) -> str:
        """See PodNetwork: CHECK, where the configuration that ADD used has it (0.4.0) and allows it."""
        if raw.get("kind") != KIND or not isinstance(raw.get("result"), dict):
            return ""
        netns_path = await asyncio.to_thread(netns_of, request.netns_path, raw)
        attachment = _from_raw(raw, request.sandbox_id, netns_path)
        if attachment.network.disable_check or attachment.network.version in VERSIONS_WITHOUT_CHECK:
            return ""
        try:
            await self._runner.check(attachment, raw["result"])
        except NetworkFailed as failure:
            return str(failure)
        return ""

    async def retain(self, sandbox_ids: Collection[str]) -> None:
        """Give back what other sandboxes than these hold: at the start, for those that went while nobody looked.

        First by our records, then by the plugins' own (GC), where the configuration speaks of it (1.1.0).
        """
        for sandbox_id in await asyncio.to_thread(self._records.sandbox_ids):
            if sandbox_id in sandbox_ids or sandbox_id in self._set_up_here:
                continue
            record = await asyncio.to_thread(self._records.find, sandbox_id)
            try:
                if record is not None:
                    netns_path = await asyncio.to_thread(netns_of, "", record)
                    await self._runner.delete(_from_raw(record, sandbox_id, netns_path), record.get("result"))
            except NetworkFailed as error:
                logger.warning("cni_stale_attachment_stays", sandbox_id=sandbox_id, error=str(error))
                continue
            await self._forget(sandbox_id)
            logger.info("cni_stale_attachment_removed", sandbox_id=sandbox_id)
        network = self._directory.network
        if network is not None and network.version in VERSIONS_WITH_GC and not network.disable_gc:
            valid = [(each, INTERFACE) for each in sorted({*sandbox_ids, *self._set_up_here})]
            try:
                await self._runner.collect_garbage(network, valid)
            except NetworkFailed as error:
                logger.warning("cni_gc_failed", network=network.name, error=str(error))


def _to_raw(attachment: Attachment) -> dict[str, Any]:
    return {
        "kind": KIND,
        "network": attachment.network.to_raw(),
        "interface": attachment.interface,
        "args": attachment.args,
        "runtime_config": dict(attachment.runtime_config),
    }


def _from_raw(raw: Mapping[str, Any], sandbox_id: str, netns_path: str) -> Attachment:
    network: CniNetworkConfig = cni_config.from_raw(raw["network"])
    return Attachment(network, sandbox_id, netns_path, raw["interface"], raw["args"], raw["runtime_config"])


def _ips(result: Mapping[str, Any], network: CniNetworkConfig) -> tuple[str, ...]:
    try:
        ips = pod_settings.pod_ips(result, INTERFACE)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NetworkFailed(f"network {network.name}: the result cannot be read: {error!r}") from error
    if not ips:
        raise NetworkFailed(f"network {network.name}: the result has no address for {INTERFACE}")
    return ips
