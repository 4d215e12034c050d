"""Debian packages as image content: unpacked straight from the .deb files into a layer, nothing is installed.

Owns the choice of packages (the closure that apt would install on an empty system), their download, and what a
package's scripts would have done where an image needs it (passwd, links). Whatever needs a package's scripts
otherwise is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.lab.images.layers import MERGED, LayerWriter
from tests.lab.paths import cache_dir, file_lock
from tests.lab.progress import step

LEFT_OUT = (
    "usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/", "usr/share/lintian/",
    "usr/share/zoneinfo/", "usr/share/bash-completion/", "usr/share/perl", "usr/lib/x86_64-linux-gnu/gconv/",
    "usr/lib/systemd/", "usr/lib/udev/",
)  # fmt: skip
SKIPPED = (
    "perl", "perl-base", "perl-modules-5.36", "libperl5.36", "libgdbm6", "libgdbm-compat4", "dpkg", "tar", "debconf",
    "gcc-12-base", "ucf", "sensible-utils", "util-linux-extra", "media-types",
)  # fmt: skip
"""What packages depend on for their scripts only."""
EMPTY_SYSTEM = ("apt-get", "-o", "Dir::State::status=/dev/null", "-o", "Debug::NoLocking=1")
DOWNLOAD = ("apt-get", "--quiet", "-o", "APT::Sandbox::User=root", "download")
_INSTALLED = re.compile(r"^Inst (\S+) \((\S+) .*\[(\S+)\]\)", re.MULTILINE)


def closure(simulated: str) -> list[tuple[str, str]]:
    """Names and versions from the output of `apt-get install --simulate`; pure."""
    return [(name, version) for name, version, _ in _INSTALLED.findall(simulated)]


def fetch(*packages: str) -> list[Path]:
    """The .deb files of these packages and all they depend on, downloaded once."""
    with file_lock("debs"):
        simulated = subprocess.run(
            [*EMPTY_SYSTEM, "install", "--simulate", "--no-install-recommends", *packages],
            text=True,
            capture_output=True,
            check=True,
            env={**os.environ, "LC_ALL": "C"},
        )
        directory = cache_dir() / "debs"
        directory.mkdir(parents=True, exist_ok=True)
        found: list[Path] = []
        wanted: list[str] = []
        for name, version in closure(simulated.stdout):
            if name in SKIPPED:
                continue
            present = list(directory.glob(f"{name}_{version.replace(':', '%3a')}_*.deb"))
            found += present
            wanted += [] if present else [f"{name}={version}"]
        if wanted:
            with step(f"downloading {len(wanted)} Debian packages"):
                subprocess.run([*DOWNLOAD, *wanted], cwd=directory, check=True, stdout=subprocess.DEVNULL)
            for item in wanted:
                name, version = item.split("=", 1)
                found += directory.glob(f"{name}_{version.replace(':', '%3a')}_*.deb")
        return found


def add_packages(layer: LayerWriter, *packages: str) -> None:
    """Write the files of these packages and all they depend on."""
    for archive in fetch(*packages):
        with (
            subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as unpacked,
            tarfile.open(fileobj=unpacked.stdout, mode="r|") as content,
        ):
            for member in content:
                name = os.path.normpath(member.name)
                if name not in MERGED and not name.startswith(LEFT_OUT):
                    layer.copy(member, content.extractfile(member) if member.isreg() else None)
        if unpacked.returncode:
            raise RuntimeError(f"{archive} cannot be unpacked")


def add_system(layer: LayerWriter, users: Sequence[str] = (), groups: Sequence[str] = ()) -> None:
    """What Debian's installer and package scripts would make of an empty root: links, passwd, directories."""
    for name in MERGED[:4]:
        layer.symlink(name, f"usr/{name}")
    for path, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("root", 0o700), ("run", 0o755)):
        layer.directory(path, mode)
    for path in ("dev", "proc", "sys", "mnt", "opt", "home", "srv", "var/log", "var/lib", "var/cache"):
        layer.directory(path)
    layer.symlink("var/run", "/run")
    layer.file("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
    add_accounts(layer, users, groups)


def add_accounts(layer: LayerWriter, users: Sequence[str] = (), groups: Sequence[str] = ()) -> None:
    """Debian's /etc/passwd and /etc/group (root, www-data, nobody, ...) with further entries."""
    with tempfile.TemporaryDirectory() as scratch:
        for archive in fetch("base-passwd"):
            if archive.name.startswith("base-passwd_"):
                subprocess.run(["dpkg-deb", "-x", str(archive), scratch], check=True)
        for name, extra in (("passwd", users), ("group", groups)):
            standard = (Path(scratch) / "usr/share/base-passwd" / f"{name}.master").read_text()
            layer.file(f"etc/{name}", (standard + "".join(f"{line}\n" for line in extra)).encode())


def busybox_applets() -> tuple[bytes, list[str]]:
    """Debian's dynamic busybox program and the paths of its applets."""
    with tempfile.TemporaryDirectory() as scratch:
        for archive in fetch("busybox"):
            subprocess.run(["dpkg-deb", "-x", str(archive), scratch], check=True)
        program = next(path for path in Path(scratch).glob("**/bin/busybox"))
        loader = next(Path(scratch).glob("lib/*/ld-linux*.so.*"))
        listed = subprocess.run(
            [str(loader), "--library-path", str(loader.parent), str(program), "--list-full"],
            text=True,
            capture_output=True,
            check=True,
        )
        return program.read_bytes(), listed.stdout.split()
