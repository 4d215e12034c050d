"""Small things of the host."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from dockershim import host
from dockershim.errors import EngineFailed, InvalidArgument
from dockershim.translate.users import ContainerUser


async def test_resolv_conf_is_written_in_place(tmp_path: Path) -> None:
    """The containers have the file itself mounted: the inode stays."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 9.9.9.9\n" * 50)
    before = path.stat().st_ino
    await host.write_resolv_conf(str(path), cri.DNSConfig(servers=["1.1.1.1"]))
    assert (path.read_text(), path.stat().st_ino) == ("nameserver 1.1.1.1\n", before)
    with pytest.raises(EngineFailed, match="nowhere"):
        await host.write_resolv_conf(str(tmp_path / "nowhere"), cri.DNSConfig())


async def test_mount_sources(tmp_path: Path) -> None:
    """Made when missing; a way through a file and a link to nothing are refused by the field."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    await host.ensure_mount_sources([("m", str(tmp_path / "a" / "b")), ("m", str(tmp_path / "file"))])
    assert (tmp_path / "a" / "b").is_dir()
    for bad in (tmp_path / "file" / "below", tmp_path / "dangling"):
        with pytest.raises(InvalidArgument, match=r"config\.mounts\[0\]"):
            await host.ensure_mount_sources([("config.mounts[0].host_path", str(bad))])


async def test_an_apparmor_profile_must_be_loaded(tmp_path: Path) -> None:
    """By its whole name, as the kernel lists it; where the kernel lists nothing, Docker is asked."""
    listing = tmp_path / "profiles"
    await host.require_apparmor_profile("mine", "f", listing)
    listing.write_text("docker-default (enforce)\nwith (odd) name (complain)\n/usr/bin/man (enforce)\n")
    for name in ("", "docker-default", "with (odd) name", "/usr/bin/man"):
        await host.require_apparmor_profile(name, "f", listing)
    for name in ("docker", "mine", "docker-default (enforce)"):
        with pytest.raises(InvalidArgument, match=r"^f\.apparmor: .* is not loaded"):
            await host.require_apparmor_profile(name, "f", listing)


async def test_seccomp_profiles(tmp_path: Path) -> None:
    """Read and checked to be JSON; other kinds need no file."""
    path = tmp_path / "profile.json"
    path.write_text('{ "defaultAction":  "SCMP_ACT_ALLOW" }')
    kind = cri.SecurityProfile.ProfileType
    local = cri.SecurityProfile(profile_type=kind.Localhost, localhost_ref=f"localhost/{path}")
    assert await host.read_seccomp_profile(local, "f") == '{"defaultAction":"SCMP_ACT_ALLOW"}'
    assert await host.read_seccomp_profile(cri.SecurityProfile(profile_type=kind.Unconfined), "f") is None
    for ref in ("relative.json", str(tmp_path / "none.json"), str(tmp_path)):
        bad = cri.SecurityProfile(profile_type=kind.Localhost, localhost_ref=ref)
        with pytest.raises(InvalidArgument, match="localhost_ref"):
            await host.read_seccomp_profile(bad, "f")
    path.write_text("not json")
    with pytest.raises(InvalidArgument, match="no JSON"):
        await host.read_seccomp_profile(local, "f")


def test_the_lowest_oom_score_is_found_and_ours_is_put_back() -> None:
    """Whatever this machine permits: the value found can be set."""
    before = Path("/proc/self/oom_score_adj").read_text()
    lowest = host.lowest_oom_score()
    assert Path("/proc/self/oom_score_adj").read_text() == before
    assert -1000 <= lowest <= int(before)


def test_capabilities_outside_the_bounding_set(tmp_path: Path) -> None:
    """By name; none when the set is full."""
    (tmp_path / "status").write_text("Name:\tx\nCapBnd:\t000001fffeffffff\n")
    assert host.missing_capabilities(tmp_path) == ("SYS_RESOURCE",)
    (tmp_path / "status").write_text("CapBnd:\t000001ffffffffff\n")
    assert host.missing_capabilities(tmp_path) == ()


async def test_only_a_process_of_the_container_is_killed() -> None:
    """A process whose cgroup does not name the container is left alone, and so is init."""
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as other:  # noqa: ASYNC220 - it is only a target
        assert not await host.kill_process_tree(other.pid, "f" * 64)
        assert not await host.kill_process_tree(1, "f" * 64)
        assert not await host.kill_process_tree(0, "f" * 64)
        assert other.poll() is None
        other.kill()


async def test_a_log_file_is_there_before_the_process(tmp_path: Path) -> None:
    """Made with its directories, kept when it is there, and no path is no log."""
    path = tmp_path / "pod" / "c" / "0.log"
    await host.ensure_log_file(str(path))
    path.write_text("kept")
    await host.ensure_log_file(str(path))
    await host.ensure_log_file("")
    assert path.read_text() == "kept"
    assert os.stat(path).st_mode & 0o777 == 0o640


async def test_a_cgroup_file_is_written_and_never_made(tmp_path: Path) -> None:
    """One that the kernel does not have would limit nothing; only a limit that the kubelet sends anyway may miss it."""
    hierarchy = {path.partition("/")[2] for path in Path("/proc/self/cgroup").read_text().splitlines()}
    for path in hierarchy:
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
        (tmp_path / path / "there.high").write_text("something longer")
    await host.write_cgroup_files(os.getpid(), {"there.high": "max", "hugetlb.1GB.max": "0"}, str(tmp_path))
    assert "max" in {file.read_text() for file in tmp_path.rglob("there.high")}
    assert not list(tmp_path.rglob("hugetlb*"))
    with pytest.raises(EngineFailed, match=r"^the kernel has no cgroup file hugetlb\.1GB\.max"):
        await host.write_cgroup_files(os.getpid(), {"hugetlb.1GB.max": "4096"}, str(tmp_path))


async def test_what_only_some_kernels_have_is_written_where_it_is(tmp_path: Path) -> None:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        (tmp_path / line.rpartition(":/")[2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / line.rpartition(":/")[2] / "there.rsvd").touch()
    await host.write_cgroup_files(os.getpid(), {}, str(tmp_path), {"there.rsvd": "7", "nothing.rsvd": "7"})
    assert "7" in {file.read_text() for file in tmp_path.rglob("there.rsvd")}
    assert not list(tmp_path.rglob("nothing*"))


async def test_limits_of_a_process_that_ended_are_no_failure(tmp_path: Path) -> None:
    """Before or after its parent has heard of it; while it lives, a limit that cannot be set is one."""
    writes = {"nothing.high": "max"}
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:  # noqa: ASYNC220 - it is only there to be limited
        with pytest.raises(EngineFailed, match=r"nothing\.high"):
            await host.write_cgroup_files(process.pid, writes, str(tmp_path))
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        await host.write_cgroup_files(process.pid, writes, str(tmp_path))
    await host.write_cgroup_files(process.pid, writes, str(tmp_path))


def identity_tree(root: Path) -> Path:
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("web:x:101:102::/:\n")
    (root / "etc" / "group").write_text("logs:x:4:web\n")
    return root


def test_users_are_read_from_the_containers_own_files(tmp_path: Path) -> None:
    """The name means what the container's files say."""
    found = host._resolve_container_user(identity_tree(tmp_path), ContainerUser("web"))
    assert found is not None
    assert (found.uid, found.gid, list(found.supplemental_groups)) == (101, 102, [102, 4])


