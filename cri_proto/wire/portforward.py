"""The port-forward protocols: how the connections of one client are told apart, and what went wrong with each.

Owns the headers of SPDY streams and who belongs to whom, the ports of a query, and the channels. Sans-IO. Upstream
counterpart: cri-streaming's portforward package.

Over SPDY each connection is a pair of streams, one for data and one for what went wrong. Over WebSocket the same SPDY
connection runs inside binary messages (the tunnel); older clients name their ports in the query and have one
connection to each, with two channels (v4): 2i carries the data of port i and 2i + 1 its error, and both begin with
the port.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

PROTOCOL = "portforward.k8s.io"
TUNNEL_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
CHANNEL_PROTOCOL, TEXT_CHANNEL_PROTOCOL = "v4.channel.k8s.io", "v4.base64.channel.k8s.io"
WEBSOCKET_PROTOCOLS = (TUNNEL_PROTOCOL, CHANNEL_PROTOCOL, TEXT_CHANNEL_PROTOCOL)
STREAM_TYPE, PORT, REQUEST_ID = "streamtype", "port", "requestid"
ERROR, DATA = "error", "data"
MAX_HALF_PAIRS = 256
MAX_CHANNEL_PORTS = 100
"""So many channels have a number of one byte, or one letter."""


class PortForwardError(ValueError):
    """A stream or port that cannot belong to any connection; the text says why."""


def parse_ports(texts: Iterable[str]) -> tuple[int, ...]:
    """The ports that a client of channels names, each text one of them or several with commas between."""
    ports = tuple(_port(word) for text in texts for word in text.split(","))
    if not ports:
        raise PortForwardError('query parameter "port" is required')
    if len(ports) > MAX_CHANNEL_PORTS:
        raise PortForwardError(f"{len(ports)} ports: want at most {MAX_CHANNEL_PORTS}, or SPDY")
    return ports


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 5 and 0 < int(text) < 1 << 16):
        raise PortForwardError(f"port {text!r}: want 1 to 65535")
    return int(text)


def channels_of(index: int) -> tuple[int, int]:
    """The channels of data and error of the port with this index."""
    return 2 * index, 2 * index + 1


def first_words(port: int) -> bytes:
    """What both channels of a port begin with."""
    return struct.pack("<H", port)


@dataclass(frozen=True, slots=True)
class Pair:
    """One forwarded connection."""

    request_id: str
    port: int
    error_stream: int
    data_stream: int


class PairBook:
    """Puts streams together by their request. Old clients name none: their data stream follows the error stream."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[str, int, int]] = {}

    def add(self, stream_id: int, headers: dict[str, str]) -> Pair | None:
        """A stream was opened: the pair when it is complete now."""
        kind = headers.get(STREAM_TYPE, "")
        if kind not in (ERROR, DATA):
            raise PortForwardError(f"streamType {kind!r}: want error or data")
        port = _port(headers.get(PORT, ""))
        request_id = headers.get(REQUEST_ID) or str(stream_id if kind == ERROR else stream_id - 2)
        other = self._waiting.pop(request_id, None)
        if other is None:
            if len(self._waiting) >= MAX_HALF_PAIRS:
                raise PortForwardError("too many streams whose other half never came")
            self._waiting[request_id] = (kind, stream_id, port)
            return None
        other_kind, other_id, other_port = other
        if other_kind == kind or other_port != port:
            raise PortForwardError(f"request {request_id}: two {kind} streams, or streams for different ports")
        error_id, data_id = (stream_id, other_id) if kind == ERROR else (other_id, stream_id)
        return Pair(request_id, port, error_id, data_id)

    def remove(self, stream_id: int) -> None:
        """A stream is gone."""
        for request_id, (_, waiting_id, _) in list(self._waiting.items()):
            if waiting_id == stream_id:
                del self._waiting[request_id]
