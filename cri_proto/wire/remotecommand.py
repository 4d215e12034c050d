"""The remotecommand protocols: exec and attach, v1 to v4 over SPDY, v1, v4 and v5 over WebSocket.

Owns versions, stream names, the status at the end, terminal sizes and the channel byte. Sans-IO. Upstream counterpart:
cri-streaming's and client-go's remotecommand packages.

v1, v2: streams only; v3: a stream for the size of the terminal; v4: the end is told as a JSON Status; v5: (WebSocket)
the end of stdin can be told by itself. Over WebSocket v1 has the size too, v1 and v4 are also spoken in text (browsers'
clients do): a digit for the channel, then base64. Who names no version speaks v1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from cri_proto.wire import channel_messages

V5, V4, V3, V2, V1 = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
)
V4_TEXT, V1_TEXT = "v4.base64.channel.k8s.io", "base64.channel.k8s.io"
SPDY_PROTOCOLS = (V4, V3, V2, V1)
WEBSOCKET_PROTOCOLS = (V5, V4, V4_TEXT, V1, V1_TEXT)
VERSION_HEADER = "X-Stream-Protocol-Version"
ACCEPTED_VERSIONS_HEADER = "X-Accepted-Stream-Protocol-Versions"
STREAM_TYPE = "streamtype"

STDIN, STDOUT, STDERR, ERROR, RESIZE = "stdin", "stdout", "stderr", "error", "resize"
CHANNELS = (STDIN, STDOUT, STDERR, ERROR, RESIZE)
CLOSE_CHANNEL = 255
_MAX_SIZE_TEXT = 4096


class RemoteCommandError(ValueError):
    """The peer sent something the protocol has not."""


@dataclass(frozen=True, slots=True)
class StreamSet:
    """What one call streams."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    def names(self, protocol: str) -> frozenset[str]:
        """The streams that a client of this protocol opens."""
        wanted = {ERROR: True, STDIN: self.stdin, STDOUT: self.stdout, STDERR: self.stderr and not self.tty}
        wanted[RESIZE] = self.tty and protocol not in (V1, V2)
        return frozenset(name for name, is_wanted in wanted.items() if is_wanted)


def negotiate(offered: Iterable[str], supported: tuple[str, ...]) -> str | None:
    """The version to speak: the first one of the client's that we have; None when there is none."""
    return next((name for name in offered if name in supported), None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: an exit code, or an error that kept it from having one."""

    exit_code: int = 0
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return not self.error and self.exit_code == 0

    @property
    def message(self) -> str:
        """For a person; empty when it ended well."""
        if self.error:
            return self.error
        return f"command terminated with non-zero exit code: exit status {self.exit_code}" if self.exit_code else ""


def format_status(outcome: Outcome, protocol: str) -> bytes:
    """What the error stream says at the end. Before v4: nothing, or the message."""
    if protocol not in (V4, V4_TEXT, V5):
        return outcome.message.encode()
    status: dict[str, object] = {"metadata": {}, "status": "Success" if outcome.ok else "Failure"}
    if not outcome.ok:
        status["message"] = outcome.message
        status["reason"] = "InternalError" if outcome.error else "NonZeroExitCode"
        if outcome.error:
            status["message"] = f"Internal error occurred: {outcome.error}"
            status |= {"details": {"causes": [{"message": outcome.error}]}, "code": 500}
        else:
            status["details"] = {"causes": [{"reason": "ExitCode", "message": str(outcome.exit_code)}]}
    return json.dumps(status, separators=(",", ":")).encode()


def parse_status(data: bytes) -> Outcome:
    """The other direction, for v4 and v5."""
    try:
        status = json.loads(data)
        if status["status"] == "Success":
            return Outcome()
        causes = (status.get("details") or {}).get("causes") or []
        codes = [cause["message"] for cause in causes if cause.get("reason") == "ExitCode"]
        if status.get("reason") == "NonZeroExitCode" and codes:
            return Outcome(exit_code=int(codes[0]))
        return Outcome(error=str(status.get("message") or "it failed and nobody said why"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RemoteCommandError(f"no Status: {data[:200]!r}") from error


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """Columns and rows."""

    width: int
    height: int


class SizeDecoder:
    """Sizes come as JSON objects one after the other, cut anywhere."""

    def __init__(self) -> None:
        self._text = b""

    def feed(self, data: bytes) -> list[TerminalSize]:
        """The sizes that these bytes complete."""
        self._text += data
        sizes = []
        while (end := self._text.find(b"}")) >= 0:
            piece, self._text = self._text[: end + 1], self._text[end + 1 :]
            sizes.append(_size(piece))
        if len(self._text) > _MAX_SIZE_TEXT:
            raise RemoteCommandError("a terminal size without an end")
        return sizes


def _size(piece: bytes) -> TerminalSize:
    try:
        found = json.loads(piece)
        size = TerminalSize(int(found["Width"]), int(found["Height"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RemoteCommandError(f"no terminal size: {piece[:80]!r}") from error
    if not (0 <= size.width <= 0xFFFF and 0 <= size.height <= 0xFFFF):
        raise RemoteCommandError(f"no terminal has {size.width} columns and {size.height} rows")
    return size


def format_size(size: TerminalSize) -> bytes:
    """One size, as clients send it."""
    return json.dumps({"Width": size.width, "Height": size.height}).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class ChannelData:
    """Bytes of a channel (one of CHANNELS)."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """The peer will send nothing more on a channel."""

    name: str


def is_text(protocol: str) -> bool:
    """Whether WebSocket messages of this protocol are text."""
    return protocol in (V4_TEXT, V1_TEXT)


def encode_channel(name: str, data: bytes, protocol: str) -> bytes:
    """One WebSocket message."""
    return channel_messages.encode(CHANNELS.index(name), data, text=is_text(protocol))


def encode_channel_close(name: str) -> bytes:
    """The message that ends a channel (v5)."""
    return bytes((CLOSE_CHANNEL, CHANNELS.index(name)))


def decode_channel(message: bytes, protocol: str) -> ChannelData | ChannelClosed | None:
    """One WebSocket message; None for what is passed over, as Go does: an empty one, and what no channel is for."""
    if not message:
        return None
    try:
        number, data = channel_messages.decode(message, text=is_text(protocol))
    except channel_messages.ChannelMessageError as error:
        raise RemoteCommandError(str(error)) from error
    if number == CLOSE_CHANNEL and protocol == V5:
        if len(data) != 1 or data[0] >= len(CHANNELS):
            raise RemoteCommandError(f"no channel to close: {message[:20]!r}")
        return ChannelClosed(CHANNELS[data[0]])
    return ChannelData(CHANNELS[number], data) if 0 <= number < len(CHANNELS) else None
