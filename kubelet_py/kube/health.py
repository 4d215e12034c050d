"""Whether the API server answers, said once when it stops and once when it does again.

All clients and watches of one connection share one of these, so that an outage gives two log lines and not two per
watch. Upstream has no counterpart: there every reflector logs for itself.
"""

import asyncio
from collections.abc import Callable
from time import monotonic

import structlog

log = structlog.get_logger()


class ServerHealth:
    """The last thing known about the server."""

    def __init__(self, server: str, clock: Callable[[], float] = monotonic) -> None:
        self._server = server
        self._clock = clock
        self._away_since: float | None = None
        self.back = asyncio.Event()
        """Set while the server answers; who waits for a next try after an outage need not wait longer."""
        self.back.set()

    @property
    def reachable(self) -> bool:
        """No failure since the last answer."""
        return self._away_since is None

    def failed(self, error: str) -> None:
        """A request got no answer."""
        if self._away_since is None:
            self._away_since = self._clock()
            self.back.clear()
            log.warning(
                "api_server_unreachable",
                server=self._server,
                error=error,
                meaning="running pods keep running; changes are queued and tried again until the server answers",
            )

    def answered(self) -> None:
        """A request got an answer."""
        if self._away_since is not None:
            log.info(
                "api_server_reachable_again",
                server=self._server,
                away_seconds=round(self._clock() - self._away_since, 1),
            )
            self._away_since = None
            self.back.set()
