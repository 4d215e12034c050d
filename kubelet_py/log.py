"""The agent's log: structlog to stderr, one line per event, text for people or JSON for collectors.

Owns format, levels and the routing of libraries' `logging` records into the same stream. Knows no event: names and
fields belong to those who log. -v works as klog's: 0 to 3 show what an operator needs, 4 and more add debug lines,
6 and more add the libraries' own.

Upstream counterpart: k8s.io/component-base/logs. Deliberate difference: field names are ours; values of fields that are
named like a secret are masked here, whatever the caller passes.
"""

import contextlib
import json
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import msgspec
import structlog

from kubelet_py.text import to_valid_text

DEBUG_VERBOSITY = 4
LIBRARY_VERBOSITY = 6
_SECRET_FIELDS = frozenset(
    {"token", "password", "secret", "authorization", "auth", "client_key", "private_key", "headers"}
)
_COLOURS = {"debug": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31;1m"}
_END = "\x1b[0m"
_EVENT_WIDTH = 32

_Event = MutableMapping[str, Any]


class _Verbosity:
    """What is shown now; /debug/flags/v changes it while the agent runs."""

    def __init__(self) -> None:
        self.level = logging.INFO

    def __call__(self, _logger: Any, method: str, event: _Event) -> _Event:
        if logging.getLevelNamesMapping().get(method.upper(), logging.ERROR) < self.level:
            raise structlog.DropEvent
        return event


_verbosity = _Verbosity()


def setup(log_format: str = "text", verbosity: int = 0, stream: TextIO | None = None) -> None:
    """Send everything that is logged to one stream (stderr), in `text` or `json`."""
    stream = stream or sys.stderr
    renderer = _render_json if log_format == "json" else _TextRenderer(colours=stream.isatty())
    structlog.configure(
        processors=[
            _verbosity,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            _mask_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: _Logger(stream),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_LibraryRecords()]
    logging.captureWarnings(True)
    set_verbosity(verbosity)


def set_verbosity(verbosity: int) -> None:
    """Show more (or less) from now on."""
    _verbosity.level = logging.DEBUG if verbosity >= DEBUG_VERBOSITY else logging.INFO
    logging.getLogger().setLevel(
        logging.DEBUG
        if verbosity >= LIBRARY_VERBOSITY
        else logging.INFO
        if verbosity >= DEBUG_VERBOSITY
        else logging.WARNING
    )


class _Logger(structlog.WriteLogger):
    """A line that cannot be written, as on a full disk, is lost; nothing else is."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


class _LibraryRecords(logging.Handler):
    """Libraries' log records as events of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger()
        exc_info = record.exc_info if record.exc_info and record.exc_info[0] else None
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        logger.log(level, "library_message", library=record.name, message=record.getMessage(), exc_info=exc_info)


class _TextRenderer:
    """`time LEVEL event  key=value key="two words"`, the traceback below."""

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def __call__(self, _logger: Any, _method: str, event: _Event) -> str:
        time, level, name = event.pop("time"), event.pop("level"), str(event.pop("event"))
        trace = event.pop("exception", None)
        fields = " ".join(f"{key}={_shown(value)}" for key, value in event.items())
        line = f"{time} {level.upper():<8} {name:<{_EVENT_WIDTH}} {fields}".rstrip()
        if self._colours and level in _COLOURS:
            line = f"{_COLOURS[level]}{line}{_END}"
        return f"{line}\n{to_valid_text(trace)}" if trace else line


def _shown(value: Any) -> str:
    text = to_valid_text(value if isinstance(value, str) else str(value))
    if text and not any(character in text for character in ' ="\n\t'):
        return text
    return msgspec.json.encode(text).decode()


def _render_json(_logger: Any, _method: str, event: _Event) -> str:
    try:
        return msgspec.json.encode(dict(event), enc_hook=str).decode()
    except UnicodeEncodeError:
        return to_valid_text(json.dumps(event, default=str, ensure_ascii=False, separators=(",", ":")))


def _mask_secrets(_logger: Any, _method: str, event: _Event) -> _Event:
    for key in event:
        if key in _SECRET_FIELDS:
            event[key] = "<masked>"
    return event
