"""Whether the engine can be counted on: what the last looks at it said, and how deep the next one goes.

Owns the judgement; the looks themselves are the client's. A dockerd that hangs accepts every connection and answers
none: once a ping has waited in vain, calls end at once, and do not pile up, until a ping is answered. A dockerd
whose containerd has died answers pings as ever, and only its version lacks a component; that costs it two processes, so
it is asked for now and then, and at once when an answer gave reason to. Upstream counterpart: none; cri-dockerd takes
any answer of /version for health.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dockershim.engine import Json
from dockershim.engine.errors import ContainerdAway
from dockershim.errors import Unavailable

PINGS_PER_DEEP_LOOK = 12


class EngineHealth:
    """One engine's."""

    def __init__(self) -> None:
        self._silence = ""
        self._doubts = 0
        self._settled_doubts = 0
        self._pings = 0
        self._has_containerd = False

    def connected(self, version: Json) -> None:
        """A new connection; who has named containerd once shall have it always."""
        self._silence = ""
        if _names_containerd(version):
            self._has_containerd = True
        else:
            self._doubts += 1

    def silent(self, reason: str) -> None:
        """A ping was not answered in time."""
        self._silence = reason

    def heard(self) -> None:
        """Any answer at all, to a call that had waited through the silence."""
        self._silence = ""

    def answered(self) -> bool:
        """A ping was answered; True: look deeper."""
        self.heard()
        self._pings += 1
        return self._has_containerd and (self._doubts > self._settled_doubts or self._pings % PINGS_PER_DEEP_LOOK == 0)

    @property
    def doubts(self) -> int:
        """How many there have been so far: a look settles those alone that are older than itself."""
        return self._doubts

    def judge(self, version: Json, doubts: int) -> None:
        """The deeper look, begun when there had been so many doubts; Unavailable when containerd is away."""
        if not _names_containerd(version):
            self._doubts += 1
            raise ContainerdAway("its version names none")
        self._settled_doubts = doubts

    def require_answers(self) -> None:
        """Unavailable while nobody answers."""
        if self._silence:
            raise Unavailable(self._silence)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Around a call: one that found something away, in whatever words, makes the next look a deep one."""
        try:
            yield
        except Unavailable:
            self._doubts += 1
            raise


def _names_containerd(version: Json) -> bool:
    return any(component.get("Name") == "containerd" for component in version.get("Components") or ())
