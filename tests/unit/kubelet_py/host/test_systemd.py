"""The systemd protocol: readiness over a real datagram socket, watchdog intervals, handed-over sockets."""

import os
import socket
from pathlib import Path

import pytest

from kubelet_py.errors import ConfigError
from kubelet_py.host import systemd


@pytest.mark.parametrize("abstract", [False, True])
def test_a_notification_arrives_as_one_datagram(tmp_path: Path, abstract: bool) -> None:
    """At a path and at an abstract address."""
    address = f"@kubelet-py-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{address[1:]}" if abstract else address)
        notifier = systemd.notifier_from({"NOTIFY_SOCKET": address})
        assert notifier.notify(systemd.READY, "STATUS=3 pods")
        assert manager.recv(100) == b"READY=1\nSTATUS=3 pods"


def test_without_a_service_manager_nothing_happens(tmp_path: Path) -> None:
    """No address, and an address where nobody listens."""
    assert not systemd.notifier_from({}).notify(systemd.READY)
    assert not systemd.Notifier(str(tmp_path / "nobody")).notify(systemd.READY)


def test_the_watchdog_is_fed_at_half_its_time() -> None:
    """And only by the process that is watched."""
    assert systemd.watchdog_interval_seconds({"WATCHDOG_USEC": "30000000"}, 7) == 15
    assert systemd.watchdog_interval_seconds({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 7) == 15
    assert systemd.watchdog_interval_seconds({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 7) is None
    assert systemd.watchdog_interval_seconds({}, 7) is None


@pytest.mark.parametrize("text", ["soon", "0", "-5", "1000000"])
def test_a_watchdog_time_that_cannot_be_kept_stops_the_start(text: str) -> None:
    """As upstream."""
    with pytest.raises(ConfigError, match="WATCHDOG_USEC"):
        systemd.watchdog_interval_seconds({"WATCHDOG_USEC": text}, 7)


def test_sockets_for_another_process_are_left_alone() -> None:
    """LISTEN_PID decides."""
    assert systemd.listen_fds({"LISTEN_PID": "8", "LISTEN_FDS": "1"}, 7) == {}
    assert systemd.listen_fds({}, 7) == {}


def test_handed_over_sockets_are_named_and_kept_from_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """By LISTEN_FDNAMES; descriptors begin at 3."""
    read, write = os.pipe()
    first = min(read, write)
    second = max(read, write)
    monkeypatch.setattr(systemd, "_FIRST_LISTEN_FD", first)
    os.set_inheritable(first, True)
    try:
        assert systemd.listen_fds({"LISTEN_PID": "7", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "cri"}, 7) == {"cri": first}
        assert not os.get_inheritable(first)
        assert systemd.listen_fds({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, 7) == {str(first): first}
    finally:
        os.close(first)
        os.close(second)
