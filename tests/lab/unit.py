"""A program that a suite may stop, start and restart by `systemctl`, in a lab host that has no systemd.

Owns the directory of the stand-ins (unit.sh under three names). One unit for a lab; its name is kubelet-lab.service.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.lab.sandbox import BASE_PATH, Sandbox

SCRIPT = Path(__file__).with_name("unit.sh")


class Unit:
    """`command` goes before the program's own words; `path` is for whoever calls systemctl."""

    def __init__(self, lab: Sandbox) -> None:
        directory = lab.root / "unit"
        directory.mkdir()
        for name in ("supervise", "systemctl", "sudo"):
            shutil.copyfile(SCRIPT, directory / name)
            (directory / name).chmod(0o755)
        (directory / "wanted").touch()
        self.command = [str(directory / "supervise"), str(directory)]
        self.path = f"{directory}:{BASE_PATH}"
