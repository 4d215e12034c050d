"""Reads a container's last words: its termination log, or the end of its log where the pod asks for that.

Blocking file reads of a few KiB. Upstream counterpart: getTerminationMessage in kuberuntime_container.go.
"""

import os

from cri_proto.wire.log_line import LogLineError, parse_either
from kubelet_py.core.observed import ContainerState, ObservedContainer
from kubelet_py.core.volume_plan import clean_container_path

MAX_MESSAGE_BYTES = 4096
MAX_LOG_MESSAGE_BYTES = 2048
MAX_LOG_LINES = 80
_FALLBACK_TO_LOGS = "FallbackToLogsOnError"
# Enough for 80 lines of which at most 2048 bytes are kept, with the time and tags of each.
_LOG_TAIL_BYTES = 64 * 1024


def read_termination_message(container: ObservedContainer) -> str:
    """The message of a container that ended, "" when it left none."""
    if container.state is not ContainerState.EXITED:
        return ""
    # What could not even be started wrote no log.
    has_failed = container.exit_code != 0 and container.reason != "ContainerCannotRun"
    wants_logs = has_failed and container.termination_message_policy == _FALLBACK_TO_LOGS
    target = clean_container_path(container.termination_message_path)
    path = next((m.host_path for m in container.mounts if m.container_path == target), "")
    message = ""
    if path:
        try:
            message = _read_tail(path, MAX_MESSAGE_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            message = ""
        except OSError as error:
            message = f"Error on reading termination log {path}: {error}"
    if not message and wants_logs and container.log_path:
        try:
            message = _log_tail(container.log_path)
        except OSError as error:
            message = f"Error on reading termination message from logs: {error}"
    return message


def _read_tail(path: str, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        end = os.fstat(descriptor).st_size
        return os.pread(descriptor, size, max(0, end - size))
    finally:
        os.close(descriptor)


def _log_tail(path: str) -> str:
    """The last lines of a log, in CRI's format or Docker's, at most 80 of them and 2048 bytes."""
    chunk = _read_tail(os.path.realpath(path), _LOG_TAIL_BYTES)  # cri-dockerd's is a link to Docker's
    lines: list[bytes] = []
    for raw in chunk.removesuffix(b"\n").split(b"\n")[-MAX_LOG_LINES:]:
        try:
            entry = parse_either(raw)
        except LogLineError:
            continue  # the first one is cut where the tail begins
        lines.append(entry.text if entry.partial else entry.text + b"\n")
    return b"".join(lines)[-MAX_LOG_MESSAGE_BYTES:].decode("utf-8", "replace")
