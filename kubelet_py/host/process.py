"""What the agent sets for its own process: its OOM score and how many files it may open.

A node that does not allow a value (a nested or restricted one) gets a warning and runs on.
Upstream counterpart: pkg/util/oom and the rlimit part of cmd/kubelet/app/server.go.
"""

import resource
from pathlib import Path

import structlog

log = structlog.get_logger()


def set_oom_score_adj(value: int, path: Path = Path("/proc/self/oom_score_adj")) -> None:
    """How gladly the kernel kills this process: -1000 never, 1000 first."""
    try:
        path.write_text(str(value))
    except OSError as error:
        log.warning("oom_score_adj_not_set", wanted=value, error=error.strerror, hint="it needs CAP_SYS_RESOURCE")


def raise_open_files(wanted: int) -> None:
    """The limit of open files, as far as this process may raise it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    for limit in ((wanted, max(wanted, hard)), (min(wanted, hard), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        except (OSError, ValueError):
            continue
        break
    reached = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if reached < wanted:
        log.warning("open_files_limit_is_low", wanted=wanted, reached=reached)
