"""Back-off between restarts of a container and between pulls of an image, as values.

An entry says how long the next wait is and when it was last advanced; who holds the entries (per pod and container, per
pod and image) is the shell's business. The wait of a crashed container counts from the end of its last run, the wait
after a failed pull from the failure. Times are seconds of one clock, whichever the shell takes. Where the ends of runs
make that the wall clock, entries are forgotten by one that nobody sets: else a crash would be waited for as long as the
wall clock was set back.

Upstream counterpart: client-go's util/flowcontrol/backoff.go and doBackOff in kuberuntime_manager.go. Deliberate
difference: both kinds of back-off are forgotten after the same time, also where the largest delay is set smaller.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from kubelet_py.api import codec, core_v1

Key = TypeVar("Key")

RESET_AFTER_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class BackoffEntry:
    """The wait that holds now, the moment it was set, and what it is for."""

    delay_seconds: float
    updated_at_seconds: float
    cause: str = ""
    reset_after_seconds: float = RESET_AFTER_SECONDS
    made_at_seconds: float | None = None
    """On a clock that nobody sets; None where the moment it was set is of such a clock."""

    def is_expired(self, event_seconds: float) -> bool:
        """The event comes so long after the last one that they have nothing to do with each other."""
        return event_seconds - self.updated_at_seconds > self.reset_after_seconds

    def is_old(self, now_seconds: float) -> bool:
        """Whatever it was about is so long ago by now; `now_seconds` is of the clock of `made_at_seconds`."""
        made_at_seconds = self.updated_at_seconds if self.made_at_seconds is None else self.made_at_seconds
        return now_seconds - made_at_seconds > self.reset_after_seconds


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """Doubling delays with a ceiling, forgotten after a good while."""

    initial_seconds: float = 10.0
    max_seconds: float = 300.0
    reset_after_seconds: float = RESET_AFTER_SECONDS


CRASH_BACKOFF = BackoffPolicy()
REDUCED_CRASH_BACKOFF = BackoffPolicy(1.0, 60.0)
IMAGE_BACKOFF = BackoffPolicy()


def crash_policy(max_restart_seconds: float | None, is_reduced: bool = False) -> BackoffPolicy:
    """The policy of a node that sets crashLoopBackOff.maxContainerRestartPeriod; the first delay fits below it.

    `is_reduced`: the gate ReduceDefaultCrashLoopBackOffDecay lets waits begin and end lower.
    """
    usual = REDUCED_CRASH_BACKOFF if is_reduced else CRASH_BACKOFF
    if max_restart_seconds is None:
        return usual
    return BackoffPolicy(min(usual.initial_seconds, max_restart_seconds), max_restart_seconds)


def remaining_seconds(entry: BackoffEntry | None, now_seconds: float, since_seconds: float | None = None) -> float:
    """How much of the wait is left; 0 when nothing holds.

    The wait began at `since_seconds` (the end of a container's last run), or when the entry was set.
    """
    if entry is None:
        return 0.0
    begun_seconds = entry.updated_at_seconds if since_seconds is None else since_seconds
    if entry.is_expired(now_seconds if since_seconds is None else since_seconds):
        return 0.0
    return max(0.0, entry.delay_seconds - (now_seconds - begun_seconds))


def is_backing_off(entry: BackoffEntry | None, now_seconds: float, since_seconds: float | None = None) -> bool:
    """Whether what failed must still wait."""
    return remaining_seconds(entry, now_seconds, since_seconds) > 0


def next_entry(
    entry: BackoffEntry | None,
    policy: BackoffPolicy,
    now_seconds: float,
    since_seconds: float | None = None,
    cause: str = "",
    made_at_seconds: float | None = None,
) -> BackoffEntry:
    """The entry after another try: the first delay, or twice the last one up to the ceiling.

    `since_seconds` is when the thing failed (a container's finish time); without it, now. `made_at_seconds` is now on
    the clock that `without_expired` goes by, if that is another one.
    """
    if entry is None or entry.is_expired(now_seconds if since_seconds is None else since_seconds):
        delay_seconds = policy.initial_seconds
    else:
        delay_seconds = entry.delay_seconds * 2
    delay_seconds = min(delay_seconds, policy.max_seconds)
    return BackoffEntry(delay_seconds, now_seconds, cause, policy.reset_after_seconds, made_at_seconds)


def without_expired(entries: Mapping[Key, BackoffEntry], now_seconds: float) -> dict[Key, BackoffEntry]:
    """The entries that still mean something; the shell calls this now and then to forget the others."""
    return {key: entry for key, entry in entries.items() if not entry.is_old(now_seconds)}


def crash_backoff_key(container: core_v1.Container | core_v1.EphemeralContainer) -> str:
    """What the crash back-off of one pod is kept under: a new image or other resources start afresh."""
    resources = codec.encode(container.resources).decode() if container.resources else ""
    return f"{container.name}\n{container.image or ''}\n{resources}"
