"""Streams over TLS: what the client sees, a renewal, and files that are of no use."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cri_proto.wire import remotecommand
from dockershim.errors import ConfigError
from dockershim.streaming.certificate import Certificate
from dockershim.streaming.channels import Channels
from dockershim.streaming.server import EXEC, CommandTicket, StreamingServer
from dockershim.tasks import Tasks
from tests.lab.pki import Authority

OUTPUT = remotecommand.StreamSet(stdin=False, stdout=True, stderr=False, tty=False)
HEAD = (
    "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
)


async def hello(channels: Channels) -> remotecommand.Outcome:
    """A word."""
    await channels.write(remotecommand.STDOUT, b"hello")
    return remotecommand.Outcome()


def authority(tmp_path: Path, name: str) -> Authority:
    """One that the server's files are from."""
    made = Authority(tmp_path / name, name)
    issued = made.issue("streams", "streams", server_names=["127.0.0.1"])
    for file, place in ((issued.certificate, "tls.crt"), (issued.key, "tls.key")):
        os.replace(file, tmp_path / place)
    return made


async def output(url: str, trusted: Authority) -> bytes:
    """All that a client is sent that trusts this authority and nobody else."""
    target = urlsplit(url)
    context = ssl.create_default_context(cafile=str(trusted.credentials.certificate))
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port, ssl=context)
    writer.write(HEAD.format(path=target.path).encode())
    await reader.readuntil(b"\r\n\r\n")
    received = await reader.readuntil(b"hello")
    writer.close()
    return received


async def test_clients_of_the_authority_are_served_and_a_renewal_needs_no_restart(tmp_path: Path) -> None:
    """The new certificate is of another authority, so the client can tell; a broken one leaves the old one at work."""
    first = authority(tmp_path, "first")
    certificate = Certificate(tmp_path / "tls.crt", tmp_path / "tls.key")
    certificate.load()
    ticket = CommandTicket(EXEC, OUTPUT, hello)
    async with Tasks() as tasks:
        server = StreamingServer(tasks, lambda: 0.0, certificate)
        url = await server.url(ticket)
        assert url.startswith("https://127.0.0.1:")
        assert b"hello" in await output(url, first)
        second = authority(tmp_path, "second")
        with pytest.raises(ssl.SSLCertVerificationError):
            await output(await server.url(ticket), first)
        assert b"hello" in await output(await server.url(ticket), second)
        third = Authority(tmp_path / "third", "third").issue("streams", "streams", server_names=["127.0.0.1"])
        os.replace(third.certificate, tmp_path / "tls.crt")  # its key is still to come
        assert b"hello" in await output(await server.url(ticket), second)
        (tmp_path / "tls.crt").unlink()
        assert b"hello" in await output(await server.url(ticket), second)
        tasks.shut_down()


@pytest.mark.parametrize("broken", ["tls.crt", "tls.key"])
def test_files_of_no_use_are_told_at_the_start(tmp_path: Path, broken: str) -> None:
    """With the flags that named them."""
    authority(tmp_path, "first")
    (tmp_path / broken).write_text("nothing")
    certificate = Certificate(tmp_path / "tls.crt", tmp_path / "tls.key")
    with pytest.raises(ConfigError, match="--streaming-tls-cert-file"):
        certificate.load()
    (tmp_path / broken).unlink()
    with pytest.raises(ConfigError, match="No such file"):
        certificate.load()
