"""Query parameters of logs, the choice of the container, time stamps."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import codec, core_v1
from kubelet_py.core.log_query import (
    LogQuery,
    NoLog,
    QueryInvalid,
    QueryNotDecodable,
    choose_container_id,
    parse_log_query,
    rfc3339_ns,
    with_nine_digits,
)

NOW_NS = 1_000_000_000_000


@pytest.mark.parametrize(
    ("parameters", "query"),
    [
        ({}, LogQuery()),
        ({"follow": "true", "previous": "1", "timestamps": ""}, LogQuery(True, True, True)),
        ({"follow": "False", "timestamps": "0"}, LogQuery()),
        ({"tailLines": "5", "limitBytes": "7"}, LogQuery(tail_lines=5, limit_bytes=7)),
        ({"tailLines": ""}, LogQuery()),
        ({"tail": "all", "tailLines": "5"}, LogQuery()),
        ({"tail": "3", "tailLines": "5"}, LogQuery(tail_lines=3)),
        ({"sinceSeconds": "10"}, LogQuery(since_ns=NOW_NS - 10_000_000_000)),
        ({"sinceTime": "1970-01-01T00:00:01.5Z"}, LogQuery(since_ns=1_500_000_000)),
        ({"stream": "Stderr"}, LogQuery(stream=b"stderr")),
        ({"stream": "All", "tailLines": "1", "unknown": "x"}, LogQuery(tail_lines=1)),
    ],
)
def test_what_is_asked(parameters: dict[str, str], query: LogQuery) -> None:
    assert parse_log_query(parameters, NOW_NS) == query


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tailLines", "x"),
        ("limitBytes", "1_0"),
        ("sinceSeconds", "1s"),
        ("sinceTime", "yesterday"),
    ],
)
def test_what_is_not_of_its_type(name: str, value: str) -> None:
    """The parameter is named, and what was given for it."""
    with pytest.raises(QueryNotDecodable, match=f"{name}.*{value}"):
        parse_log_query({name: value}, NOW_NS)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"tailLines": "-1"}, "tailLines: must be greater than or equal to 0"),
        ({"limitBytes": "0"}, "limitBytes: must be greater than 0"),
        ({"sinceSeconds": "0"}, "sinceSeconds: must be greater than 0"),
        (
            {"sinceSeconds": "1", "sinceTime": "2026-01-01T00:00:00Z"},
            "at most one of sinceTime and sinceSeconds may be given",
        ),
        ({"stream": "stdout"}, "stream: 'stdout' is unknown; it may be All, Stdout or Stderr"),
        ({"stream": "Stdout", "tailLines": "1"}, "tailLines may not be given together with one stream"),
    ],
)
def test_what_may_not_be_so(parameters: dict[str, str], message: str) -> None:
    with pytest.raises(QueryInvalid) as caught:
        parse_log_query(parameters, NOW_NS)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("parameters", "query"),
    [
        ({"tailLines": "0"}, LogQuery(tail_lines=0)),
        ({"limitBytes": "1"}, LogQuery(limit_bytes=1)),
        ({"sinceSeconds": "1"}, LogQuery(since_ns=NOW_NS - 1_000_000_000)),
        ({"stream": "Stdout"}, LogQuery(stream=b"stdout")),
    ],
)
def test_the_least_that_may_be(parameters: dict[str, str], query: LogQuery) -> None:
    assert parse_log_query(parameters, NOW_NS) == query


ENDED = {"terminated": {"exitCode": 1, "containerID": "r://old"}}
ENDED_NAMELESS = {"terminated": {"exitCode": 1}}


@pytest.mark.parametrize(
    ("state", "last", "previous", "expected"),
    [
        ({"running": {}}, None, False, "r://now"),
        ({"running": {}}, ENDED, True, "r://old"),
        ({"terminated": {"exitCode": 0, "containerID": "r://done"}}, None, False, "r://done"),
        (ENDED_NAMELESS, ENDED, False, "r://old"),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, ENDED, False, "r://old"),
    ],
)
def test_the_container_whose_log_is_meant(
    state: dict[str, Any], last: dict[str, Any] | None, previous: bool, expected: str
) -> None:
    assert choose_container_id("web", status(state, last), "main", previous=previous) == expected


@pytest.mark.parametrize(
    ("state", "last", "previous", "text"),
    [
        ({"running": {}}, None, True, 'previous terminated container "main" in pod "web" not found'),
        ({"running": {}}, ENDED_NAMELESS, True, 'previous terminated container "main" in pod "web" not found'),
        (ENDED_NAMELESS, None, False, 'container "main" in pod "web" is terminated'),
        ({"waiting": {"reason": "X"}}, ENDED_NAMELESS, False, 'container "main" in pod "web" is terminated'),
        ({"waiting": {"reason": "ErrImagePull"}}, None, False, "is waiting to start: image can't be pulled"),
        ({"waiting": {"reason": "ImagePullBackOff"}}, None, False, "start: trying and failing to pull image"),
        ({"waiting": {"reason": "ContainerCreating"}}, None, False, "is waiting to start: ContainerCreating"),
        ({}, None, False, "is waiting to start - no logs yet"),
    ],
)
def test_why_there_is_no_log(state: dict[str, Any], last: dict[str, Any] | None, previous: bool, text: str) -> None:
    with pytest.raises(NoLog) as caught:
        choose_container_id("web", status(state, last), "main", previous=previous)
    assert text in str(caught.value)


def test_a_container_without_a_status_is_not_available_and_init_containers_have_logs_too() -> None:
    for known in (None, status({"running": {}}, None)):
        with pytest.raises(NoLog, match=r'^container "other" in pod "web" is not available$'):
            choose_container_id("web", known, "other", previous=False)
    init = core_v1.PodStatus(initContainerStatuses=status({"running": {}}, None).containerStatuses)
    assert choose_container_id("web", init, "main", previous=False) == "r://now"


def status(state: dict[str, Any], last: dict[str, Any] | None) -> core_v1.PodStatus:
    entry = {"name": "main", "image": "x", "imageID": "x", "ready": True, "restartCount": 0, "containerID": "r://now"}
    return codec.from_builtins(
        core_v1.PodStatus, {"containerStatuses": [{**entry, "state": state, "lastState": last or {}}]}
    )


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)), st.integers(0, 999_999_999))
def test_times_are_read_exactly_in_any_zone(moment: datetime, nanoseconds: int) -> None:
    whole = moment.replace(microsecond=0)
    expected = int(whole.timestamp()) * 10**9 + nanoseconds
    for zone in ("Z", "+00:00"):
        text = f"{whole:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}{zone}".encode()
        assert rfc3339_ns(text) == expected
        assert with_nine_digits(text) == text


def test_time_stamps_line_up() -> None:
    assert with_nine_digits(b"2026-01-01T00:00:00.12+02:00") == b"2026-01-01T00:00:00.120000000+02:00"
    assert with_nine_digits(b"2026-01-01T00:00:00Z") == b"2026-01-01T00:00:00.000000000Z"
    assert rfc3339_ns(b"2026-01-01T02:00:00+02:00") == rfc3339_ns(b"2026-01-01T00:00:00.0Z")


@pytest.mark.parametrize(
    "text", [b"", b"2026-01-01T00:00:00", b"2026-01-01T00:00:00.5", b"2026-01-01T00:00:00.xZ", b"2026-13-01T00:00:00Z"]
)
def test_what_is_no_time(text: bytes) -> None:
    with pytest.raises(ValueError):
        rfc3339_ns(text)
