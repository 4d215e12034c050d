"""A pull over its own connection, against a socket that answers as told."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dockershim.engine import RegistryAuth
from dockershim.engine.errors import RegistryUnavailable
from dockershim.engine.pull import auth_header, host_auth_header, pull
from dockershim.errors import NotFound, Unavailable
from dockershim.translate.pull_progress import PullProgress

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def docker(path: Path, answer: Answer) -> AsyncIterator[str]:
    """A socket on which each connection is answered like this, after its request's head."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answer(reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield str(path)


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def test_lines_that_are_cut_anywhere_are_read_and_the_end_is_the_end(tmp_path: Path) -> None:
    """Two lines in three pieces."""
    lines = b"".join(
        json.dumps({"status": "Downloading", "id": "a", "progressDetail": {"current": at}}).encode() + b"\r\n"
        for at in (1, 2)
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (lines[:7], lines[7:90], lines[90:], b""):
            writer.write(chunk(piece))
        await writer.drain()

    seen: list[PullProgress] = []
    async with docker(tmp_path / "docker.sock", answer) as path:
        await pull(path, "/v1.41", "r/i", "1", None, seen.append)
    assert [progress.mark for progress in seen] == [1, 2]


@pytest.mark.parametrize(
    ("answered", "wanted"),
    [
        (
            b'HTTP/1.1 404 Not Found\r\nContent-Length: 31\r\n\r\n{"message": "manifest unknown"}',
            NotFound,
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b'{"status":"Pulling'), Unavailable),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunk(b'{"errorDetail":{"code":503,"message":"later"},"error":"later"}\r\n'),
            RegistryUnavailable,
        ),
        (b"", Unavailable),
    ],
    ids=["refused", "cut in the middle", "failed at the registry", "no answer"],
)
async def test_what_can_go_wrong(tmp_path: Path, answered: bytes, wanted: type[Exception]) -> None:
    """Each is the error that the caller knows."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answered)
        await writer.drain()

    async with docker(tmp_path / "docker.sock", answer) as path:
        with pytest.raises(wanted):
            await pull(path, "/v1.41", "r/i", "1", None, lambda progress: None)


async def test_giving_up_hangs_up_also_before_docker_has_said_anything(tmp_path: Path) -> None:
    """Docker ends a pull when nobody listens, so it must notice."""
    asked, gone = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        gone.set()

    async with docker(tmp_path / "docker.sock", answer) as path, asyncio.TaskGroup() as group:
        pulling = group.create_task(pull(path, "/v1.41", "r/i", "1", None, lambda progress: None), name="pull")
        async with asyncio.timeout(30):
            await asked.wait()
            pulling.cancel()
            await gone.wait()


def decoded(header: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(base64.urlsafe_b64decode(header))
    return found


def test_credentials_in_the_header() -> None:
    """All forms; none is an empty object, since Docker wants the header."""
    assert decoded(auth_header(None)) == {}
    assert decoded(auth_header(RegistryAuth("me", "secret", "r.io"))) == {
        "username": "me",
        "password": "secret",
        "serveraddress": "r.io",
    }
    assert decoded(auth_header(RegistryAuth(identity_token="i", registry_token="t"))) == {
        "identitytoken": "i",
        "registrytoken": "t",
    }


def test_credentials_of_the_host_are_read_each_time_and_a_bad_file_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an operator logs in to after dockershim's start counts."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert decoded(host_auth_header("r.io/pause")) == {}
    auth = base64.b64encode(b"me:secret").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"r.io": {"auth": auth}}}))
    found = decoded(host_auth_header("r.io/pause"))
    assert (found["username"], found["password"]) == ("me", "secret")
    assert decoded(host_auth_header("other.io/pause")) == {}
    (tmp_path / "config.json").write_text("{")
    assert decoded(host_auth_header("r.io/pause")) == {}
