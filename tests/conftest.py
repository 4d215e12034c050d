"""What holds for every test."""

import asyncio


def pytest_configure() -> None:
    """No event loop but those the tests run: else looptime makes one before a plain test, and nobody closes it."""
    asyncio.set_event_loop(None)
