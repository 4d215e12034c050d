"""Runs CNI plugins: one process per plugin and verb, with a deadline, and its answer understood.

Owns the execution protocol of the CNI specification. Must not know pods or what the configuration means. Upstream
counterpart: libcni's invoke package. Deliberate difference: a plugin that does not answer is ended with everything it
started (its IPAM plugin too), and every error names network, plugin and verb.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockershim.network import NetworkFailed
from dockershim.network.cni_config import CniNetworkConfig, plugin_input

_STDERR_TAIL_CHARACTERS = 400
_END_SECONDS = 5.0
VALID_ATTACHMENTS = "cni.dev/valid-attachments"


@dataclass(frozen=True, slots=True)
class Attachment:
    """One sandbox in one network: all that the plugins are told, each time the same."""

    network: CniNetworkConfig
    container_id: str
    netns_path: str
    interface: str
    args: str
    runtime_config: Mapping[str, Any]


class PluginRunner:
    """Finds plugins in directories and runs chains of them."""

    def __init__(self, directories: Sequence[Path], deadline_seconds: float) -> None:
        self._directories = tuple(directories)
        self._deadline_seconds = deadline_seconds

    def find(self, kind: str) -> Path | None:
        """The executable of a plugin."""
        for directory in self._directories:
            path = directory / kind
            if path.is_file() and os.access(path, os.X_OK):
                return path
        return None

    def missing(self, network: CniNetworkConfig) -> list[str]:
        """The plugins of a network that are not installed."""
        return [plugin["type"] for plugin in network.plugins if self.find(plugin["type"]) is None]

    async def add(self, attachment: Attachment) -> dict[str, Any]:
        """ADD, plugin by plugin, each with the result of the one before. Raises at the first that fails."""
        result: dict[str, Any] | None = None
        for plugin in attachment.network.plugins:
            answer = await self._run("ADD", attachment, plugin, result)
            if not isinstance(answer, dict):
                raise NetworkFailed(f"{_who(attachment.network, plugin, 'ADD')} succeeded without a result")
            result = answer
        assert result is not None
        return result

    async def delete(self, attachment: Attachment, result: Mapping[str, Any] | None) -> None:
        """DEL in reverse order. A plugin that fails does not keep the others from giving back what they hold."""
        failures: list[str] = []
        for plugin in reversed(attachment.network.plugins):
            try:
                await self._run("DEL", attachment, plugin, result)
            except NetworkFailed as failure:
                failures.append(str(failure))
        if failures:
            raise NetworkFailed("; ".join(failures))

    async def check(self, attachment: Attachment, result: Mapping[str, Any]) -> None:
        """CHECK, plugin by plugin."""
        for plugin in attachment.network.plugins:
            await self._run("CHECK", attachment, plugin, result)

    async def status(self, network: CniNetworkConfig) -> None:
        """STATUS (since 1.1.0), plugin by plugin. Raises with the first that is not ready for ADD."""
        for plugin in network.plugins:
            await self._invoke("STATUS", network, plugin, {}, plugin_input(network, plugin, {}, None))

    async def collect_garbage(self, network: CniNetworkConfig, valid: Sequence[tuple[str, str]]) -> None:
        """GC (since 1.1.0): each plugin frees what is not of these attachments (container id, interface)."""
        attachments = [{"containerID": container_id, "ifname": interface} for container_id, interface in valid]
        failures: list[str] = []
        for plugin in network.plugins:
            content = {**plugin_input(network, plugin, {}, None), VALID_ATTACHMENTS: attachments}
            try:
                await self._invoke("GC", network, plugin, {}, content)
            except NetworkFailed as failure:
                failures.append(str(failure))
        if failures:
            raise NetworkFailed("; ".join(failures))

    async def _run(self, verb: str, attachment: Attachment, plugin: Mapping[str, Any], previous: Any) -> Any:
        content = plugin_input(attachment.network, plugin, attachment.runtime_config, previous)
        parameters = {
            "CNI_CONTAINERID": attachment.container_id,
            "CNI_NETNS": attachment.netns_path,
            "CNI_IFNAME": attachment.interface,
            "CNI_ARGS": attachment.args,
        }
        return await self._invoke(verb, attachment.network, plugin, parameters, content)

    async def _invoke(
        self,
        verb: str,
        network: CniNetworkConfig,
        plugin: Mapping[str, Any],
        parameters: Mapping[str, str],
        content: Mapping[str, Any],
    ) -> Any:
        who = _who(network, plugin, verb)
        path = self.find(plugin["type"])
        if path is None:
            raise NetworkFailed(f"{who}: not found in {', '.join(map(str, self._directories))}")
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "CNI_COMMAND": verb,
            "CNI_PATH": os.pathsep.join(map(str, self._directories)),
            **parameters,
        }
        try:
            async with asyncio.timeout(self._deadline_seconds):
                status, output, errors = await _execute(path, environment, json.dumps(content).encode())
        except TimeoutError:
            raise NetworkFailed(f"{who}: no answer within {self._deadline_seconds:g} s; ended it") from None
        except OSError as error:
            raise NetworkFailed(f"{who}: cannot run {path}: {error.strerror}") from error
        return _answer(who, status, output, errors)


def _who(network: CniNetworkConfig, plugin: Mapping[str, Any], verb: str) -> str:
    return f"network {network.name}: plugin {plugin['type']} ({verb})"


def _answer(who: str, status: int, output: bytes, errors: bytes) -> Any:
    try:
        answer = json.loads(output) if output.strip() else None
    except ValueError:
        answer = None
        if status == 0:
            raise NetworkFailed(f"{who}: printed something that is not JSON: {output[:200]!r}") from None
    if status == 0:
        return answer
    if isinstance(answer, dict) and answer.get("msg"):
        details = f": {answer['details']}" if answer.get("details") else ""
        raise NetworkFailed(f"{who}: {answer['msg']}{details} (code {answer.get('code', '?')})")
    ended = f"ended by signal {-status}" if status < 0 else f"exit code {status}"
    said = (errors or output).decode(errors="replace").strip()[-_STDERR_TAIL_CHARACTERS:]
    raise NetworkFailed(f"{who}: {ended} without a CNI error{': ' + said if said else ''}")


async def _execute(path: Path, environment: Mapping[str, str], content: bytes) -> tuple[int, bytes, bytes]:
    """Run to the end. When this is cancelled, the plugin and what it started are ended first."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        path, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd="/", start_new_session=True
    )
    try:
        output, errors = await process.communicate(content)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
        raise
    return process.returncode or 0, output, errors
