"""Image layers: tar files with the same bytes for the same content, built once and cached by their recipe's key.

Owns how a layer is written. What goes into which layer is the catalog's; where Debian files come from is `debs`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.lab.paths import cache_dir, file_lock
from tests.lab.progress import step

FORMAT = 1
"""Raise it to have every cached layer made anew."""
EPOCH = 1_700_000_000
MERGED = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")
"""Top-level directories that are links into /usr on Debian 12."""


class LayerWriter:
    """Adds entries to a layer; a path that is written twice keeps its first content."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._seen: set[str] = set()

    def directory(self, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """A directory."""
        self._add(_entry(path, tarfile.DIRTYPE, mode, uid, gid))

    def file(self, path: str, content: bytes | Path, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """A regular file, from bytes or copied from a file of the machine."""
        entry = _entry(path, tarfile.REGTYPE, mode, uid, gid)
        if isinstance(content, bytes):
            entry.size = len(content)
            self._add(entry, io.BytesIO(content))
        else:
            entry.size = content.stat().st_size
            with content.open("rb") as source:
                self._add(entry, source)

    def symlink(self, path: str, target: str) -> None:
        """A symbolic link."""
        entry = _entry(path, tarfile.SYMTYPE, 0o777)
        entry.linkname = target
        self._add(entry)

    def hard_link(self, path: str, target: str) -> None:
        """A hard link to a file of the same layer."""
        entry = _entry(path, tarfile.LNKTYPE, 0o755)
        entry.linkname = merged(target)
        self._add(entry)

    def copy(self, member: tarfile.TarInfo, source: IO[bytes] | None) -> None:
        """An entry of another tar file."""
        entry = _entry(member.name, member.type, member.mode, member.uid, member.gid)
        entry.size = member.size
        entry.linkname = merged(member.linkname) if member.islnk() else member.linkname
        entry.devmajor, entry.devminor = member.devmajor, member.devminor
        self._add(entry, source)

    def _add(self, entry: tarfile.TarInfo, content: IO[bytes] | None = None) -> None:
        if entry.name in self._seen or not entry.name:
            return
        self._seen.add(entry.name)
        self._tar.addfile(entry, content)


def merged(path: str) -> str:
    """A path as Debian 12 has it, with /bin, /lib and so on below /usr; no leading ./ or /."""
    clean = os.path.normpath(path).lstrip("/")
    first, _, _ = clean.partition("/")
    if clean == ".":
        return ""
    return f"usr/{clean}" if first in MERGED and clean != first else clean


def _entry(path: str, kind: bytes, mode: int, uid: int = 0, gid: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(merged(path))
    entry.type, entry.mode, entry.uid, entry.gid, entry.mtime = kind, mode, uid, gid, EPOCH
    return entry


@dataclass(frozen=True)
class Layer:
    """A recipe: `key` names everything that decides the content, `write` makes it."""

    name: str
    key: str
    write: Callable[[LayerWriter], None]


@dataclass(frozen=True)
class Blob:
    """A built layer: the tar file as engines unpack it, and its compressed form as registries serve it."""

    tar: Path
    diff_id: str
    compressed: Path
    digest: str
    size: int


def sha256_of(path: Path) -> str:
    """The digest of a file in the form sha256:<hex>."""
    with path.open("rb") as source:
        return f"sha256:{hashlib.file_digest(source, 'sha256').hexdigest()}"


def build(layer: Layer) -> Blob:
    """The built layer, from the cache when it is there."""
    short = hashlib.sha256(f"{FORMAT} {layer.name} {layer.key}".encode()).hexdigest()[:16]
    directory = cache_dir() / "images" / "layers"
    tar, compressed, facts = (directory / f"{layer.name}-{short}.{suffix}" for suffix in ("tar", "tar.gz", "json"))
    with file_lock(f"layer-{layer.name}-{short}"):
        if not facts.exists():
            directory.mkdir(parents=True, exist_ok=True)
            with step(f"making image layer {layer.name}"):
                with tarfile.open(tar, "w", format=tarfile.GNU_FORMAT) as archive:
                    layer.write(LayerWriter(archive))
                with (
                    tar.open("rb") as source,
                    compressed.open("wb") as sink,
                    gzip.GzipFile("", "wb", compresslevel=4, fileobj=sink, mtime=0) as packed,
                ):
                    while chunk := source.read(1 << 20):
                        packed.write(chunk)
                described = {"diff_id": sha256_of(tar), "digest": sha256_of(compressed)}
                partial = facts.with_suffix(f".{os.getpid()}")
                partial.write_text(json.dumps(described))
                partial.rename(facts)
    described = json.loads(facts.read_text())
    return Blob(tar, described["diff_id"], compressed, described["digest"], compressed.stat().st_size)
