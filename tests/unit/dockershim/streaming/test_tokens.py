"""Tokens: once, for a minute, and not too many."""

from __future__ import annotations

import pytest

from dockershim.errors import ResourceExhausted
from dockershim.streaming.tokens import LIFETIME_SECONDS, MAX_PENDING, TokenBook


def test_a_token_is_good_once() -> None:
    """The second client finds nothing."""
    book: TokenBook[str] = TokenBook()
    book.add("a", "ticket", 0.0)
    assert book.take("a", 1.0) == "ticket"
    assert book.take("a", 1.0) is None
    assert book.take("never", 1.0) is None


def test_a_token_ends_after_a_minute() -> None:
    """Just before it is good, then it is gone and takes no room."""
    book: TokenBook[str] = TokenBook()
    book.add("a", "ticket", 0.0)
    book.add("b", "ticket", 0.0)
    assert book.take("a", LIFETIME_SECONDS - 0.1) == "ticket"
    assert book.take("b", LIFETIME_SECONDS) is None
    assert len(book) == 0


def test_a_thousand_may_wait() -> None:
    """Then ResourceExhausted, until some have ended."""
    book: TokenBook[int] = TokenBook()
    for number in range(MAX_PENDING):
        book.add(str(number), number, 0.0)
    with pytest.raises(ResourceExhausted):
        book.add("more", 0, 1.0)
    book.add("more", 7, LIFETIME_SECONDS)
    assert book.take("more", LIFETIME_SECONDS) == 7
