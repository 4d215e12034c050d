"""The event loop is never blocked by dockershim.logs."""

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture(autouse=True)
def _unblocked() -> Iterator[None]:
    with blockbuster_ctx("dockershim"):
        yield
