"""Debian packages that the lab needs: says which are missing and installs them, without starting any service."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.paths import file_lock
from tests.lab.progress import step

POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_MARK = "# written by kubelet-py's lab while it installs packages"


class PackageError(Exception):
    """apt-get could not install what was asked for."""


def missing(*packages: str) -> list[str]:
    """Those of the packages that are not installed, in the given order."""
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages],
        text=True,
        capture_output=True,
        check=False,
    )
    installed = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def ensure(*packages: str) -> None:
    """Install what is missing. Their services are not started: the lab runs its own copies with its own roots."""
    if not missing(*packages):
        return
    with file_lock("apt"):
        wanted = missing(*packages)
        if not wanted:
            return
        with step(f"installing Debian packages: {' '.join(wanted)}"), _no_service_starts():
            if not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
                _apt_get("update")
            try:
                _apt_get("install", "--no-install-recommends", *wanted)
            except PackageError:
                _apt_get("update")
                _apt_get("install", "--no-install-recommends", *wanted)


def _apt_get(*arguments: str) -> None:
    command = ["apt-get", "--quiet", "--yes", "-o", "DPkg::Lock::Timeout=600", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-20:])
        raise PackageError(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep package scripts from starting daemons, by Debian's policy-rc.d; a policy that is there already stays."""
    ours = not POLICY.exists() or POLICY_MARK in POLICY.read_text()
    if ours:
        POLICY.write_text(f"#!/bin/sh\n{POLICY_MARK}\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)
