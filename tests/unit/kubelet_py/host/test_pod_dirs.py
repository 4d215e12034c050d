"""The layout of pod directories, and the files the agent writes there."""

import os
from pathlib import Path

import pytest

from kubelet_py.host.pod_dirs import PodDirs


def test_the_layout_that_other_programs_know(tmp_path: Path) -> None:
    dirs = PodDirs(tmp_path)
    assert dirs.list_pod_uids() == []
    dirs.ensure_pods()
    pod = dirs.ensure_pod("u1")
    assert pod == tmp_path / "pods" / "u1"
    assert sorted(os.listdir(pod)) == ["plugins", "volumes"]
    assert dirs.volume("u1", "kubernetes.io/empty-dir", "v") == pod / "volumes" / "kubernetes.io~empty-dir" / "v"
    assert dirs.subpath("u1", "v", "c", 3) == pod / "volume-subpaths" / "v" / "c" / "3"
    assert dirs.list_pod_uids() == ["u1"]


@pytest.mark.parametrize("uid", ["", ".", "..", "a/b", "../x"])
def test_a_uid_cannot_lead_elsewhere(tmp_path: Path, uid: str) -> None:
    with pytest.raises(ValueError, match="cannot name a pod directory"):
        PodDirs(tmp_path).pod(uid)


def test_the_hosts_file_keeps_its_inode_because_containers_hold_it(tmp_path: Path) -> None:
    dirs = PodDirs(tmp_path)
    path = dirs.write_etc_hosts("u1", "one\n")
    first = path.stat()
    assert dirs.write_etc_hosts("u1", "one\n").stat().st_mtime_ns == first.st_mtime_ns
    second = dirs.write_etc_hosts("u1", "two\n").stat()
    assert (second.st_ino, path.read_text()) == (first.st_ino, "two\n")


def test_each_attempt_gets_a_termination_log_of_its_own_that_any_user_can_write(tmp_path: Path) -> None:
    dirs = PodDirs(tmp_path)
    one, two = dirs.make_termination_log("u1", "c"), dirs.make_termination_log("u1", "c")
    assert one != two
    assert len(one.name) == 8
    assert one.stat().st_mode & 0o777 == 0o666
