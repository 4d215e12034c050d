"""Where the lab keeps things: the cache that outlives a run, the root directories of labs, and file locks.

Owns every path that is shared between runs. Nothing in the source tree is written at run time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def cache_dir() -> Path:
    """The directory for everything that is slow to make: built tools, module caches, image storage."""
    configured = os.environ.get("KUBELET_PY_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "kubelet-py"


def labs_dir() -> Path:
    """The directory that holds one directory per running lab; short, for the 108 bytes of a Unix socket path."""
    configured = os.environ.get("KUBELET_PY_LABS")
    return Path(configured) if configured else Path("/tmp/kubelet-py-labs")


@contextlib.contextmanager
def file_lock(name: str) -> Iterator[None]:
    """Hold an exclusive lock shared by all processes that use this cache; freed by the kernel if the holder dies."""
    directory = cache_dir() / "locks"
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
