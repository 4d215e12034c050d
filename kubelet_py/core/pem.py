"""PEM text as the API server understands it, read and written.

Owns what counts of it: text between blocks and headers go, types of blocks are not looked at.

Upstream counterpart: Go's encoding/pem.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from typing import Final

_BEGIN: Final = b"-----BEGIN "
_END: Final = b"\n-----END "
_DASHES: Final = b"-----"
_BASE64: Final = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_LINE_LENGTH: Final = 64


def certificates_file(contents: Iterable[bytes]) -> bytes:
    """A file of certificates and nothing else, in the order given."""
    return b"".join(map(_pem_of, contents))


def pem_blocks(data: bytes) -> Iterator[bytes]:
    """The contents of all blocks, whatever their types say. What is no whole block is passed over."""
    at = 0
    while (found := _next_block(data, at)) is not None:
        content, at = found
        yield content


def _next_block(data: bytes, start: int) -> tuple[bytes, int] | None:
    """The next block and where the line after it begins.

    An END line belongs to the last BEGIN line before it, so that one BEGIN without an END hides no block.
    """
    at = start
    while (end := data.find(_END, at)) >= 0:
        after_end = end + len(_END)
        begin = data.rfind(_BEGIN, at, end)
        is_line = begin == at or (begin > at and data[begin - 1 : begin] == b"\n")
        at = after_end
        if not is_line:
            continue
        kind, body = _line(data, begin + len(_BEGIN))
        if not kind.endswith(_DASHES):
            continue
        body, has_headers = _skip_headers(data, body)
        if body >= len(data) or body > after_end:
            return None  # what looked like headers goes on past the END line, and nothing after it can be trusted
        if has_headers and body > end:
            continue
        if not _ends_with(data, after_end, kind):
            continue
        content = _base64_content(data[body:end])
        if content is not None:
            return content, _line(data, after_end)[1]
    return None


def _skip_headers(data: bytes, at: int) -> tuple[int, bool]:
    """Where the lines with a colon end, and whether there are any."""
    start = at
    line, following = _line(data, at)
    while b":" in line:
        at = following
        line, following = _line(data, at)
    return at, at > start


def _ends_with(data: bytes, at: int, kind: bytes) -> bool:
    """Whether the rest of the END line is the type of the BEGIN line with its dashes, and at most white space."""
    return data.startswith(kind, at) and not _line(data, at + len(kind))[0]


def _line(data: bytes, start: int) -> tuple[bytes, int]:
    """A line without the white space at its end, and where the next one begins."""
    feed = data.find(b"\n", start)
    if feed < 0:
        return data[start:].rstrip(b" \t"), len(data)
    return data[start:feed].removesuffix(b"\r").rstrip(b" \t"), feed + 1


def _base64_content(data: bytes) -> bytes | None:
    text = data.translate(None, b" \t\r\n")
    # The decoder alone would take padding after what needs none.
    return binascii.a2b_base64(text) if _BASE64.fullmatch(text) else None


def _pem_of(content: bytes) -> bytes:
    text = base64.b64encode(content)
    lines = [text[at : at + _LINE_LENGTH] for at in range(0, len(text), _LINE_LENGTH)]
    return b"\n".join([b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""])
