"""Makes asyncio's TLS connections small.

asyncio gives every TLS connection a read buffer of 256 KiB and fills it with zeros, so that it is resident. An agent
holds dozens of connections (one per watch), nearly all idle: measured, 0.4 MiB each, 26 MiB for 64. Two TLS records
are enough of a buffer; a long answer is read in more turns.

Concerns the whole process, servers included. No upstream counterpart.
"""

from asyncio import sslproto
from typing import Final

BUFFER_BYTES: Final = 32 * 1024


def shrink_tls_buffers() -> None:
    """Affects the connections made from now on."""
    sslproto.SSLProtocol.max_size = BUFFER_BYTES
