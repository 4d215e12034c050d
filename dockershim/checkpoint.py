"""What dockershim keeps on disk of each sandbox: all that Docker does not.

Owns `<root>/sandbox/<id>`: the request, the network's result, and whether the network is up. Written before the network
is asked for anything, so that a crash leaves something to undo by. Must not know Docker or the store. Upstream
counterpart: cri-dockerd's core/checkpoint.go, whose files are read too, also where it keeps them (ports and host
network is all they hold).
Deliberate differences: one bad file is set aside and harms nothing else; the directory is synced as well.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from cri_proto import runtime_v1 as cri
from dockershim.errors import ConfigError, not_written
from dockershim.translate.views import SandboxRecord

_log = structlog.get_logger()
VERSION = "dockershim/1"
FOREIGN_VERSION = "v1"
_ID = re.compile(r"^[0-9a-f]{12,64}$")


class Checkpoints:
    """The directory of records."""

    def __init__(self, root: Path, former_root: Path | None = None) -> None:
        self._directory = root / "sandbox"
        self._former = former_root / "sandbox" if former_root is not None else None

    def prepare(self) -> None:
        """Make the directory; ConfigError when that cannot be."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        except OSError as error:
            raise ConfigError(f"--root-directory: cannot make {self._directory}: {error.strerror}") from error

    async def load_all(self) -> dict[str, SandboxRecord]:
        """Every readable record by sandbox id."""
        return await asyncio.to_thread(self._load_all)

    def _load_all(self) -> dict[str, SandboxRecord]:
        records = {}
        for path in sorted(self._directory.iterdir()):
            if path.name.endswith(".tmp"):
                path.unlink(missing_ok=True)
                continue
            if not _ID.match(path.name):
                continue
            try:
                records[path.name] = decode_record(path.name, path.read_bytes())
            except (ValueError, OSError) as error:
                aside = path.with_name(f"{path.name}.unreadable")
                _log.error("checkpoint_unreadable", path=str(path), error=str(error), moved_to=str(aside))
                with contextlib.suppress(OSError):
                    path.rename(aside)
        return {**self._load_former(), **records}

    def _load_former(self) -> dict[str, SandboxRecord]:
        records: dict[str, SandboxRecord] = {}
        if self._former is None or self._former == self._directory or not self._former.is_dir():
            return records
        for path in self._former.iterdir():
            if _ID.match(path.name):
                try:
                    records[path.name] = decode_record(path.name, path.read_bytes())
                except (ValueError, OSError) as error:  # not ours to move: Docker's labels say the rest
                    _log.warning("former_checkpoint_unreadable", path=str(path), error=str(error))
        return records

    async def save(self, record: SandboxRecord, *, durable: bool = True) -> None:
        """Write a record so that it survives our own end at any moment; a durable one also that of the machine.

        The first record of a sandbox is durable: it says that there may be something to give back. What is added later
        (addresses, a torn-down network) is about processes that do not outlive the machine either, and losing it costs
        at most a second tear-down; waiting for the disk would cost each pod's start.
        """
        await asyncio.to_thread(self._save, record, durable)

    def _save(self, record: SandboxRecord, durable: bool) -> None:
        path = self._directory / record.id
        temporary = path.with_name(f"{record.id}.tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(encode_record(record))
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.rename(path)
            if durable:
                self._sync_directory()
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise not_written(str(path), error) from error

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    async def delete(self, sandbox_id: str) -> None:
        """Forget a sandbox; one without a record is fine."""
        if _ID.match(sandbox_id):
            await asyncio.to_thread(self._delete, sandbox_id)

    def _delete(self, sandbox_id: str) -> None:
        for directory in filter(None, (self._directory, self._former)):
            (directory / sandbox_id).unlink(missing_ok=True)


def encode_record(record: SandboxRecord) -> bytes:
    """A record as bytes: readable where a person may want to look, exact in `config`."""
    metadata = record.config.metadata
    body = {
        "version": VERSION,
        "name": metadata.name,
        "namespace": metadata.namespace,
        "uid": metadata.uid,
        "attempt": metadata.attempt,
        "config": base64.b64encode(record.config.SerializeToString()).decode(),
        "runtime_handler": record.runtime_handler,
        "created_at_ns": record.created_at_ns,
        "network_ready": record.network_ready,
        "network_torn_down": record.network_torn_down,
        "ips": list(record.ips),
        "network": dict(record.raw),
        "foreign": record.foreign,
    }
    return json.dumps(body, indent=1).encode()


def decode_record(sandbox_id: str, data: bytes) -> SandboxRecord:
    """Read ours or cri-dockerd's; ValueError says what is wrong."""
    body = json.loads(data)
    if not isinstance(body, dict):
        raise ValueError("not a JSON object")
    if body.get("version") == FOREIGN_VERSION:
        return _decode_foreign(sandbox_id, body)
    if body.get("version") != VERSION:
        raise ValueError(f"version {body.get('version')!r}: want {VERSION!r} or {FOREIGN_VERSION!r}")
    try:
        config = cri.PodSandboxConfig.FromString(base64.b64decode(body["config"], validate=True))
        return SandboxRecord(
            id=sandbox_id,
            config=config,
            runtime_handler=str(body["runtime_handler"]),
            created_at_ns=int(body["created_at_ns"]),
            network_ready=bool(body["network_ready"]),
            network_torn_down=bool(body["network_torn_down"]),
            ips=tuple(str(ip) for ip in body["ips"]),
            raw=dict(body["network"]),
            foreign=bool(body.get("foreign", False)),
        )
    except (KeyError, TypeError, binascii.Error, DecodeError) as error:
        raise ValueError(f"a field is missing or wrong: {error!r}") from error


def _decode_foreign(sandbox_id: str, body: dict[str, Any]) -> SandboxRecord:
    data = body.get("data")
    data = data if isinstance(data, dict) else {}
    config = cri.PodSandboxConfig()
    config.metadata.name = str(body.get("name") or "")
    config.metadata.namespace = str(body.get("namespace") or "")
    if data.get("host_network"):
        config.linux.security_context.namespace_options.network = cri.NamespaceMode.NODE
    for mapping in data.get("port_mappings") or ():
        protocol = str(mapping.get("protocol") or "TCP").upper()
        if protocol not in ("TCP", "UDP", "SCTP"):
            raise ValueError(f"port mapping with protocol {protocol!r}")
        config.port_mappings.add(
            protocol=cri.Protocol.Value(protocol),
            container_port=int(mapping.get("container_port") or 0),
            host_port=int(mapping.get("host_port") or 0),
            host_ip=str(mapping.get("host_ip") or ""),
        )
    return SandboxRecord(id=sandbox_id, config=config, network_ready=True, foreign=True)