@pytest.mark.parametrize("trap", ["link", "pipe", "directory", "linked etc"])
def test_a_container_cannot_lead_us_away(tmp_path: Path, trap: str) -> None:
    """Links are not followed and pipes not waited for; the user is unknown then."""
    root = identity_tree(tmp_path / "root")
    passwd = root / "etc" / "passwd"
    if trap == "linked etc":
        (root / "etc").rename(tmp_path / "elsewhere")
        (root / "etc").symlink_to(tmp_path / "elsewhere")
    else:
        passwd.unlink()
        if trap == "link":
            passwd.symlink_to("/etc/passwd")
        elif trap == "pipe":
            os.mkfifo(passwd)
        else:
            passwd.mkdir()
    assert host._resolve_container_user(root, ContainerUser("web")) is None


def test_open_files_may_reach_the_hard_limit() -> None:
    """In a process of its own, which starts with a low soft limit."""
    script = (
        "import resource; from dockershim import host;"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard));"
        "assert host.raise_open_files() == (64, hard);"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


async def test_the_oom_score_reaches_a_process() -> None:
    """Raising is always allowed; what the host does not allow is told by the field."""
    with subprocess.Popen(["sleep", "60"]) as process:  # noqa: ASYNC220 - it is only there to be written about
        try:
            await host.set_oom_score("c" * 64, process.pid, 700, "/no/such/cgroups", "linux.oom_score_adj")
            assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "700\n"
        finally:
            process.kill()
    await host.set_oom_score(
        "c" * 64, process.pid, 700, "/no/such/cgroups", "linux.oom_score_adj"
    )  # gone: nothing to do
