"""Pod networks made by CNI plugins.

Owns when plugins run, the undo of a set-up that failed in the middle, and the watch on the configuration. Must not know
Docker. Upstream counterpart: cri-dockerd's network/cni. Deliberate differences: the result is kept and is the pod's
address; DEL uses the configuration that ADD used, so it needs none in the directory; every attachment is recorded
before the first plugin runs, so a crash in the middle leaves nothing that DEL would not find; `lo` is brought up
without a plugin; a configuration that vanishes makes the network not ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from dockershim import inotify, namespaces
from dockershim.network import NetworkCondition, NetworkFailed, NetworkRequest, NetworkResult, cni_config, pod_settings
from dockershim.network.cni_config import CniNetworkConfig, Directory
from dockershim.network.cni_exec import Attachment, PluginRunner

KIND = "cni"
INTERFACE = "eth0"
_SANDBOX_ID = re.compile(r"^[0-9a-f]{12,64}$")  # other names are other programs': libcni has its cache here too
PLUGIN_SECONDS = 120.0
UNDO_SECONDS = 60.0
VERSIONS_WITH_GC = ("1.1.0",)
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
    """`PodNetwork` by CNI. Attachments are recorded in `state_directory`, one file per sandbox."""

    docker_network_mode = "none"
    publishes_ports = False

    def __init__(
        self,
        configuration_directory: Path,
        plugin_directories: Sequence[Path],
        state_directory: Path,
        *,
        plugin_seconds: float = PLUGIN_SECONDS,
    ) -> None:
        self._configuration_directory = configuration_directory
        self._state_directory = state_directory
        self._runner = PluginRunner(plugin_directories, plugin_seconds)
        self._directory = Directory(None, ())
        self._pod_cidrs: tuple[str, ...] = ()
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
            logger.info(
                "cni_network_chosen" if network else "cni_network_gone",
                network=network.name if network else before.network and before.network.name,
                plugins=[plugin["type"] for plugin in network.plugins] if network else [],
                directory=str(self._configuration_directory),
            )
        for line in set(self._directory.broken) - set(before.broken):
            logger.warning("cni_configuration_broken", file=line, directory=str(self._configuration_directory))

    def _watch(self, watcher: inotify.Inotify) -> None:
        path = self._configuration_directory
        while True:
            try:
                watcher.add(path, _WATCHED)
                return
            except OSError as error:
                if path == path.parent:
                    logger.warning("cni_configuration_not_watched", error=str(error))
                    return
                path = path.parent

    def set_pod_cidr(self, text: str) -> None:
        """The node's ranges for pods (UpdateRuntimeConfig), for plugins that take ipRanges. ValueError: malformed."""
        self._pod_cidrs = pod_settings.pod_cidrs(text)

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
        return NetworkCondition(True, "", f"passed over: {broken}" if broken else "")

    # pods

    async def set_up(self, request: NetworkRequest) -> NetworkResult:
        """See PodNetwork."""
        network = self._directory.network
        if network is None:
            raise NetworkFailed(self.condition().message)
        attachment = self._attachment(network, request, request.netns_path)
        raw = _to_raw(attachment)
        self._set_up_here.add(request.sandbox_id)
        await asyncio.to_thread(self._prepare, request, raw)
        result: dict[str, Any] | None = None
        try:
            result = await self._runner.add(attachment)
            ips = _ips(result, network)
        except BaseException:
            await asyncio.shield(self._undo(attachment, result))
            raise
        return NetworkResult(ips, {**raw, "result": result})

    def _attachment(self, network: CniNetworkConfig, request: NetworkRequest, netns_path: str) -> Attachment:
        runtime_config = pod_settings.runtime_config(request, self._pod_cidrs)
        args = pod_settings.cni_args(request)
        return Attachment(network, request.sandbox_id, netns_path, INTERFACE, args, runtime_config)

    def _prepare(self, request: NetworkRequest, raw: dict[str, Any]) -> None:
        """Everything before the first plugin; in a thread."""
        try:
            raw["netns_inode"] = os.stat(request.netns_path).st_ino
            namespaces.bring_loopback_up(request.netns_path)
        except OSError as error:
            raise NetworkFailed(f"network namespace {request.netns_path}: {error.strerror or error}") from error
        self._state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = self._state_directory / request.sandbox_id
        temporary = record.with_name(f".{record.name}")
        temporary.write_text(json.dumps(raw))
        temporary.rename(record)

    async def _undo(self, attachment: Attachment, result: Mapping[str, Any] | None) -> None:
        try:
            async with asyncio.timeout(UNDO_SECONDS):
                await self._runner.delete(attachment, result)
        except (NetworkFailed, TimeoutError) as error:
            logger.warning("cni_undo_failed", sandbox_id=attachment.container_id, error=str(error) or "took too long")
            return  # the record stays for tear_down
        await asyncio.to_thread(self._forget, attachment.container_id)

    async def tear_down(self, request: NetworkRequest, raw: Mapping[str, Any]) -> None:
        """See PodNetwork."""
        record = raw if raw.get("kind") == KIND else await asyncio.to_thread(self._recorded, request.sandbox_id)
        network = self._directory.network
        if record is not None:
            netns_path = await asyncio.to_thread(_netns_of, request.netns_path, record)
            attachment = _from_raw(record, request.sandbox_id, netns_path)
        elif network is not None:  # given back already, or connected by another runtime before us: DEL is harmless
            attachment = self._attachment(network, request, request.netns_path)
        else:
            return
        await self._runner.delete(attachment, record.get("result") if record is not None else None)
        await asyncio.to_thread(self._forget, request.sandbox_id)

    async def retain(self, sandbox_ids: Collection[str]) -> None:
        """Give back what other sandboxes than these hold: at the start, for those that went while nobody looked.

        First by our records, then by the plugins' own (GC), where the configuration speaks of it (1.1.0).
        """
        for sandbox_id in await asyncio.to_thread(self._all_recorded):
            if sandbox_id in sandbox_ids or sandbox_id in self._set_up_here:
                continue
            record = await asyncio.to_thread(self._recorded, sandbox_id)
            try:
                if record is not None:
                    await self._runner.delete(_from_raw(record, sandbox_id, ""), record.get("result"))
            except NetworkFailed as error:
                logger.warning("cni_stale_attachment_stays", sandbox_id=sandbox_id, error=str(error))
                continue
            await asyncio.to_thread(self._forget, sandbox_id)
            logger.info("cni_stale_attachment_removed", sandbox_id=sandbox_id)
        network = self._directory.network
        if network is not None and network.version in VERSIONS_WITH_GC and not network.disable_gc:
            valid = [(each, INTERFACE) for each in sorted({*sandbox_ids, *self._set_up_here})]
            try:
                await self._runner.collect_garbage(network, valid)
            except NetworkFailed as error:
                logger.warning("cni_gc_failed", network=network.name, error=str(error))

    def _all_recorded(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._state_directory) if _SANDBOX_ID.match(name)]
        except FileNotFoundError:
            return []

    def _recorded(self, sandbox_id: str) -> Mapping[str, Any] | None:
        try:
            content = json.loads((self._state_directory / sandbox_id).read_bytes())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def _forget(self, sandbox_id: str) -> None:
        self._set_up_here.discard(sandbox_id)
        with contextlib.suppress(FileNotFoundError):
            (self._state_directory / sandbox_id).unlink()


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


def _netns_of(path: str, raw: Mapping[str, Any]) -> str:
    """The path if it still is the namespace that was set up: a process id may belong to somebody else by now."""
    try:
        return path if path and os.stat(path).st_ino == raw.get("netns_inode") else ""
    except OSError:
        return ""


def _ips(result: Mapping[str, Any], network: CniNetworkConfig) -> tuple[str, ...]:
    try:
        ips = pod_settings.pod_ips(result, INTERFACE)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NetworkFailed(f"network {network.name}: the result cannot be read: {error!r}") from error
    if not ips:
        raise NetworkFailed(f"network {network.name}: the result has no address for {INTERFACE}")
    return ips
