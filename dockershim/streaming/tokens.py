"""The tokens of streaming URLs: each good for one connection, for a minute.

Owns which are pending. Pure: tokens and the time come from the caller. Upstream counterpart: cri-streaming's
request_cache.go.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from dockershim.errors import ResourceExhausted

T = TypeVar("T")
LIFETIME_SECONDS = 60.0
MAX_PENDING = 1000


class TokenBook(Generic[T]):
    """Tokens and what they stand for. Times are seconds of any clock that never goes back."""

    def __init__(self, lifetime_seconds: float = LIFETIME_SECONDS, max_pending: int = MAX_PENDING) -> None:
        self._lifetime_seconds = lifetime_seconds
        self._max_pending = max_pending
        self._pending: dict[str, tuple[float, T]] = {}  # in the order of their ends

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, token: str, ticket: T, now_seconds: float) -> None:
        """Remember a token; ResourceExhausted when too many wait for their client."""
        self._drop_expired(now_seconds)
        if len(self._pending) >= self._max_pending:
            raise ResourceExhausted(f"{self._max_pending} streaming requests wait for their clients already")
        self._pending[token] = (now_seconds + self._lifetime_seconds, ticket)

    def take(self, token: str, now_seconds: float) -> T | None:
        """What a token stands for, once; None when it is unknown, used or too old."""
        self._drop_expired(now_seconds)
        found = self._pending.pop(token, None)
        return None if found is None else found[1]

    def _drop_expired(self, now_seconds: float) -> None:
        while self._pending:
            token, (end_seconds, _) = next(iter(self._pending.items()))
            if end_seconds > now_seconds:
                return
            del self._pending[token]
