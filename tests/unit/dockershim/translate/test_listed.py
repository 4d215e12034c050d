"""What can be shown of a container that Docker lists and cannot inspect."""

from __future__ import annotations

from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.translate.listed import UNKNOWN_EXIT_CODE, listed_as_inspected
from dockershim.translate.views import container_view, ended_container_view, started_container_view

EXITED = cri.ContainerState.CONTAINER_EXITED
RUNNING = cri.ContainerState.CONTAINER_RUNNING
LINE: dict[str, Any] = {
    "Id": "a" * 64,
    "Names": ["/other/alias", "/k8s_main_web_default_uid_2"],
    "Image": "registry.k8s.io/test:1",
    "ImageID": "sha256:" + "1" * 64,
    "Created": 1_700_000_000,
    "Labels": {"io.kubernetes.sandbox.id": "s", "app": "web"},
}


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        ("Exited (0) 2 hours ago", 0, "Completed"),
        ("Exited (137) Less than a second ago", 137, "Error"),
        ("Created", UNKNOWN_EXIT_CODE, "Error"),
        ("Dead", UNKNOWN_EXIT_CODE, "Error"),
        ("Removal In Progress", UNKNOWN_EXIT_CODE, "Error"),
        ("", UNKNOWN_EXIT_CODE, "Error"),
    ],
)
def test_what_does_not_run_has_ended(status: str, code: int, reason: str) -> None:
    """With its exit code where the list tells it; what is not known is no success."""
    view = container_view(listed_as_inspected({**LINE, "Status": status}, False, "no layer"), lambda _: "", 7)
    assert (view.status.state, view.status.exit_code, view.status.reason) == (EXITED, code, reason)
    assert view.status.message == "Docker cannot inspect it: no layer"
    assert view.status.finished_at == view.status.started_at == view.status.created_at == 1_700_000_000 * 10**9
    assert (view.name, view.sandbox_id, view.item.image_id) == ("k8s_main_web_default_uid_2", "s", LINE["ImageID"])
    assert (view.item.metadata.name, view.item.metadata.attempt, dict(view.item.labels)) == ("main", 2, {"app": "web"})


def test_what_runs_runs() -> None:
    """It is stopped like any other."""
    view = container_view(listed_as_inspected({**LINE, "Status": "Up 2 hours"}, True, "no layer"), lambda _: "", 7)
    assert (view.running, view.pid, view.status.exit_code) == (True, 0, 0)


def test_a_line_that_tells_next_to_nothing_is_shown_too() -> None:
    """Somebody has to be able to remove it."""
    view = container_view(listed_as_inspected({"Id": "a"}, False, ""), lambda _: "", 7)
    assert (view.id, view.name, view.status.state) == ("a", "", EXITED)


def test_an_end_is_never_before_the_start() -> None:
    """The node's time may have been set back; one that was not seen to run has begun when it ended."""
    view = container_view(listed_as_inspected({**LINE, "Status": "Up 2 hours"}, True, "no layer"), lambda _: "", 7)
    started_ns = view.status.started_at
    ended = ended_container_view(view, 0, "why", started_ns - 1, 8)
    assert (ended.status.started_at, ended.status.finished_at) == (started_ns, started_ns)
    assert (ended.status.state, ended.item.state, ended.status.reason) == (EXITED, EXITED, "Completed")
    assert (ended.observed_at_ns, ended.unseen, view.status.state) == (8, True, RUNNING)


def test_one_that_starts_again_has_no_end() -> None:
    """Nor what was told of it."""
    view = container_view(listed_as_inspected({**LINE, "Status": "Exited (3)"}, False, "no layer"), lambda _: "", 7)
    status = started_container_view(view, 9, 8).status
    assert (status.state, status.started_at, status.finished_at) == (RUNNING, 9, 0)
    assert (status.exit_code, status.reason, status.message) == (0, "", "")
