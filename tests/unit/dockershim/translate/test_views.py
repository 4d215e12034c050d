"""What is shown, from what Docker says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_proto import runtime_v1 as cri
from dockershim.translate import names
from dockershim.translate.image_views import image_facts, image_view
from dockershim.translate.names import cgroup_writes_of
from dockershim.translate.resources import to_cri_resources
from dockershim.translate.signals import to_cri_signal, to_docker_signal
from dockershim.translate.views import SandboxRecord, container_view, parse_time_ns, sandbox_view

NEVER = "0001-01-01T00:00:00Z"
CREATED = "2026-11-22T20:16:17.123456789Z"
STARTED = "2026-11-22T20:16:18Z"
FINISHED = "2026-11-22T20:16:19.5Z"


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (NEVER, 0),
        ("", 0),
        (None, 0),
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T01:00:00.5+01:00", 5 * 10**8),
        ("2026-11-22T20:16:17.123456789Z", 1795378577123456789),
    ],
)
def test_times_keep_their_nanoseconds(text: str | None, nanoseconds: int) -> None:
    """Docker's times, whatever the number of digits."""
    assert parse_time_ns(text) == nanoseconds


def inspect(**state: Any) -> dict[str, Any]:
    base = {"Running": False, "ExitCode": 0, "StartedAt": NEVER, "FinishedAt": NEVER, "Error": "", "OOMKilled": False}
    return {
        "Id": "c" * 64,
        "Name": "/k8s_main_web_default_uid-1_2",
        "Created": CREATED,
        "Image": "sha256:" + "1" * 64,
        "Config": {"Labels": {"io.kubernetes.sandbox.id": "s" * 64, "annotation.a": "b"}, "Image": "busybox:1"},
        "HostConfig": {"Memory": 64, "MemorySwap": 64},
        "State": base | state,
        "Mounts": [],
    }


@pytest.mark.parametrize(
    ("state", "shown", "reason"),
    [
        ({}, cri.ContainerState.CONTAINER_CREATED, ""),
        ({"Running": True, "StartedAt": STARTED}, cri.ContainerState.CONTAINER_RUNNING, ""),
        ({"StartedAt": STARTED, "FinishedAt": FINISHED}, cri.ContainerState.CONTAINER_EXITED, "Completed"),
        ({"StartedAt": STARTED, "FinishedAt": FINISHED, "ExitCode": 2}, cri.ContainerState.CONTAINER_EXITED, "Error"),
        (
            {"StartedAt": STARTED, "FinishedAt": FINISHED, "ExitCode": 137, "OOMKilled": True},
            cri.ContainerState.CONTAINER_EXITED,
            "OOMKilled",
        ),
        ({"ExitCode": 127, "Error": "no such file"}, cri.ContainerState.CONTAINER_EXITED, "ContainerCannotRun"),
    ],
)
def test_states(state: dict[str, Any], shown: cri.ContainerState, reason: str) -> None:
    """Each state that Docker can be in."""
    view = container_view(inspect(**state), lambda _: "", 1)
    assert (view.status.state, view.status.reason) == (shown, reason)
    assert view.item.state == shown
    assert view.status.metadata == cri.ContainerMetadata(name="main", attempt=2)
    assert view.status.image_id == view.status.image_ref == view.item.image_id == "sha256:" + "1" * 64
    assert dict(view.status.annotations) == {"a": "b"}
    assert view.sandbox_id == "s" * 64


def test_an_end_before_the_start_is_no_end() -> None:
    """Docker notes the start of a very short process after its end."""
    status = container_view(inspect(StartedAt=FINISHED, FinishedAt=STARTED), lambda _: "", 1).status
    assert status.started_at == status.finished_at == parse_time_ns(FINISHED)


def sandbox_inspect(*, running: bool = True, network: str = "none") -> dict[str, Any]:
    return {
        "Id": "a" * 64,
        "Name": "/k8s_POD_web_default_uid-1_3",
        "Created": CREATED,
        "Config": {"Labels": {"io.kubernetes.container.name": "POD", "app": "web"}},
        "HostConfig": {"NetworkMode": network, "Runtime": "runc"},
        "State": {"Running": running, "Pid": 7},
        "ResolvConfPath": "/r",
    }


def test_a_sandbox_is_ready_when_it_runs_and_is_connected() -> None:
    """And not before, nor after the network was torn down."""
    record = SandboxRecord("a" * 64, cri.PodSandboxConfig())
    connected = SandboxRecord("a" * 64, cri.PodSandboxConfig(), network_ready=True, ips=("10.0.0.1", "fd00::1"))
    down = SandboxRecord("a" * 64, cri.PodSandboxConfig(), network_ready=True, network_torn_down=True)
    assert not sandbox_view(sandbox_inspect(), record, 1).ready
    assert sandbox_view(sandbox_inspect(), connected, 1).ready
    assert not sandbox_view(sandbox_inspect(running=False), connected, 1).ready
    assert not sandbox_view(sandbox_inspect(), down, 1).ready
    status = sandbox_view(sandbox_inspect(), connected, 1).status
    assert (status.network.ip, [ip.ip for ip in status.network.additional_ips]) == ("10.0.0.1", ["fd00::1"])


