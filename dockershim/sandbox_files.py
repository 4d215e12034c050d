"""Where the /etc files of pods are that Docker makes none for: `<root>/etc/<sandbox id>`.

Made when a pod's first container asks for them, from the sandbox's record, and never again: the containers may have
written to them. Must not know Docker. Upstream counterpart: setupSandboxFiles of containerd's CRI plugin.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from cri_proto import runtime_v1 as cri
from dockershim.errors import not_written
from dockershim.translate import etc_files
from dockershim.translate.views import SandboxView

_SHORT_ID = 12
"""How much of its id is the host name of a container that has no other."""


class SandboxFiles:
    """The directory of all of them."""

    def __init__(self, root: Path, node_resolv_conf: Path = Path("/etc/resolv.conf")) -> None:
        self._directory = root / etc_files.DIRECTORY
        self._node_resolv_conf = node_resolv_conf
        self._made_here: set[str] = set()

    async def mounts(self, sandbox: SandboxView, config: cri.ContainerConfig) -> list[cri.Mount]:
        """What a new container mounts, with the files there; nothing where Docker makes them.

        EngineFailed or ResourceExhausted with the path where they cannot be written.
        """
        if not sandbox.network_disabled:
            return []
        await asyncio.to_thread(self._ensure, sandbox)
        readonly = config.linux.security_context.readonly_rootfs
        return etc_files.mounts(str(self._directory / sandbox.id), config.mounts, readonly=readonly)

    def _ensure(self, sandbox: SandboxView) -> None:
        directory = self._directory / sandbox.id
        self._made_here.add(sandbox.id)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for name in etc_files.NAMES:
                if not (directory / name).exists():
                    _create(directory / name, self._content(name, sandbox))
        except OSError as error:
            raise not_written(f"the pod's files in {directory}", error) from error

    def _content(self, name: str, sandbox: SandboxView) -> bytes:
        config = sandbox.record.config if sandbox.record else cri.PodSandboxConfig()
        if name == etc_files.HOSTS:
            ips = sandbox.record.ips if sandbox.record else ()
            return etc_files.render_hosts(config.hostname or sandbox.id[:_SHORT_ID], ips).encode()
        if config.HasField("dns_config"):
            return etc_files.render_resolv_conf(config.dns_config).encode()
        try:
            return self._node_resolv_conf.read_bytes()
        except FileNotFoundError:
            return b""  # a node without name servers has pods without

    async def delete(self, sandbox_id: str) -> None:
        """Forget a sandbox; one without files is fine."""
        self._made_here.discard(sandbox_id)
        await asyncio.to_thread(shutil.rmtree, self._directory / sandbox_id, ignore_errors=True)

    async def retain(self, sandbox_ids: Collection[str]) -> None:
        """Forget what an earlier process made, but these."""
        await asyncio.to_thread(self._retain, frozenset(sandbox_ids))

    def _retain(self, sandbox_ids: frozenset[str]) -> None:
        if self._directory.is_dir():
            for path in self._directory.iterdir():
                if path.name not in sandbox_ids and path.name not in self._made_here:
                    shutil.rmtree(path, ignore_errors=True)


def _create(path: Path, content: bytes) -> None:
    """Whole or not at all, and by the first of those who want it: what a container has mounted must not be replaced."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as file:
        file.write(content)
        file.flush()
        Path(file.name).chmod(0o644)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(file.name)
