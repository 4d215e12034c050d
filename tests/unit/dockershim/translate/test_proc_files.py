"""What /proc says, and what a hostile container might make it say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dockershim.translate.proc_files import (
    InterfaceUse,
    parse_cgroup_paths,
    parse_interfaces,
    soft_open_files_limit,
    upper_directory,
)

NET_DEV = """Inter-|   Receive                          |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier
    lo:    1000      10    0    0    0     0          0         0     1000      10    0    0    0     0       0      0
  eth0: 1100 11 1 2 0 0 0 0 2200 22 3 4 0 0 0 0
 net1:5 6 7 8 0 0 0 0 9 10 11 12 0 0 0 0
"""
ROOT = (
    "612 480 0:55 / / rw,relatime master:3 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/AB:"
    "/var/lib/docker/overlay2/l/CD,upperdir=/var/lib/docker/overlay2/9f/diff,workdir=/var/lib/docker/overlay2/9f/work\n"
)
OTHER = "613 612 0:58 / /data rw - overlay overlay rw,lowerdir=/a,upperdir=/other,workdir=/w\n"
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max open files            1024                 524288               files
"""


def test_interfaces_without_loopback() -> None:
    """Received first, then sent; the space after the colon is not always there."""
    assert parse_interfaces(NET_DEV) == (
        InterfaceUse("eth0", 1100, 11, 1, 2, 2200, 22, 3, 4),
        InterfaceUse("net1", 5, 6, 7, 8, 9, 10, 11, 12),
    )


def test_cgroups_of_both_versions() -> None:
    """Joined controllers share a directory; a colon in a path is part of it."""
    text = "5:cpu,cpuacct:/kubepods/x\n1:name=systemd:/s\n0::/system.slice/docker-a:b.scope\n"
    assert parse_cgroup_paths(text) == {
        "cpu": "/kubepods/x",
        "cpuacct": "/kubepods/x",
        "name=systemd": "/s",
        "": "/system.slice/docker-a:b.scope",
    }


def test_the_writable_layer_is_that_of_the_root() -> None:
    """Not of another overlay; with spaces undone; and only when the path is absolute."""
    assert upper_directory(OTHER + ROOT) == "/var/lib/docker/overlay2/9f/diff"
    assert upper_directory(ROOT.replace("docker/overlay2/9f", r"do\040cker/9f")) == "/var/lib/do cker/9f/diff"
    assert upper_directory(ROOT.replace("upperdir=/var", "upperdir=var")) == ""
    assert upper_directory("612 480 0:55 / / rw - ext4 /dev/vda rw\n") == ""
    assert upper_directory("612 480 0:55 / / ro - overlay overlay ro,lowerdir=/a:/b\n") == ""


def test_the_limit_of_open_files() -> None:
    """None for no limit."""
    assert soft_open_files_limit(LIMITS) == 1024
    assert soft_open_files_limit(LIMITS.replace("1024     ", "unlimited")) is None
    assert soft_open_files_limit("") is None


@given(st.text(max_size=200) | st.sampled_from([NET_DEV, ROOT, LIMITS]).flatmap(lambda t: st.just(t[: len(t) // 2])))
def test_no_text_breaks_the_parsers(text: str) -> None:
    """Nonsense says nothing."""
    parse_cgroup_paths(text)
    assert all(interface.rx_bytes >= 0 for interface in parse_interfaces(text))
    assert upper_directory(text)[:1] in ("", "/")
    soft_open_files_limit(text)
