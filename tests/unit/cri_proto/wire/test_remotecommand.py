"""remotecommand: versions, streams, the status, sizes and channels."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_proto.wire import remotecommand as wire


@pytest.mark.parametrize("protocol", [wire.V4, wire.V5])
@given(st.integers(0, 255), st.text(max_size=20))
def test_the_outcome_survives_the_way(protocol: str, code: int, error: str) -> None:
    """Exit codes as they are; errors keep their words."""
    outcome = wire.Outcome(error=error) if error else wire.Outcome(code)
    back = wire.parse_status(wire.format_status(outcome, protocol))
    assert back.ok == outcome.ok
    assert back.exit_code == outcome.exit_code
    assert error in back.error


def test_the_status_as_clients_read_it() -> None:
    """client-go looks at reason and at the cause named ExitCode."""
    status = json.loads(wire.format_status(wire.Outcome(3), wire.V4))
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
    assert json.loads(wire.format_status(wire.Outcome(), wire.V4)) == {"metadata": {}, "status": "Success"}


@pytest.mark.parametrize("protocol", [wire.V1, wire.V2, wire.V3])
def test_before_v4_the_error_stream_is_plain(protocol: str) -> None:
    """Nothing when it ended well, a sentence otherwise."""
    assert wire.format_status(wire.Outcome(), protocol) == b""
    assert b"exit status 2" in wire.format_status(wire.Outcome(2), protocol)


def test_the_streams_of_each_version() -> None:
    """A terminal has no stderr, and its size only from v3 on."""
    tty = wire.StreamSet(stdin=True, stdout=True, stderr=True, tty=True)
    assert tty.names(wire.V4) == {"error", "stdin", "stdout", "resize"}
    assert tty.names(wire.V2) == {"error", "stdin", "stdout"}
    plain = wire.StreamSet(stdin=False, stdout=True, stderr=True, tty=False)
    assert plain.names(wire.V4) == {"error", "stdout", "stderr"}


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)), max_size=5), st.integers(1, 9))
def test_sizes_survive_any_cut(sizes: list[tuple[int, int]], step: int) -> None:
    """JSON objects one after the other, in pieces of any length."""
    sent = [wire.TerminalSize(*size) for size in sizes]
    data = b"".join(wire.format_size(size) for size in sent)
    decoder = wire.SizeDecoder()
    assert [size for at in range(0, len(data), step) for size in decoder.feed(data[at : at + step])] == sent


@pytest.mark.parametrize("data", [b"}", b'{"Width":1}', b'{"Width":-1,"Height":2}', b"[1]}", b"x" * 5000])
def test_what_is_no_size(data: bytes) -> None:
    """Refused, with the text."""
    with pytest.raises(wire.RemoteCommandError):
        wire.SizeDecoder().feed(data)


@given(st.sampled_from(wire.CHANNELS), st.binary(max_size=50), st.sampled_from(wire.WEBSOCKET_PROTOCOLS))
def test_channels_survive_the_way(name: str, data: bytes, protocol: str) -> None:
    """The name and the bytes."""
    assert wire.decode_channel(wire.encode_channel(name, data, protocol), protocol) == wire.ChannelData(name, data)


def test_channels_in_text_as_browsers_write_them() -> None:
    """A digit, then base64."""
    assert wire.encode_channel("stdout", b"\n", wire.V1_TEXT) == b"1Cg=="
    assert wire.decode_channel(b"0Zm9vCg==", wire.V4_TEXT) == wire.ChannelData("stdin", b"foo\n")
    with pytest.raises(wire.RemoteCommandError):
        wire.decode_channel(b"0*", wire.V4_TEXT)


def test_the_close_signal_is_v5s() -> None:
    """v5 can end stdin; v4 has no such channel."""
    signal = wire.encode_channel_close("stdin")
    assert wire.decode_channel(signal, wire.V5) == wire.ChannelClosed("stdin")
    assert wire.decode_channel(signal, wire.V4) is None
    for message in (b"\xff", b"\xff\x09"):
        with pytest.raises(wire.RemoteCommandError):
            wire.decode_channel(message, wire.V5)


@pytest.mark.parametrize(
    ("message", "protocol"),
    [
        (b"", wire.V5),
        (b"", wire.V1_TEXT),
        (b"\5", wire.V4),
        (b"\5x", wire.V5),
        (b"9Cg==", wire.V4_TEXT),
        (b"\x00Cg==", wire.V4_TEXT),
    ],
)
def test_messages_for_no_channel_are_passed_over(message: bytes, protocol: str) -> None:
    """They are no reason to end a session: Go's servers go on."""
    assert wire.decode_channel(message, protocol) is None


def test_the_first_version_that_both_have() -> None:
    """In the client's order."""
    assert wire.negotiate([wire.V5, wire.V4, wire.V1], wire.SPDY_PROTOCOLS) == wire.V4
    assert wire.negotiate(["v9"], wire.SPDY_PROTOCOLS) is None


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"status":"Failure","details":3}'])
def test_what_is_no_status(data: bytes) -> None:
    """Refused, with the text."""
    with pytest.raises(wire.RemoteCommandError):
        wire.parse_status(data)
