"""Which hook a container has, and what is said when it fails."""

import pytest

from kubelet_py.api import codec, core_v1
from kubelet_py.core import lifecycle_hooks
from kubelet_py.core.lifecycle_hooks import Hook
from tests.unit.kubelet_py.core.pod_builder import UID, a_pod


def test_the_words_of_events() -> None:
    """Reason and message for each moment."""
    assert (Hook.POST_START.failure_reason, Hook.POST_START.failure_message) == (
        "FailedPostStartHook",
        "PostStartHook failed",
    )
    assert (Hook.PRE_STOP.failure_reason, Hook.PRE_STOP.failure_message) == ("FailedPreStopHook", "PreStopHook failed")


def test_a_container_may_have_either_hook_or_none() -> None:
    """The handler of that moment."""
    handler = core_v1.LifecycleHandler(sleep=core_v1.SleepAction(seconds=1))
    container = core_v1.Container(name="main", lifecycle=core_v1.Lifecycle(preStop=handler))
    assert lifecycle_hooks.handler_of(container, Hook.PRE_STOP) is handler
    assert lifecycle_hooks.handler_of(container, Hook.POST_START) is None
    assert lifecycle_hooks.handler_of(core_v1.Container(name="main"), Hook.PRE_STOP) is None


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        ({"exec": {"command": ["sh", "-c", "no"]}}, "Exec lifecycle hook ([sh -c no])"),
        ({"exec": {}}, "Exec lifecycle hook ([])"),
        ({"httpGet": {"port": 80, "path": "/x"}}, "HTTP lifecycle hook (/x)"),
        ({"httpGet": {"port": 80}}, "HTTP lifecycle hook (/)"),
        ({"sleep": {"seconds": 3}}, "Sleep lifecycle hook (3)"),
        ({}, "Lifecycle hook"),
    ],
)
def test_a_failure_names_the_hook_the_container_and_the_pod(handler: dict[str, object], words: str) -> None:
    """And what went wrong."""
    given = codec.from_builtins(core_v1.LifecycleHandler, handler)
    text = lifecycle_hooks.describe_failure(a_pod(), "main", given, "boom")
    assert text == f'{words} for Container "main" in Pod "web_shop({UID})" failed - error: boom'


def test_a_command_that_fails_is_quoted() -> None:
    """What it complained of, and all that it said, each up to a kibibyte."""
    text = lifecycle_hooks.exec_failure(["sh", "-c", "no"], 3, b'so "far"\n', b"no way")
    assert text == 'command \'sh -c no\' exited with 3: no way, message: "so \\"far\\"\\nno way"'
    assert len(lifecycle_hooks.exec_failure([], 1, b"x" * 5000, b"y" * 5000)) < 2200


def test_the_fallback_to_plain_http_is_told() -> None:
    """With the address, without the path."""
    assert lifecycle_hooks.http_fallback_message("10.0.0.7:80").startswith(
        "request to HTTPS lifecycle hook 10.0.0.7:80"
    )


def test_a_sleep_goes_on_where_it_was_broken_off() -> None:
    """And is never negative."""
    assert lifecycle_hooks.sleep_left_seconds(10, 4.0) == 6.0
    assert lifecycle_hooks.sleep_left_seconds(10, 14.0) == 0.0
