"""All followers of the node and the one inotify watcher that wakes them, as plain blocking code for one thread.

Owns who is looked after when: a container with new lines gets one slice per round, so that one that floods takes its
turn like the others; a log that cannot be written now is tried again later. Must not know asyncio. Each public method
except `request` is called in the log thread only.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable

import structlog

from dockershim import inotify
from dockershim.logs import LogSource
from dockershim.logs.follower import Follower
from dockershim.logs.position import PositionStore
from dockershim.logs.spool import SpoolDirectories, SpoolFollower

TURN_SECONDS = 0.02
SAVE_SECONDS = 5.0
RETRY_SECONDS = 1.0
ENDING_SECONDS = 0.01
"""Until it is looked again whether all that a dead container wrote has come through the spool."""
_NEW_FILE = inotify.CREATE | inotify.MOVED_TO

logger = structlog.get_logger()


class _Followed:
    """A follower and how it stands with the pump."""

    __slots__ = ("follower", "is_open", "queued", "retry_at", "trouble", "watch")

    def __init__(self, follower: Follower | SpoolFollower) -> None:
        self.follower = follower
        self.watch = -1
        self.is_open = False
        self.queued = False
        self.retry_at = 0.0
        self.trouble = ""


class LogPump:
    """Followers by container id. `turn` does what there is to do and says when to call again."""

    def __init__(
        self,
        store: PositionStore,
        monotonic: Callable[[], float] = time.monotonic,
        spools: SpoolDirectories | None = None,
    ) -> None:
        self._store = store
        self._spools = spools
        self._monotonic = monotonic
        self._inotify = inotify.Inotify()
        self._requests: deque[LogSource] = deque()
        self._followed: dict[str, _Followed] = {}
        self._watches: dict[int, list[_Followed]] = {}
        self._ready: deque[_Followed] = deque()
        self._retries: list[_Followed] = []
        self._save_at = 0.0

    @property
    def descriptor(self) -> int:
        """Readable when a turn has something to do."""
        return self._inotify.fd

    def request(self, source: LogSource) -> None:
        """Follow this one from the next turn on. Safe in any thread."""
        self._requests.append(source)

    def turn(self) -> float | None:
        """Work for a moment. Returns the seconds until the next turn is due without an event; None: not at all."""
        self._take_requests()
        self._take_events()
        self._take_retries()
        deadline = self._monotonic() + TURN_SECONDS
        while self._ready and self._monotonic() < deadline:
            self._advance(self._ready.popleft())
        now = self._monotonic()
        unsaved = [each for each in self._followed.values() if each.follower.output.is_unsaved]
        if unsaved and now >= self._save_at:
            self._save_at = now + SAVE_SECONDS
            for each in unsaved:
                self._guard(each, each.follower.save)
            unsaved = []
        if self._ready:
            return 0.0
        due = [each.retry_at for each in self._retries]
        if unsaved:
            due.append(self._save_at)
        return max(0.0, min(due) - now) if due else None

    def drain(self, container_id: str) -> float | None:
        """Bring one log to its end and stop following it. None when that is done, else the seconds to the next try."""
        self._take_requests()
        followed = self._followed.get(container_id)
        if followed is None:
            return None
        followed.follower.ending = True
        if not followed.is_open:
            self._open(followed)
        if not followed.is_open:
            if os.path.isdir(followed.follower.directory):
                return RETRY_SECONDS
            self._close(followed)  # the container is gone, and its log with it
            return None
        deadline = self._monotonic() + TURN_SECONDS
        outcome = self._guard(followed, followed.follower.rescan)
        while outcome and self._monotonic() < deadline:
            outcome = self._guard(followed, followed.follower.step)
        if outcome is False and followed.follower.is_finished:
            self._end(followed)
            return None
        if outcome is False:
            return ENDING_SECONDS
        return RETRY_SECONDS if outcome is None else 0.0

    def reopen(self, container_id: str) -> bool:
        """Go on in a new file; False when the container is not followed. OSError when the file cannot be made."""
        self._take_requests()
        followed = self._followed.get(container_id)
        if followed is None or not followed.is_open:
            return False
        followed.follower.reopen()
        return True

    def remove(self, container_id: str) -> None:
        """Forget one."""
        self._take_requests()
        followed = self._followed.get(container_id)
        if followed is not None:
            self._close(followed)
        self._store.remove(container_id)
        if self._spools is not None:
            self._spools.remove(container_id)

    def retain(self, container_ids: Iterable[str]) -> None:
        """Forget what is recorded of containers that are no more."""
        self._take_requests()
        keep = {*container_ids, *self._followed}
        self._store.retain(keep)
        if self._spools is not None:
            self._spools.retain(keep)

    def close(self) -> None:
        """Record all places and give everything back."""
        for followed in list(self._followed.values()):
            self._guard(followed, followed.follower.save)
            self._close(followed)
        self._inotify.close()

    def _take_requests(self) -> None:
        while self._requests:
            source = self._requests.popleft()
            if source.container_id not in self._followed:
                kind = SpoolFollower if self._is_spooled(source) else Follower
                self._followed[source.container_id] = followed = _Followed(kind(source, self._store))
                self._open(followed)

    def _is_spooled(self, source: LogSource) -> bool:
        """It was told to, and where it has a terminal dockershim-oci found a way, which a container that ran shows."""
        if not source.spool_directory:
            return False
        is_spooled = not source.tty or os.path.isdir(f"{source.spool_directory}/{source.container_id}")
        if not is_spooled:
            logger.warning(
                "container_log_not_spooled",
                container_id=source.container_id,
                path=source.cri_log_path,
                hint="Docker's FIFO for its terminal is not in the exec-root that Docker tells its runtime (--root): "
                "the log comes from Docker, which loses up to a megabyte of it when dockerd is killed",
            )
        return is_spooled

    def _open(self, followed: _Followed) -> None:
        """Watch first, then look: what happens in between is seen by both rather than by neither."""
        directory = followed.follower.directory
        if directory and followed.watch < 0 and not self._guard(followed, lambda: self._watch(followed, directory)):
            return
        if self._guard(followed, followed.follower.open):
            followed.is_open = True
            self._queue(followed)

    def _watch(self, followed: _Followed, directory: str) -> None:
        followed.watch = self._inotify.add(directory, followed.follower.events | inotify.ONLY_DIRECTORY)
        self._watches.setdefault(followed.watch, []).append(followed)

    def _take_events(self) -> None:
        changed: dict[int, int] = {}
        for event in self._inotify.read():
            changed[event.watch] = changed.get(event.watch, 0) | event.mask
        if -1 in changed:  # the queue ran over: look at everything
            changed = dict.fromkeys(self._watches, _NEW_FILE)
        for watch, mask in changed.items():
            for followed in self._watches.get(watch, ()):
                if followed.is_open and (not mask & _NEW_FILE or self._guard(followed, followed.follower.rescan)):
                    self._queue(followed)

    def _take_retries(self) -> None:
        now = self._monotonic()
        due = [each for each in self._retries if each.retry_at <= now]
        self._retries = [each for each in self._retries if each.retry_at > now]
        for followed in due:
            if followed.is_open:
                self._queue(followed)
            else:
                self._open(followed)

    def _queue(self, followed: _Followed) -> None:
        if not followed.queued:
            followed.queued = True
            self._ready.append(followed)

    def _advance(self, followed: _Followed) -> None:
        followed.queued = False
        if self._followed.get(followed.follower.source.container_id) is not followed or not followed.is_open:
            return
        outcome = self._guard(followed, followed.follower.step)
        if outcome:
            self._queue(followed)
        elif outcome is False and followed.follower.ending and followed.follower.is_finished:
            self._end(followed)

    def _end(self, followed: _Followed) -> None:
        self._guard(followed, lambda: followed.follower.save(ended=True))
        self._close(followed)

    def _close(self, followed: _Followed) -> None:
        del self._followed[followed.follower.source.container_id]
        followed.follower.close()
        if followed.watch >= 0:
            others = self._watches[followed.watch]
            others.remove(followed)
            if not others:
                del self._watches[followed.watch]
                self._inotify.remove(followed.watch)
        self._retries = [each for each in self._retries if each is not followed]

    def _guard(self, followed: _Followed, action: Callable[[], bool | None]) -> bool | None:
        """Run it; a full disk or a missing directory is said once and tried again later (None)."""
        try:
            outcome = action()
        except Exception as error:  # OSError is the disk; anything else is a bug, which must not end all other logs
            if followed.trouble != str(error):
                followed.trouble = str(error)
                source = followed.follower.source
                logger.warning(
                    "container_log_waits",
                    container_id=source.container_id,
                    path=source.cri_log_path,
                    error=str(error),
                    retry_seconds=RETRY_SECONDS,
                    exc_info=not isinstance(error, OSError),
                )
            followed.retry_at = self._monotonic() + RETRY_SECONDS
            if followed not in self._retries:
                self._retries.append(followed)
            return None
        if followed.trouble and action == followed.follower.step:
            followed.trouble = ""
        return True if outcome is None else outcome
