"""The event loop is never blocked by dockershim.network, but for the few small local files that say what CNI is."""

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx

READ_IN_PLACE = (
    ("dockershim/network/cni_config.py", {"load_directory"}),  # a directory of one or two files, when it changes
    ("dockershim/network/cni_exec.py", {"find"}),  # whether an executable is there: one or two stat calls
)


@pytest.fixture(autouse=True)
def _unblocked() -> Iterator[None]:
    with blockbuster_ctx("dockershim") as blockbuster:
        for function in blockbuster.functions.values():
            for file, names in READ_IN_PLACE:
                function.can_block_in(file, names)
        yield
