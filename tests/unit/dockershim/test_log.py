"""What dockershim logs, and where it cannot."""

import contextlib
import sys
from collections.abc import Iterator

import pytest
import structlog

from dockershim.log import configure_logging


@pytest.fixture(autouse=True)
def _configuration_of_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_line_that_cannot_be_written_ends_nothing(monkeypatch: pytest.MonkeyPatch, log_format: str) -> None:
    """As on a full disk: a call that logs is answered all the same."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stderr", full)
        configure_logging("info", log_format)
        structlog.get_logger().info("nobody_reads_this", size=5)
        with contextlib.suppress(OSError):
            full.close()
        structlog.get_logger().error("nor_this")
