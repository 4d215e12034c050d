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
        self._doubted = False
        self._pings = 0
        self._has_containerd = False

    def connected(self, version: Json) -> None:
        """A new connection; what it says now of its components is what it shall have later."""
        self._silence = ""
        self._has_containerd = _names_containerd(version)

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
        return self._has_containerd and (self._doubted or self._pings % PINGS_PER_DEEP_LOOK == 0)

    def judge(self, version: Json) -> None:
        """The deeper look; Unavailable when containerd is away."""
        self._doubted = not _names_containerd(version)
        if self._doubted:
            raise ContainerdAway("its version names none")

    def require_answers(self) -> None:
        """Unavailable while nobody answers."""
        if self._silence:
            raise Unavailable(self._silence)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Around a call: an error that speaks of containerd makes the next look a deep one."""
        try:
            yield
        except ContainerdAway:
            self._doubted = True
            raise


def _names_containerd(version: Json) -> bool:
    return any(component.get("Name") == "containerd" for component in version.get("Components") or ())
