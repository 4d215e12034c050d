"""The head of an HTTP/1.1 request that wants another protocol, and the head of the answer.

Owns just as much of HTTP as an upgrade needs. Sans-IO. Upstream counterpart: net/http with apimachinery's
httpstream package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_HEAD_BYTES = 64 * 1024
SWITCHING = 101
REASONS = {
    SWITCHING: "Switching Protocols",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class BadRequest(ValueError):
    """Not a request we understand; the text says why."""


class BadResponse(ValueError):
    """Not an answer we understand; the text says why."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of a request. Header names are lower-case; a name may come several times."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str:
        """The first value of a header, or nothing."""
        return next((value for key, value in self.headers if key == name), "")

    def listed(self, name: str) -> list[str]:
        """All values of a header that holds lists: one header with commas and many headers mean the same."""
        parts = (part.strip() for key, value in self.headers if key == name for part in value.split(","))
        return [part for part in parts if part]

    @property
    def upgrade(self) -> str:
        """The protocol that is wanted, in lower case; empty when none is."""
        wanted = "upgrade" in (word.lower() for word in self.listed("connection"))
        return self.header("upgrade").lower() if wanted else ""


def parse_request_head(block: bytes) -> RequestHead:
    """The head, given with the empty line at its end."""
    if len(block) > MAX_HEAD_BYTES:
        raise BadRequest(f"the head of the request is longer than {MAX_HEAD_BYTES} bytes")
    first, *lines = block.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or not words[2].startswith("HTTP/1."):
        raise BadRequest(f"no HTTP/1.1 request: {first[:80]!r}")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise BadRequest(f"no header: {line[:80]!r}")
        headers.append((name.lower(), value.strip()))
    return RequestHead(words[0], words[1], tuple(headers))


def parse_response_status(block: bytes) -> int:
    """The status in the head of an answer. What else it says is for people."""
    words = block.partition(b"\r\n")[0].decode("latin-1").split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not re.fullmatch("[1-5][0-9]{2}", words[1]):
        raise BadResponse(f"no HTTP/1.1 answer: {block[:80]!r}")
    return int(words[1])


def format_response(status: int, headers: tuple[tuple[str, str], ...] = (), body: str = "") -> bytes:
    """An answer: the head of an upgrade (101), or a text after which the connection ends."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}", *(f"{name}: {value}" for name, value in headers)]
    payload = b""
    if status != SWITCHING:
        payload = body.encode() + b"\n"
        lines += ["Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(payload)}", "Connection: close"]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + payload
