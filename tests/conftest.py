"""What holds for every test."""

import asyncio
from typing import Any

from blockbuster import BlockBuster


def pytest_configure() -> None:
    """No event loop but those the tests run: else looptime makes one before a plain test, and nobody closes it."""
    asyncio.set_event_loop(None)
    _let_grpc_end_its_poller()


def _let_grpc_end_its_poller() -> None:
    """gRPC joins its poller thread when the last call object is collected, in whichever test that happens to be."""
    make = BlockBuster.__init__

    def make_lenient(self: BlockBuster, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        for name in ("threading.Lock.acquire", "threading.Lock.acquire_lock"):
            self.functions[name].can_block_in("threading.py", {"_wait_for_tstate_lock"})

    setattr(BlockBuster, "__init__", make_lenient)  # noqa: B010 # mypy refuses the plain assignment to a method
