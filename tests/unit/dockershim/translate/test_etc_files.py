"""Pure: hosts and resolv.conf of pods that Docker makes none for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cri_proto import runtime_v1 as cri
from dockershim.translate import etc_files

DIRECTORY = "/root/etc/abc"


def test_resolv_conf() -> None:
    """Only the lines that are asked for."""
    assert etc_files.render_resolv_conf(cri.DNSConfig()) == ""
    dns = cri.DNSConfig(servers=["1.1.1.1", "::1"], searches=["a", "b"], options=["ndots:5"])
    assert etc_files.render_resolv_conf(dns) == "nameserver 1.1.1.1\nnameserver ::1\nsearch a b\noptions ndots:5\n"


def test_the_pod_is_known_by_its_name_at_each_address() -> None:
    """After the names of the machine itself."""
    lines = etc_files.render_hosts("web-0", ("10.1.2.3", "fd00::3")).splitlines()
    assert "127.0.0.1\tlocalhost" in lines
    assert lines[-2:] == ["10.1.2.3\tweb-0", "fd00::3\tweb-0"]


def test_a_container_that_brings_a_file_keeps_it() -> None:
    """The kubelet brings its own hosts file, by whatever spelling of the path."""
    own = [cri.Mount(container_path="/etc//hosts/", host_path="/pods/1/etc-hosts")]
    (mount,) = etc_files.mounts(DIRECTORY, own, readonly=True)
    assert (mount.container_path, mount.host_path) == ("/etc/resolv.conf", f"{DIRECTORY}/resolv.conf")
    assert mount.readonly


@given(st.lists(st.sampled_from(["/etc/hosts", "/etc/resolv.conf", "/etc", "/data"]), unique=True))
def test_the_status_shows_what_was_asked_for(paths: list[str]) -> None:
    """And nothing of what was added to it."""
    asked_for = [cri.Mount(container_path=path, host_path=f"/srv{path}") for path in paths]
    added = etc_files.mounts(DIRECTORY, asked_for, readonly=False)
    assert {mount.container_path for mount in [*asked_for, *added]} >= {"/etc/hosts", "/etc/resolv.conf"}
    assert list(etc_files.without_own([*added, *asked_for], "abc")) == asked_for


def test_a_file_of_another_sandbox_is_shown() -> None:
    """Somebody asked for it."""
    (hosts, _) = etc_files.mounts(DIRECTORY, (), readonly=False)
    assert list(etc_files.without_own([hosts], "bc")) == [hosts]