def test_a_sandbox_of_cri_dockerd_is_taken_over() -> None:
    """Metadata from the name where there are no labels, and it counts as ready."""
    record = SandboxRecord("a" * 64, cri.PodSandboxConfig(), network_ready=True, foreign=True)
    view = sandbox_view(sandbox_inspect(), record, 1)
    assert view.ready
    assert view.status.metadata == cri.PodSandboxMetadata(name="web", namespace="default", uid="uid-1", attempt=3)
    assert dict(view.status.labels) == {"app": "web"}


@pytest.mark.parametrize(
    ("runtime", "default", "foreign", "handler"),
    [
        ("runc", "runc", True, ""),
        ("kata", "runc", True, "kata"),
        ("kata", "", True, ""),  # not known
        ("", "runc", True, ""),
        ("dockershim", "runc", False, "asked-for"),
    ],
)
def test_the_handler_of_a_sandbox_of_cri_dockerd_is_its_runtime_unless_that_is_the_default(
    runtime: str, default: str, foreign: bool, handler: str
) -> None:
    """Ours have it in their record: Docker's runtime may be one that we put in front."""
    inspect = sandbox_inspect()
    inspect["HostConfig"]["Runtime"] = runtime
    record = SandboxRecord("a" * 64, cri.PodSandboxConfig(), "" if foreign else "asked-for", foreign=foreign)
    view = sandbox_view(inspect, record, 1, default)
    assert view.item.runtime_handler == view.status.runtime_handler == handler


def test_images_without_names() -> None:
    """Dangling marks are left out and the size is never zero."""
    view = image_view(
        {"Id": "sha256:1", "RepoTags": ["<none>:<none>"], "RepoDigests": None, "Size": 0}, image_facts({}), ()
    )
    assert (list(view.message.repo_tags), view.message.size, view.keys) == ([], 1, frozenset())


def test_a_user_of_an_image_that_is_no_number_of_a_user_is_a_name() -> None:
    """However many digits it has: nobody may run an image so by its number, and the others are shown."""
    for user in ("9" * 20, "9" * 5000, "web"):
        message = image_view({"Id": "sha256:1"}, image_facts({"Config": {"User": user}}), ()).message
        assert (message.HasField("uid"), message.username) == (False, user)
    assert image_view({"Id": "sha256:1"}, image_facts({"Config": {"User": "7:8"}}), ()).message.uid.value == 7


@given(st.sampled_from([signal for signal in cri.Signal.values() if signal]))
def test_signals_are_read_back(signal: cri.Signal) -> None:
    """Every signal of CRI has a name for Docker that means it."""
    assert to_cri_signal(to_docker_signal(signal)) == signal


def test_signals_by_number_and_default() -> None:
    """As images write them."""
    assert to_cri_signal("3") == cri.Signal.SIGNAL_SIGQUIT
    assert to_cri_signal("") == cri.Signal.SIGNAL_SIGTERM
    assert to_cri_signal("QUIT") == cri.Signal.SIGNAL_SIGQUIT
    assert to_cri_signal("09") == cri.Signal.SIGNAL_SIGKILL
    assert to_cri_signal("9" * 5000) == to_cri_signal("\u00b2") == cri.Signal.SIGNAL_RUNTIME_DEFAULT
    assert to_docker_signal(cri.Signal.SIGNAL_RUNTIME_DEFAULT) == ""


def test_resources_show_what_was_written_to_the_cgroup() -> None:
    """Huge pages and unified keys, which Docker does not know; what was changed since counts."""
    label = '{"hugetlb.2MB.max": "4096", "memory.high": "1000"}'
    shown = to_cri_resources({"Memory": 5}, cgroup_writes_of(label))
    assert shown.memory_limit_in_bytes == 5
    assert [(page.page_size, page.limit) for page in shown.hugepage_limits] == [("2MB", 4096)]
    assert dict(shown.unified) == {"memory.high": "1000"}
    for text in ("", "{", "[]"):
        assert cgroup_writes_of(text) == {}


def test_files_of_huge_pages_that_are_no_number_of_bytes_are_shown_as_they_are() -> None:
    """A request may have them among its unified keys, and the kernel alone says what it takes."""
    writes = {
        "hugetlb.2MB.max": "max",
        "hugetlb.1GB.max": str(2**64),
        "hugetlb.4KB.max": "9" * 5000,
        "hugetlb.2MB.events": "1",
        "hugetlb.2MB.limit_in_bytes": str(2**64 - 1),
    }
    shown = to_cri_resources({}, writes)
    assert [(page.page_size, page.limit) for page in shown.hugepage_limits] == [("2MB", 2**64 - 1)]
    assert dict(shown.unified) == {key: value for key, value in writes.items() if "limit" not in key}


json_values = st.recursive(
    st.none() | st.integers() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(names._OWN_LABELS)), st.text() | json_values.map(json.dumps)))
def test_whatever_own_labels_say_the_container_is_shown(labels: dict[str, str]) -> None:
    """They may be an image's, on a container of cri-dockerd's or of a version that did not set all of them."""
    seen = inspect()
    seen["Config"]["Labels"] = {"annotation.a": "b", **labels}
    assert container_view(seen, lambda _: "", 1).status.id == "c" * 64
