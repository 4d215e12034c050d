"""A pull over a connection of its own, in the loop and without a thread.

Owns the request, the credentials in it and the reading of its progress. Closing the connection is what ends a pull, at
any moment of it: also while Docker waits for a registry that does not answer and has sent us nothing yet, which is when
the SDK's client holds on to its thread. Upstream counterpart: PullImage in cri-dockerd's libdocker.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlencode

import structlog

from dockershim.engine import Json, RegistryAuth
from dockershim.engine import errors as engine_errors
from dockershim.engine.sockets import read_body, read_message, request
from dockershim.errors import ShimError, Unavailable
from dockershim.translate.pull_progress import PullProgress, PullWatch

_log = structlog.get_logger()


async def pull(
    socket_path: str,
    prefix: str,
    name: str,
    tag: str,
    auth: RegistryAuth | None,
    report: Callable[[PullProgress], None],
) -> None:
    """Pull `name` at a tag or digest. `prefix` is the version's part of the path."""
    image = f"{name}@{tag}" if tag.startswith("sha256:") else f"{name}:{tag}"
    header = await asyncio.to_thread(host_auth_header, name) if auth and auth.from_host else auth_header(auth)
    path = f"{prefix}/images/create?{urlencode({'fromImage': name, 'tag': tag})}"
    status, headers, reader, writer = await request(socket_path, path, {"X-Registry-Auth": header})
    try:
        if status >= 400:
            raise refusal(status, await read_message(reader, headers), image)
        watch = PullWatch()
        async for line in json_lines(read_body(reader, headers)):
            if "error" in line:
                code = (line.get("errorDetail") or {}).get("code")
                raise engine_errors.from_pull_message(str(line["error"]), image, code or 0)
            progress = watch.feed(line)
            if progress is not None:
                report(progress)
    except (OSError, asyncio.IncompleteReadError) as error:
        raise Unavailable(f"Docker hung up during the pull of {image}") from error
    finally:
        writer.close()


def refusal(status: int, message: str, image: str) -> ShimError:
    """The error for a pull that Docker does not even begin: 403 is the word of an authorization plugin."""
    if status in (403, 404) or status >= 500:
        return engine_errors.from_pull_message(message, image)
    return engine_errors.from_response(status, message, image)


def auth_header(auth: RegistryAuth | None) -> str:
    """Credentials as Docker's API wants them; without any, the header says that there are none."""
    fields = {}
    if auth is not None:
        fields = {
            "username": auth.username,
            "password": auth.password,
            "serveraddress": auth.server_address,
            "identitytoken": auth.identity_token,
            "registrytoken": auth.registry_token,
        }
    return _encoded({key: value for key, value in fields.items() if value})


def host_auth_header(name: str) -> str:
    """The credentials that the host's own Docker configuration has for a registry now; it may use helper programs.

    A configuration that cannot be used is no reason not to try: the image may be free for all.
    """
    import docker.auth
    import docker.errors

    registry, _ = docker.auth.resolve_repository_name(name)
    try:
        found = docker.auth.resolve_authconfig(docker.auth.load_config(), registry)
    except (docker.errors.DockerException, OSError, ValueError) as error:
        _log.warning("host_credentials_unusable", registry=registry, error=str(error))
        found = None
    return _encoded(dict(found or {}))


def _encoded(fields: Json) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


async def json_lines(body: AsyncIterator[bytes]) -> AsyncIterator[Json]:
    """The objects of a stream in which Docker puts one on each line."""
    rest = b""
    async for chunk in body:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)
    if rest.strip():
        yield json.loads(rest)
