"""Which streams of a port-forward belong together."""

from __future__ import annotations

import pytest

from cri_proto.wire import portforward as wire


def headers(kind: str, port: str = "80", request: str = "1") -> dict[str, str]:
    """The headers of one stream."""
    return {"streamtype": kind, "port": port, "requestid": request}


@pytest.mark.parametrize("first", [wire.ERROR, wire.DATA])
def test_two_streams_of_a_request_make_a_pair(first: str) -> None:
    """In either order."""
    book = wire.PairBook()
    second = wire.DATA if first == wire.ERROR else wire.ERROR
    assert book.add(1, headers(first)) is None
    pair = book.add(3, headers(second))
    assert pair is not None
    assert (pair.port, {pair.error_stream, pair.data_stream}) == (80, {1, 3})
    assert (pair.error_stream == 1) == (first == wire.ERROR)


def test_requests_do_not_mix() -> None:
    """Streams of several connections come in any order."""
    book = wire.PairBook()
    assert book.add(1, headers("error", request="a")) is None
    assert book.add(3, headers("error", request="b")) is None
    assert book.add(5, headers("data", request="b")) == wire.Pair("b", 80, 3, 5)
    assert book.add(7, headers("data", request="a")) == wire.Pair("a", 80, 1, 7)


def test_old_clients_name_no_request() -> None:
    """The data stream is the next one after the error stream."""
    book = wire.PairBook()
    assert book.add(1, {"streamtype": "error", "port": "80"}) is None
    assert book.add(3, {"streamtype": "data", "port": "80"}) == wire.Pair("1", 80, 1, 3)


@pytest.mark.parametrize("port", ["", "0", "65536", "-1", "x", "8 0", "\u0663"])
def test_what_is_no_port(port: str) -> None:
    """Refused, with the text."""
    with pytest.raises(wire.PortForwardError, match="port"):
        wire.PairBook().add(1, headers("data", port))


def test_streams_that_cannot_be_a_pair() -> None:
    """An unknown kind, the same kind twice, different ports, and too many halves."""
    with pytest.raises(wire.PortForwardError, match="streamType"):
        wire.PairBook().add(1, headers("stdin"))
    for second in (headers("data"), headers("error", port="81")):
        book = wire.PairBook()
        book.add(1, headers("data"))
        with pytest.raises(wire.PortForwardError):
            book.add(3, second)
    book = wire.PairBook()
    for number in range(wire.MAX_HALF_PAIRS):
        book.add(2 * number + 1, headers("data", request=str(number)))
    with pytest.raises(wire.PortForwardError, match="too many"):
        book.add(9999, headers("data", request="more"))
    book.remove(1)
    assert book.add(9999, headers("data", request="more")) is None


@pytest.mark.parametrize(
    ("given", "ports"), [(["80"], (80,)), (["80,81"], (80, 81)), (["80", "65535,1"], (80, 65535, 1))]
)
def test_ports_of_a_query(given: list[str], ports: tuple[int, ...]) -> None:
    """One or several, in one word or many."""
    assert wire.parse_ports(given) == ports


@pytest.mark.parametrize("given", [[], [""], ["0"], ["65536"], ["80,"], ["http"], ["-1"], ["\u0663"], ["1"] * 101])
def test_ports_that_are_none(given: list[str]) -> None:
    """Each says what was wrong."""
    with pytest.raises(wire.PortForwardError, match="port"):
        wire.parse_ports(given)


def test_channels_of_a_port() -> None:
    """Data and error side by side; both begin with the port, its low byte first."""
    assert [wire.channels_of(index) for index in range(3)] == [(0, 1), (2, 3), (4, 5)]
    assert wire.first_words(8080) == b"\x90\x1f"
