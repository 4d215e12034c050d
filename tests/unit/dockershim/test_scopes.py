"""Telling systemd of limits, where there is no systemd. The real one is told in tests/machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockershim import host, scopes
from dockershim.errors import EngineFailed


async def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message says of which unit."""
    monkeypatch.setitem(os.environ, "DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    with pytest.raises(EngineFailed, match=r"limits of docker-x\.scope over D-Bus"):
        await scopes.set_unit_properties("docker-x.scope", [("MemoryMin", ("t", 0))])


async def test_who_is_in_no_scope_is_no_business_of_systemds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It would fail here."""
    monkeypatch.setitem(os.environ, "DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    for pid in (0, os.getpid(), 2**22 + 1):
        await host.tell_systemd(pid, [("MemoryMin", ("t", 0))])
