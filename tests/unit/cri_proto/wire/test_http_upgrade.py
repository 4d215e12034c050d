"""The head of an upgrade request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_proto.wire import http_upgrade as http

HEAD = (
    b"POST /exec/abc?x=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    b"X-Stream-Protocol-Version: v4\r\nX-Stream-Protocol-Version: v3, v2\r\n\r\n"
)


def test_an_upgrade_is_understood() -> None:
    """Names in any case, lists in one header or in several."""
    head = http.parse_request_head(HEAD)
    assert (head.method, head.target, head.upgrade) == ("POST", "/exec/abc?x=1", "spdy/3.1")
    assert head.listed("x-stream-protocol-version") == ["v4", "v3", "v2"]


def test_an_upgrade_needs_both_headers() -> None:
    """Upgrade without Connection is no wish."""
    assert http.parse_request_head(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n").upgrade == ""


@pytest.mark.parametrize(
    "data", [b"\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/2\r\n\r\n", b"GET / HTTP/1.1\r\nno\r\n\r\n"]
)
def test_what_is_no_request(data: bytes) -> None:
    """Refused, with the text."""
    with pytest.raises(http.BadRequest):
        http.parse_request_head(data)


def test_a_head_has_a_limit() -> None:
    """64 KiB."""
    with pytest.raises(http.BadRequest, match="longer"):
        http.parse_request_head(b"x" * 70_000)


@given(st.binary(max_size=200))
def test_any_bytes_are_answered(data: bytes) -> None:
    """A head or BadRequest."""
    try:
        http.parse_request_head(data)
    except http.BadRequest:
        return


def test_answers() -> None:
    """An upgrade has no body; a refusal has one and ends the connection."""
    assert http.format_response(101, (("Upgrade", "SPDY/3.1"),)).endswith(b"Upgrade: SPDY/3.1\r\n\r\n")
    refusal = http.format_response(404, (), "no such stream")
    assert refusal.endswith(b"\r\n\r\nno such stream\n")
    assert b"Connection: close" in refusal


def test_the_status_of_an_answer() -> None:
    assert http.parse_response_status(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\n\r\n") == 101
    assert http.parse_response_status(http.format_response(404, (), "no such stream")) == 404
    assert http.parse_response_status(b"HTTP/1.0 200\r\n\r\n") == 200


@pytest.mark.parametrize(
    "block", [b"", b"HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 1\xb2\xb3 x\r\n", b"HTTP/2 101"]
)
def test_what_is_no_answer(block: bytes) -> None:
    with pytest.raises(http.BadResponse, match=r"no HTTP/1\.1 answer"):
        http.parse_response_status(block)
