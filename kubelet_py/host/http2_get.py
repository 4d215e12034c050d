"""One GET over a connection on which TLS has agreed to speak HTTP/2.

Owns what goes over the connection and when the answer is whole; the frames are the library's. Imported when a server
chooses HTTP/2 for the first time: an agent without such a server has no use for the library.

Upstream counterpart: golang.org/x/net/http2, as net/http uses it for the transport of pkg/probe/http. Deliberate
difference: one stream, no window updates, because no more is read than a first window holds.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

_CONFIGURATION: Final = H2Configuration(client_side=True, header_encoding=None)
_FRAME_HEAD_BYTES: Final = 9
_MAX_FRAME_BYTES: Final = 1 << 14
_GOAWAY: Final = 7


class Http2Error(Exception):
    """The stream or the connection ended without an answer; the text says how."""


class Http2Get:
    """The request's bytes, and the answer from what comes back. No I/O."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], max_body_bytes: int) -> None:
        """Header names in lower case, the pseudo-headers first; Http2Error where HTTP/2 cannot carry one."""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()
        self.is_whole = False
        self._received = bytearray()
        self._max_body_bytes = max_body_bytes
        self._connection = H2Connection(_CONFIGURATION)
        self._connection.local_settings = Settings(client=True, initial_values={SettingCodes.ENABLE_PUSH: 0})
        self._connection.initiate_connection()
        self._stream = self._connection.get_next_available_stream_id()
        try:
            self._connection.send_headers(self._stream, list(headers), end_stream=True)
        except ProtocolError as error:
            raise Http2Error(f"http2: {error}") from error

    def to_send(self) -> bytes:
        """What is to go over the wire now."""
        return self._connection.data_to_send()

    def receive(self, data: bytes) -> None:
        """What came; Http2Error when no answer will follow."""
        self._received += data
        while frame := self._next_frame():
            if frame[3] == _GOAWAY:
                self._say_farewell(frame)
                continue
            try:
                events = self._connection.receive_data(frame)
            except ProtocolError as error:
                raise Http2Error(f"http2: {error}") from error
            for event in events:
                self._take(event)

    def _next_frame(self) -> bytes:
        """One frame, or nothing yet."""
        if len(self._received) < _FRAME_HEAD_BYTES:
            return b""
        length = int.from_bytes(self._received[:3])
        end = _FRAME_HEAD_BYTES + length
        if length > _MAX_FRAME_BYTES:  # what a server begins with that speaks something else looks so too
            raise Http2Error(f"http2: frame of {length} bytes, more than {_MAX_FRAME_BYTES}")
        if len(self._received) < end:
            return b""
        frame = bytes(self._received[:end])
        del self._received[:end]
        return frame

    def _say_farewell(self, frame: bytes) -> None:
        """A server that closes orderly still answers the streams up to the one that it names (RFC 9113, 6.8).

        The library takes nothing any more after such a frame, and is not given it.
        """
        payload = frame[_FRAME_HEAD_BYTES:]
        if int.from_bytes(payload[:4]) & 0x7FFFFFFF < self._stream:
            code = _code_name(int.from_bytes(payload[4:8]))
            raise Http2Error(f"http2: server sent GOAWAY and closed the connection; ErrCode={code}")

    def _take(self, event: Event) -> None:
        if isinstance(event, StreamReset):
            code = _code_name(event.error_code)
            raise Http2Error(f"stream error: stream ID {event.stream_id}; {code}; received from peer")
        if isinstance(event, ResponseReceived):
            self.headers = dict(event.headers)
            self.status = int(self.headers.get(b":status", b"0"))
        elif isinstance(event, DataReceived):
            self.body += event.data
            self.is_whole = self.is_whole or len(self.body) >= self._max_body_bytes
        elif isinstance(event, StreamEnded):
            self.is_whole = True


def _code_name(code: int | None) -> str:
    return next((known.name for known in ErrorCodes if known == code), str(code))


async def exchange(get: Http2Get, write: Callable[[bytes], None], read: Callable[[], Awaitable[bytes]]) -> None:
    """Sends the request and reads until the answer is whole. Raises Http2Error."""
    write(get.to_send())
    while not get.is_whole:
        data = await read()
        if not data:
            raise Http2Error("unexpected EOF")
        get.receive(data)
        write(get.to_send())
