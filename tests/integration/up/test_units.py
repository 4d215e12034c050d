"""The systemd units are accepted by systemd itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import debian

UNITS = Path(__file__).resolve().parents[3] / "systemd"

pytestmark = pytest.mark.lab


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    """Unknown directives, missing units and bad values would be printed. Only the programs' place is changed."""
    debian.ensure("systemd")
    copies = []
    for unit in UNITS.iterdir():
        text = unit.read_text()
        for program in ("kubelet-py", "dockershim"):
            text = text.replace(f"/usr/local/bin/{program}", sys.executable)
        copies.append(tmp_path / unit.name)
        copies[-1].write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, copies)], text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


MOUNT_NAMESPACE = (
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "ReadWritePaths",
    "ReadOnlyPaths",
    "InaccessiblePaths",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectKernelLogs",
    "ProtectControlGroups",
    "PrivateDevices",
    "PrivateMounts",
    "DynamicUser",
)


@pytest.mark.parametrize(
    ("unit", "directive"),
    [
        *((unit, directive) for unit in ("kubelet-py", "dockershim") for directive in MOUNT_NAMESPACE),
        ("kubelet-py", "RestrictSUIDSGID"),
    ],
)
def test_a_unit_gets_no_mount_namespace_of_its_own(unit: str, directive: str) -> None:
    """What it mounts must be seen by the runtime, or by Docker; and fsGroup must be able to set the setgid bit."""
    lines = (UNITS / f"{unit}.service").read_text().splitlines()
    assert not [line for line in lines if line.startswith(f"{directive}=")]
