"""One GET over HTTP/2, against the server half of the library and against frames by hand."""

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hyperframe.frame import GoAwayFrame, RstStreamFrame
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.host.http2_get import Http2Error, Http2Get

HEADERS = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"web"), (b":path", b"/healthz")]
LAST = 2**31 - 1


def asked(max_body_bytes: int = 100) -> tuple[Http2Get, H2Connection]:
    """A request, and a server that has it."""
    get = Http2Get(HEADERS, max_body_bytes)
    server = H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    server.receive_data(get.to_send())
    return get, server


def answered(server: H2Connection) -> bytes:
    """What the server sends."""
    server.send_headers(1, [(":status", "200"), ("location", "/next")])
    server.send_data(1, b"ok", end_stream=True)
    return server.data_to_send()


@given(st.integers(1, 40))
def test_an_answer_is_read_however_it_is_cut(size: int) -> None:
    get, server = asked()
    data = answered(server)
    for start in range(0, len(data), size):
        get.receive(data[start : start + size])
    assert (get.status, get.headers[b"location"], bytes(get.body), get.is_whole) == (200, b"/next", b"ok", True)


def test_no_more_is_read_than_is_wanted() -> None:
    get, server = asked(max_body_bytes=10)
    server.send_headers(1, [(":status", "503")])
    server.send_data(1, b"x" * 11)
    get.receive(server.data_to_send())
    assert (get.status, get.is_whole) == (503, True)


def test_a_word_before_the_answer_is_not_the_answer() -> None:
    get, server = asked()
    server.send_headers(1, [(":status", "103")])
    get.receive(server.data_to_send())
    assert (get.status, get.is_whole) == (0, False)
    get.receive(answered(server))
    assert get.status == 200


def test_a_server_that_closes_orderly_is_heard_to_the_end() -> None:
    """Handlers that want the connection closed have GOAWAY sent between the head and the body of their answer."""
    get, server = asked()
    server.send_headers(1, [(":status", "200")])
    head = server.data_to_send()
    server.send_data(1, b"ok", end_stream=True)
    get.receive(head + GoAwayFrame(0, last_stream_id=LAST, error_code=0).serialize())
    get.receive(server.data_to_send())
    assert (bytes(get.body), get.is_whole) == (b"ok", True)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (GoAwayFrame(0, last_stream_id=0, error_code=11).serialize(), "GOAWAY.*ErrCode=ENHANCE_YOUR_CALM"),
        (RstStreamFrame(1, error_code=7).serialize(), "stream ID 1; REFUSED_STREAM"),
        (RstStreamFrame(1, error_code=77).serialize(), "stream ID 1; 77"),
        (b"\xff\xff\xff" + b"\0" * 30, "http2: "),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "http2: "),
    ],
)
def test_an_answer_that_will_not_come_is_told(frame: bytes, words: str) -> None:
    get, server = asked()
    get.receive(server.data_to_send())
    with pytest.raises(Http2Error, match=words):
        get.receive(frame)


def test_a_header_that_http2_cannot_carry_is_told() -> None:
    with pytest.raises(Http2Error, match="http2: "):
        Http2Get([*HEADERS, (b":path", b"/again")], 10)


def test_nothing_may_be_pushed() -> None:
    _, server = asked()
    assert server.remote_settings.enable_push == 0
