"""A pod's manifest on its way into the agent's manifest directory.

Owns the check, which is the agent's own, so that what passes here runs there; the search for another file with the same
pod, of which the agent would take only one; and that no half of a file is left behind. The directory is read as
`sync.sources.manifest_directory` does.
"""

import socket
from dataclasses import dataclass
from pathlib import Path

from kubelet_py.api.pod import SOURCE_FILE
from kubelet_py.cli.local_node import CommandError
from kubelet_py.core.manifest import read_manifest
from kubelet_py.core.problems import ManifestError
from kubelet_py.core.static_pod import StaticOrigin, static_pods_of


@dataclass(frozen=True, slots=True)
class CheckedPod:
    """A pod as its manifest names it, without the node's name, and what its author should hear of."""

    namespace: str
    name: str
    warnings: tuple[str, ...] = ()


def checked_pod(data: bytes, source: str) -> CheckedPod:
    """The pod of a manifest that the agent would take. Raises CommandError with everything that is wrong."""
    # The agent may be called otherwise with --hostname-override, which no configuration file says.
    origin = StaticOrigin(socket.gethostname(), SOURCE_FILE, source)
    try:
        warnings = static_pods_of(data, origin).warnings
        namespace, name = _stated_name(data)
    except ManifestError as error:
        raise CommandError("\n".join(f"{source}: {problem}" for problem in error.problems)) from error
    return CheckedPod(namespace, name, tuple(str(warning) for warning in warnings))


def holder_of(directory: Path, pod: CheckedPod, target: Path) -> Path | None:
    """The file, other than `target`, in which a pod of that name stands already."""
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or path == target or not path.is_file():
            continue
        try:
            if _stated_name(path.read_bytes()) == (pod.namespace, pod.name):
                return path
        except (OSError, ManifestError):
            continue  # the agent runs no pod from it either
    return None


def put_manifest(data: bytes, target: Path) -> None:
    """The file, whole or not at all."""
    # a name that begins with a dot is not read, so the agent never sees half a manifest
    unfinished = target.with_name(f".{target.name}.new")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _stated_name(data: bytes) -> tuple[str, str]:
    metadata = read_manifest(data).pods[0].metadata
    return (metadata.namespace or "default", metadata.name or "") if metadata is not None else ("default", "")
