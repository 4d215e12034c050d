"""What is asked of a container's log, and which container's log answers it.

Owns the query parameters of /containerLogs, their checks and texts, the choice of the container from a pod's
status, and the shape of time stamps. Reads no file and no clock.

Upstream counterparts: PodLogOptions and its validation, pkg/kubelet/kubelet_pods.go (validateContainerLogStatus).
Difference: `stream` is understood without a feature gate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import Final

from kubelet_py.api import core_v1

NS_PER_SECOND: Final = 1_000_000_000
_STREAMS: Final = {"": None, "All": None, "Stdout": b"stdout", "Stderr": b"stderr"}
_FRACTION_DIGITS: Final = 9


class QueryNotDecodable(ValueError):
    """A parameter is not of its type: 400."""


class QueryInvalid(ValueError):
    """A parameter is of its type, but may not be so: 422."""


class NoLog(ValueError):
    """There is no log to show; the message says why: 400."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What the client wants to see. `stream` None is both."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since_ns: int | None = None
    tail_lines: int | None = None
    limit_bytes: int | None = None
    stream: bytes | None = None


def parse_log_query(parameters: Mapping[str, str], now_ns: int) -> LogQuery:
    """The query of a URL; raises QueryNotDecodable or QueryInvalid with the parameter's name."""
    tail_text = parameters.get("tailLines")
    if parameters.get("tail"):  # an older spelling, which wins
        tail_text = None if parameters["tail"] == "all" else parameters["tail"]
    tail_lines = _integer("tailLines", tail_text)
    since_seconds = _integer("sinceSeconds", parameters.get("sinceSeconds"))
    limit_bytes = _integer("limitBytes", parameters.get("limitBytes"))
    since_time = parameters.get("sinceTime") or None
    stream_name = parameters.get("stream", "")
    since_ns = None
    if since_time is not None:
        try:
            since_ns = rfc3339_ns(since_time.encode())
        except ValueError as error:
            raise QueryNotDecodable(f"sinceTime: {since_time!r} is no RFC 3339 time") from error
    if stream_name not in _STREAMS:
        raise QueryInvalid(f"stream: {stream_name!r} is unknown; it may be All, Stdout or Stderr")
    if tail_lines is not None and tail_lines < 0:
        raise QueryInvalid("tailLines: must be greater than or equal to 0")
    if limit_bytes is not None and limit_bytes < 1:
        raise QueryInvalid("limitBytes: must be greater than 0")
    if since_seconds is not None and since_time is not None:
        raise QueryInvalid("at most one of sinceTime and sinceSeconds may be given")
    if since_seconds is not None:
        if since_seconds < 1:
            raise QueryInvalid("sinceSeconds: must be greater than 0")
        since_ns = now_ns - since_seconds * NS_PER_SECOND
    if _STREAMS[stream_name] is not None and tail_lines is not None:
        raise QueryInvalid("tailLines may not be given together with one stream")
    return LogQuery(
        follow=_boolean(parameters.get("follow")),
        previous=_boolean(parameters.get("previous")),
        timestamps=_boolean(parameters.get("timestamps")),
        since_ns=since_ns,
        tail_lines=tail_lines,
        limit_bytes=limit_bytes,
        stream=_STREAMS[stream_name],
    )


def choose_container_id(pod_name: str, status: core_v1.PodStatus | None, container: str, *, previous: bool) -> str:
    """The id, as the status spells it, of the container whose log is meant; NoLog says why there is none."""
    where = f'container "{container}" in pod "{pod_name}"'
    found = _status_of(status, container)
    if found is None:
        raise NoLog(f"{where} is not available")
    last = found.lastState.terminated if found.lastState is not None else None
    last_id = (last.containerID or "") if last is not None else ""
    if previous:
        if not last_id:
            raise NoLog(f'previous terminated container "{container}" in pod "{pod_name}" not found')
        return last_id
    state = found.state
    if state is not None and state.running is not None:
        return found.containerID or ""
    if state is not None and state.terminated is not None:
        # Where the newest attempt could not be created, the one before has the log.
        chosen = state.terminated.containerID or last_id
        if not chosen:
            raise NoLog(f"{where} is terminated")
        return chosen
    if last is not None:
        if not last_id:
            raise NoLog(f"{where} is terminated")
        return last_id
    if state is not None and state.waiting is not None:
        reasons = {
            "ErrImagePull": "image can't be pulled",
            "ImagePullBackOff": "trying and failing to pull image",
        }
        reason = state.waiting.reason or ""
        raise NoLog(f"{where} is waiting to start: {reasons.get(reason, reason)}")
    raise NoLog(f"{where} is waiting to start - no logs yet")


def rfc3339_ns(text: bytes) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time; ValueError when it is none."""
    seconds_text, fraction, zone = _split_time(text)
    seconds = _epoch_seconds(seconds_text + zone)
    if not fraction:
        return seconds * NS_PER_SECOND
    if not fraction.isdigit():
        raise ValueError(f"{text!r} has a fraction of seconds that is no number")
    return seconds * NS_PER_SECOND + int(fraction[:_FRACTION_DIGITS].ljust(_FRACTION_DIGITS, b"0"))


def with_nine_digits(text: bytes) -> bytes:
    """The same time with exactly nine digits of fraction, so that columns line up."""
    seconds_text, fraction, zone = _split_time(text)
    return b"%b.%b%b" % (seconds_text, fraction[:_FRACTION_DIGITS].ljust(_FRACTION_DIGITS, b"0"), zone)


def _split_time(text: bytes) -> tuple[bytes, bytes, bytes]:
    """Up to the seconds, the fraction's digits, the zone."""
    seconds_text, rest = text[:19], text[19:]
    if not rest.startswith(b"."):
        return seconds_text, b"", rest
    for index in range(1, len(rest)):
        if rest[index : index + 1] in (b"Z", b"z", b"+", b"-"):
            return seconds_text, rest[1:index], rest[index:]
    return seconds_text, rest[1:], b""


@lru_cache(maxsize=256)
def _epoch_seconds(text: bytes) -> int:
    moment = datetime.fromisoformat(text.decode("ascii"))
    if len(text) < 20 or moment.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())


def _status_of(status: core_v1.PodStatus | None, container: str) -> core_v1.ContainerStatus | None:
    if status is None:
        return None
    lists = (status.initContainerStatuses, status.containerStatuses, status.ephemeralContainerStatuses)
    return next((entry for entry in chain.from_iterable(part or () for part in lists) if entry.name == container), None)


def _integer(name: str, text: str | None) -> int | None:
    if not text:
        return None
    try:
        if "_" in text or not text.isascii():
            raise ValueError(text)
        return int(text)
    except ValueError as error:
        raise QueryNotDecodable(f"{name}: {text[:40]!r} is no whole number") from error


def _boolean(text: str | None) -> bool:
    """As the API machinery reads it: a parameter without a value is true."""
    return text is not None and text.lower() not in ("false", "0")
