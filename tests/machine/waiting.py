"""How long the tests of a machine wait: on an emulated processor, which others may take away for minutes.

Nobody is waited for by the clock alone. A machine that stands still cannot do what it is asked for, so a look counts
for what it takes on a machine that runs, however much later the next one is.

What no test can wait for are the deadlines of dockershim itself, which are its behaviour: 110 s for a call to Docker,
10 s for a ping. A machine that gets a few percent of a processor for minutes fails with "Docker did not answer".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

SECONDS = 480.0
"""Of looks that find nothing."""
CALL_SECONDS = 1800.0
"""Of a single call, whose server stands still when its caller does."""
MOST_OF_A_LOOK_SECONDS = 5.0

T = TypeVar("T")


def until(look: Callable[[], T], wanted: Callable[[T], object] = bool, every_seconds: float = 0.5) -> T:
    """What `look` gives once it is as wanted."""
    waited_seconds, before = 0.0, time.monotonic()
    while not wanted(found := look()):
        assert waited_seconds < SECONDS, f"it did not come about in time: {found}"
        time.sleep(every_seconds)
        now = time.monotonic()
        waited_seconds += min(now - before, MOST_OF_A_LOOK_SECONDS)
        before = now
    return found
