"""Growing, jittered pauses between tries. Pure: randomness and time are arguments.

Upstream counterpart: client-go's reflector back-off and wait.Backoff.
"""

from collections.abc import Callable


class Backoff:
    """The next pause after a failure; starts again after `reset_after_seconds` without one.

    A pause is drawn from [base, base * (1 + jitter)], the base doubles each time up to `cap_seconds`, which also bounds
    the pause itself.
    """

    def __init__(
        self,
        initial_seconds: float,
        cap_seconds: float,
        *,
        jitter: float = 1.0,
        reset_after_seconds: float = 120.0,
        random: Callable[[], float],
    ) -> None:
        self._initial = initial_seconds
        self._cap = cap_seconds
        self._jitter = jitter
        self._reset_after = reset_after_seconds
        self._random = random
        self._base = initial_seconds
        self._last: float | None = None

    def next_seconds(self, now_seconds: float) -> float:
        """How long to wait now."""
        if self._last is not None and now_seconds - self._last > self._reset_after:
            self._base = self._initial
        self._last = now_seconds
        base = self._base
        self._base = min(self._cap, base * 2)
        return min(self._cap, base * (1 + self._jitter * self._random()))

    def reset(self) -> None:
        """It works again."""
        self._base = self._initial
        self._last = None
