"""Slices are started once, told of changes after that, and stopped. The real systemd is asked in tests/machine."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from kubelet_py.core.cgroup_rules import CgroupLimits
from kubelet_py.core.slice_rules import Property
from kubelet_py.host import systemd_slices
from kubelet_py.host.cgroups import CgroupTree
from kubelet_py.host.systemd_slices import SliceTree, SystemdError, SystemdManager

POD = "/kubepods.slice/kubepods-podu.slice"
UNIT = "kubepods-podu.slice"


class Systemd(SystemdManager):
    """Makes and removes directories, as systemd does."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.units: dict[str, dict[str, object]] = {}
        self.calls: list[str] = []
        self.is_slow = False
        self.errors_of = {"NoSuchUnit": "systemd1", "InvalidArgs": "DBus.Error"}

    def start_slice(self, unit: str, properties: Iterable[Property]) -> None:
        self.calls.append(f"start {unit}")
        if unit in self.units:
            raise SystemdError(f"Unit {unit} was already loaded", "org.freedesktop.systemd1.UnitExists")
        self.units[unit] = dict(properties)
        if not self.is_slow:
            self.directory(unit).mkdir(parents=True)

    def set_properties(self, unit: str, properties: Iterable[Property]) -> None:
        self.calls.append(f"set {unit}")
        if unit not in self.units:
            kind = "NoSuchUnit" if "." in unit else "InvalidArgs"
            raise SystemdError(f"Unit {unit} not loaded", f"org.freedesktop.{self.errors_of[kind]}.{kind}")
        self.units[unit] |= dict(properties)

    def stop(self, unit: str) -> None:
        self.calls.append(f"stop {unit}")
        if self.units.pop(unit, None) is None:
            raise SystemdError(f"Unit {unit} not loaded", "org.freedesktop.systemd1.NoSuchUnit")
        self.directory(unit).rmdir()

    def directory(self, unit: str) -> Path:
        return self.root / "kubepods.slice" / unit


@pytest.fixture
def systemd(tmp_path: Path) -> Systemd:
    return Systemd(tmp_path)


@pytest.fixture
def tree(systemd: Systemd) -> SliceTree:
    return SliceTree(CgroupTree(systemd.root), systemd)


def test_a_slice_is_started_with_its_limits(systemd: Systemd, tree: SliceTree) -> None:
    tree.ensure(POD, CgroupLimits(memory_bytes=64))
    assert systemd.calls == [f"start {UNIT}"]
    assert systemd.units[UNIT]["MemoryMax"] == ("t", 64)
    assert systemd.units[UNIT]["MemoryAccounting"] == ("b", True)


def test_one_that_is_there_is_told_what_changed(systemd: Systemd, tree: SliceTree) -> None:
    """Such as one of a life before this one."""
    tree.ensure(POD, CgroupLimits(memory_bytes=64))
    tree.ensure(POD, CgroupLimits(memory_bytes=128))
    tree.ensure(POD)
    assert systemd.calls == [f"start {UNIT}", f"start {UNIT}", f"set {UNIT}", f"start {UNIT}"]
    assert systemd.units[UNIT]["MemoryMax"] == ("t", 128)


def test_the_limits_of_who_was_made_by_others_are_told_too(systemd: Systemd, tree: SliceTree) -> None:
    """Where systemd does not know the cgroup, or its name is no unit's, the files are all there is."""
    for name in ("daemons.slice", "gone.slice", "daemons"):
        directory = systemd.root / name
        directory.mkdir()
        (directory / "cgroup.controllers").write_text("memory")
        if name == "daemons.slice":
            systemd.units[name] = {}
        tree.update(f"/{name}", CgroupLimits(memory_bytes=4096))
        assert (directory / "memory.max").read_text() == "4096"
    assert systemd.units == {"daemons.slice": {"MemoryMax": ("t", 4096)}}
    systemd.errors_of["NoSuchUnit"] = "else"
    with pytest.raises(SystemdError):
        tree.update("/gone.slice", CgroupLimits(memory_bytes=1))


def test_removed_again_is_fine(systemd: Systemd, tree: SliceTree) -> None:
    """What systemd left of it goes as well."""
    tree.ensure(POD)
    tree.remove(POD)
    (systemd.root / POD.strip("/") / "left").mkdir(parents=True)
    tree.remove(POD)
    assert not (systemd.root / POD.strip("/")).exists()


def test_a_refusal_is_told(systemd: Systemd, tree: SliceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(unit: str, properties: Iterable[Property]) -> None:
        raise SystemdError(f"systemd refused StartTransientUnit of {unit}: Access denied", "AccessDenied")

    monkeypatch.setattr(systemd, "start_slice", refuse)
    with pytest.raises(OSError, match="Access denied"):
        tree.ensure(POD)


def test_a_slice_that_does_not_start_is_told(
    systemd: Systemd, tree: SliceTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd_slices, "START_SECONDS", 0.0)
    systemd.is_slow = True
    with pytest.raises(OSError, match=f"did not start {UNIT}"):
        tree.ensure(POD)


def test_without_systemd_the_setting_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message says what is missing and which setting wants it."""
    monkeypatch.setitem(os.environ, "DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    for _ in range(2):
        with pytest.raises(SystemdError, match="cgroupDriver systemd needs it"):
            SystemdManager().stop(UNIT)
