"""The log: one line per event, levels by -v, libraries in the same stream, secrets masked."""

import contextlib
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from kubelet_py import log


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """The process-wide state of both logging systems is put back."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def test_text_is_one_line_with_quoted_fields() -> None:
    """Words with spaces are quoted, so a line can be cut at spaces."""
    stream = io.StringIO()
    log.setup("text", 0, stream)
    structlog.get_logger().info("pod_started", pod="a/b", cause="two words", code=0)
    time, rest = stream.getvalue().split(" ", 1)
    assert time.endswith("Z")
    assert rest.split() == ["INFO", "pod_started", "pod=a/b", 'cause="two', 'words"', "code=0"]


def test_json_is_one_object_a_line() -> None:
    """With time, level and event."""
    stream = io.StringIO()
    log.setup("json", 0, stream)
    structlog.get_logger().warning("runtime_away", endpoint="unix:///x", error=ValueError("gone"))
    record = json.loads(stream.getvalue())
    assert {key: record[key] for key in ("level", "event", "endpoint", "error")} == {
        "level": "warning",
        "event": "runtime_away",
        "endpoint": "unix:///x",
        "error": "gone",
    }


def test_debug_lines_come_with_verbosity_four_also_later() -> None:
    """-v, and its change while running."""
    stream = io.StringIO()
    log.setup("text", 3, stream)
    logger = structlog.get_logger()
    logger.debug("first")
    log.set_verbosity(4)
    logger.debug("second")
    assert "first" not in stream.getvalue()
    assert "second" in stream.getvalue()


def test_library_records_become_events() -> None:
    """Warnings always, more from -v=4."""
    stream = io.StringIO()
    log.setup("json", 0, stream)
    logging.getLogger("grpc").info("quiet")
    logging.getLogger("grpc").warning("channel %d is broken", 3)
    record = json.loads(stream.getvalue())
    assert (record["event"], record["library"], record["message"]) == ("library_message", "grpc", "channel 3 is broken")


def test_fields_named_like_secrets_are_masked() -> None:
    """Whatever the caller passes."""
    stream = io.StringIO()
    log.setup("text", 0, stream)
    structlog.get_logger().info("login", token="abc", user="u")
    assert "abc" not in stream.getvalue()
    assert "user=u" in stream.getvalue()


def test_a_traceback_stands_below_its_line() -> None:
    """For the person who has to find the cause."""
    stream = io.StringIO()
    log.setup("text", 0, stream)
    try:
        raise ValueError("boom")
    except ValueError:
        structlog.get_logger().exception("pass_failed")
    first, *below = stream.getvalue().splitlines()
    assert "pass_failed" in first
    assert below[-1] == "ValueError: boom"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_no_encoder_takes_can_be_logged(log_format: str) -> None:
    """Names of files that are no UTF-8, alone, beside spaces, in lists and in tracebacks."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "utf-8", write_through=True)
    log.setup(log_format, 0, stream)
    logger = structlog.get_logger()
    logger.warning(
        "manifest_unusable", file="a\udcff.yaml", problem="a\udcff b", names=["\udcff"], error=OSError("\udcff")
    )
    try:
        raise ValueError("\udcff")
    except ValueError as error:
        logger.error("broke", exc_info=error)
    lines = raw.getvalue().decode().splitlines()
    assert "a\ufffd.yaml" in lines[0]
    assert "a\ufffd b" in lines[0]
    assert lines[0].startswith("{") == (log_format == "json")
    assert any("ValueError: \ufffd" in line for line in lines[1:])


def test_a_line_that_cannot_be_written_ends_nothing() -> None:
    """As on a full disk; what comes when there is room again is written."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        log.setup("text", 0, full)
        structlog.get_logger().info("nobody_reads_this", size=5)
        with contextlib.suppress(OSError):
            full.close()
        structlog.get_logger().error("nor_this")
