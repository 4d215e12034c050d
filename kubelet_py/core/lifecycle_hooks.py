"""What postStart and preStop hooks are, and what is said when they fail.

Upstream counterpart: pkg/kubelet/lifecycle/handlers.go and executePreStopHook in kuberuntime_container.go.
"""

import json
from collections.abc import Iterable
from enum import StrEnum

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.pod_resources import AnyContainer

POST_START_ERROR = "PostStartHookError"
POST_START_KILL_MESSAGE = "FailedPostStartHook"
HTTP_FALLBACK = "LifecycleHTTPFallback"
MAX_OUTPUT_BYTES = 1024


class Hook(StrEnum):
    """The two moments."""

    POST_START = "PostStart"
    PRE_STOP = "PreStop"

    @property
    def failure_reason(self) -> str:
        """The reason of the event when it fails."""
        return f"Failed{self.value}Hook"

    @property
    def failure_message(self) -> str:
        """The text of that event; details may be secret and go into the log and the status only."""
        return f"{self.value}Hook failed"


def handler_of(container: AnyContainer, hook: Hook) -> core_v1.LifecycleHandler | None:
    """The container's handler for that moment."""
    lifecycle = container.lifecycle
    if lifecycle is None:
        return None
    return lifecycle.postStart if hook is Hook.POST_START else lifecycle.preStop


def describe_failure(pod: core_v1.Pod, container_name: str, handler: core_v1.LifecycleHandler, error: str) -> str:
    """What becomes the message of the waiting state."""
    metadata = pods.metadata_of(pod)
    if handler.exec is not None:
        what = f"Exec lifecycle hook ([{' '.join(handler.exec.command or ())}])"
    elif handler.httpGet is not None:
        what = f"HTTP lifecycle hook ({handler.httpGet.path or '/'})"
    elif handler.sleep is not None:
        what = f"Sleep lifecycle hook ({handler.sleep.seconds})"
    else:
        what = "Lifecycle hook"
    full_name = f"{metadata.name}_{metadata.namespace}({pods.uid_of(pod)})"
    return f'{what} for Container "{container_name}" in Pod "{full_name}" failed - error: {error}'


def exec_failure(command: Iterable[str], exit_code: int, stdout: bytes, stderr: bytes) -> str:
    """What a command that exited with another code than 0 had to say."""
    said, complained = (output[:MAX_OUTPUT_BYTES].decode("utf-8", "replace") for output in (stdout + stderr, stderr))
    return f"command '{' '.join(command)}' exited with {exit_code}: {complained}, message: {json.dumps(said)}"


def http_fallback_message(host_and_port: str) -> str:
    """An HTTPS hook that was answered in plain HTTP worked at the second try."""
    return f"request to HTTPS lifecycle hook {host_and_port} got HTTP response, retry with HTTP succeeded"


def sleep_left_seconds(seconds: int, slept_seconds: float) -> float:
    """What is left of a sleep that was broken off, such as by a shorter grace period."""
    return max(seconds - slept_seconds, 0.0)
