"""The two images of the standalone node, made on the spot from Debian's static busybox: no registry is asked.

Owns their content and the docker-archive format. The names are our own, so that nothing on the machine mistakes them
for published images. Knows no engine.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PAUSE = "kubelet-py.local/pause:1"
HELLO = "kubelet-py.local/hello:1"
BUSYBOX = Path("/bin/busybox")
_APPLETS = (
    "sh",
    "ls",
    "cat",
    "ps",
    "sleep",
    "date",
    "hostname",
    "wget",
    "httpd",
    "ip",
    "echo",
    "env",
    "id",
    "kill",
    "vi",
)
_PAGE = "<h1>Hello from a pod</h1><p>Served by busybox httpd, started by kubelet-py.</p>\n"
_PAUSE_SCRIPT = """trap 'exit 0' TERM INT
while :; do sleep 1000000 & wait $!; done
"""
"""The first process of a pod: it ends at once when asked to, and reaps what its pod leaves behind."""
_HELLO_SCRIPT = """trap 'echo "$(date -u +%T) hello was asked to stop"; exit 0' TERM INT
echo "$(date -u +%T) hello from $(hostname), serving on port 8080"
httpd -p 8080 -h /www
while :; do sleep 30 & wait $!; echo "$(date -u +%T) still here"; done
"""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class File:
    """One file of an image."""

    content: bytes
    mode: int = 0o644


def archive(reference: str) -> bytes:
    """A docker-archive of the image: what `docker load` and `ctr images import` read."""
    busybox = BUSYBOX.read_bytes()
    if reference == PAUSE:
        files = {"bin/busybox": File(busybox, 0o755), "pause.sh": File(_PAUSE_SCRIPT.encode())}
        return _archive(reference, files, (), ("/bin/busybox", "sh", "/pause.sh"))
    files = {
        "bin/busybox": File(busybox, 0o755),
        "hello.sh": File(_HELLO_SCRIPT.encode()),
        "www/index.html": File(_PAGE.encode()),
        "etc/passwd": File(b"root:x:0:0:root:/root:/bin/sh\n"),
        "etc/group": File(b"root:x:0:\n"),
    }
    return _archive(reference, files, _APPLETS, ("/bin/sh", "/hello.sh"))


def _archive(reference: str, files: Mapping[str, File], applets: Sequence[str], command: Sequence[str]) -> bytes:
    layer = _tar(files, {f"bin/{applet}": "busybox" for applet in applets})
    machine = os.uname().machine
    configuration = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {"Entrypoint": list(command), "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "kubelet-py make up"}],
    }
    described = json.dumps(configuration, sort_keys=True).encode()
    name = f"{hashlib.sha256(described).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]
    parts = {name: described, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    return _tar({path: File(content) for path, content in parts.items()}, {})


def _tar(files: Mapping[str, File], links: Mapping[str, str]) -> bytes:
    """A reproducible tar: no times, owned by root, directories before what is in them."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for directory in sorted({str(parent) for path in files for parent in Path(path).parents} - {"."}):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for path, file in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(file.content), file.mode
            tar.addfile(entry, io.BytesIO(file.content))
        for path, target in sorted(links.items()):
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return sink.getvalue()
