"""What is kept of CNI attachments: a file and a pinned network namespace for each sandbox, and the node's pod ranges.

Owns the state directory and the directory of pins. A record is written before the first plugin runs and before the
namespace is pinned, so whatever a crash leaves is found by its record. A pinned namespace lives as long as its record,
also when pause does not: a pod keeps its interface and address, and DEL finds what ADD made. All of it blocks; callers
use threads. Must not know plugins' processes. Upstream counterpart: libcni's cache, whose files are read too: a node
that changes hands gives back what its former runtime was given.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dockershim import mounting
from dockershim.network import cni_config

KIND = "cni"
_SANDBOX_ID = re.compile(r"^[0-9a-f]{12,64}$")  # other names are other programs': libcni has its cache here too
_LIBCNI_KIND = "cniCacheV1"


class AttachmentRecords:
    """The two directories."""

    def __init__(self, state_directory: Path, pin_directory: Path) -> None:
        self._state_directory = state_directory
        self._pin_directory = pin_directory

    # ---- attachments

    def begin(self, sandbox_id: str, netns_path: str, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Record an attachment and pin its namespace; the record with what was added. OSError: it cannot be."""
        pin = self._pin_directory / sandbox_id
        record = {**raw, "netns": str(pin), "netns_inode": os.stat(netns_path).st_ino}
        self._write(sandbox_id, json.dumps(record))
        mounting.bind_file(netns_path, pin)
        return record

    def find(self, sandbox_id: str) -> Mapping[str, Any] | None:
        """The record of a sandbox, ours or the one that libcni wrote for another runtime."""
        ours = _read(self._state_directory / sandbox_id)
        if ours is not None:
            return ours
        for path in self._of_libcni(sandbox_id):
            content = _read(path)
            found = from_libcni(content) if content is not None else None
            if found is not None:
                return found
        return None

    def _of_libcni(self, sandbox_id: str) -> list[Path]:
        # no glob: fnmatch keeps the expression of each pattern it ever saw, up to 32,768, and each pod has its own
        results = self._state_directory / "results"
        try:
            return sorted(results / name for name in os.listdir(results) if f"-{sandbox_id}-" in name)
        except FileNotFoundError:
            return []

    def sandbox_ids(self) -> list[str]:
        """Those that have a record of ours."""
        try:
            return [name for name in os.listdir(self._state_directory) if _SANDBOX_ID.match(name)]
        except FileNotFoundError:
            return []

    def forget(self, sandbox_id: str) -> None:
        """Let go of the namespace, then of the record."""
        mounting.remove_mount_point(self._pin_directory / sandbox_id)
        for path in (*self._of_libcni(sandbox_id), self._state_directory / sandbox_id):
            path.unlink(missing_ok=True)

    # ---- pod ranges

    def save_pod_cidrs(self, cidrs: Sequence[str]) -> None:
        """Keep them: the kubelet tells a runtime once, and not again when the runtime restarts."""
        self._write("pod-cidrs.json", json.dumps(list(cidrs)))

    def load_pod_cidrs(self) -> tuple[str, ...]:
        """The last that were kept."""
        with contextlib.suppress(OSError, ValueError):
            content = json.loads((self._state_directory / "pod-cidrs.json").read_bytes())
            return tuple(str(cidr) for cidr in content)
        return ()

    def _write(self, name: str, text: str) -> None:
        self._state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._state_directory / f".{name}"
        temporary.write_text(text)
        temporary.rename(self._state_directory / name)


def netns_of(path: str, raw: Mapping[str, Any]) -> str:
    """Where the namespace that was set up can be found now: pinned, or as long as the path (of a process) still is it.

    A process id may belong to somebody else by now.
    """
    for candidate in (str(raw.get("netns") or ""), path):
        with contextlib.suppress(OSError):
            if candidate and os.stat(candidate).st_ino == raw.get("netns_inode"):
                return candidate
    return "" if "netns_inode" in raw else path


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def from_libcni(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """A file of libcni's cache as a record of ours; None for what cannot be read, and for the loopback interface.

    The dockershim of Kubernetes and cri-dockerd attach each pod to two networks under one interface name. Loopback has
    nothing to give back; the other one does, and its file would not be the first of the two.
    """
    if content.get("kind") != _LIBCNI_KIND:
        return None
    try:
        network = cni_config.parse(base64.b64decode(content["config"], validate=True))
        if all(plugin.get("type") == "loopback" for plugin in network.plugins):
            return None
        arguments = ";".join(f"{name}={value}" for name, value in content.get("cniArgs") or ())
        return {
            "kind": KIND,
            "network": network.to_raw(),
            "interface": str(content["ifName"]),
            "args": arguments,
            "runtime_config": dict(content.get("capabilityArgs") or {}),
            "result": content.get("result"),
        }
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None
