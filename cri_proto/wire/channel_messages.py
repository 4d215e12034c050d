"""The WebSocket messages of the channel protocols: the number of a channel, then bytes of it.

In binary messages the number is a byte, in those of text (browsers' clients send them) a digit before base64. Sans-IO.
Upstream counterpart: k8s.io/streaming's httpstream/wsstream.
"""

from __future__ import annotations

import base64
import binascii


class ChannelMessageError(ValueError):
    """A message that is none; the text says why."""


def encode(number: int, data: bytes, *, text: bool) -> bytes:
    """One message."""
    return b"%c" % (ord("0") + number) + base64.b64encode(data) if text else bytes((number,)) + data


def decode(message: bytes, *, text: bool) -> tuple[int, bytes]:
    """The channel of a message, any number at all, and its bytes."""
    if not message:
        raise ChannelMessageError("a message without a channel")
    if not text:
        return message[0], message[1:]
    try:
        return message[0] - ord("0"), base64.b64decode(message[1:], validate=True)
    except binascii.Error as error:
        raise ChannelMessageError(f"no base64: {message[1:21]!r}: {error}") from error
