"""A token bucket whose waiters are served in order. Pure: the time is an argument.

Upstream counterpart: client-go flowcontrol (golang.org/x/time/rate).
"""


class TokenBucket:
    """`qps` tokens a second, at most `burst` saved up; a rate of 0 or less never limits."""

    def __init__(self, qps: float, burst: int) -> None:
        self._qps = qps
        self._burst = max(1, burst)
        self._tokens = float(self._burst)
        self._at: float | None = None

    def reserve(self, now_seconds: float) -> float:
        """Take a token, on credit if need be; the seconds to wait before using it."""
        if self._qps <= 0:
            return 0.0
        self._refill(now_seconds)
        self._tokens -= 1
        return max(0.0, -self._tokens / self._qps)

    def try_take(self, now_seconds: float) -> bool:
        """Take a token if there is one."""
        if self._qps <= 0:
            return True
        self._refill(now_seconds)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _refill(self, now_seconds: float) -> None:
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now_seconds - self._at) * self._qps)
        self._at = now_seconds
