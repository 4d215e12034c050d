"""The rig, with nothing that blocks the loop."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from structlog.testing import capture_logs

from tests.unit.kubelet_py.sync.rig import Rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    with blockbuster_ctx("kubelet_py"), capture_logs():
        yield made
