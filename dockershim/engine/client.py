"""Docker over its socket: the SDK's low-level client in threads, behind the `DockerEngine` protocol.

Owns connections, threads, deadlines and API negotiation. Must not know CRI or the store. The SDK and requests are
imported at the first `connect`, which keeps them out of programs and tests that never dial. Calls that end soon and
calls that may wait long (stop, pull) have pools of their own, so that slow containers never hold up a start. Upstream
counterpart: cri-dockerd's libdocker/kube_docker_client.go. Deliberate difference: the API version is what both sides
know, never a fixed one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import structlog

from dockershim.engine import DETACH_KEYS, EngineInfo, EventStream, Json, NewContainer, ProcessStream, RegistryAuth
from dockershim.engine import errors as engine_errors
from dockershim.engine.events import ThreadedEventStream
from dockershim.engine.health import EngineHealth
from dockershim.engine.pull import pull
from dockershim.engine.sockets import HijackedStream, hijack
from dockershim.errors import (
    ConfigError,
    DeadlineExceeded,
    EngineFailed,
    NameConflict,
    NotFound,
    ShimError,
    Unavailable,
)
from dockershim.translate.pull_progress import PullProgress
from dockershim.translate.wrapping import wrapped_runtimes

if TYPE_CHECKING:
    from docker.api import APIClient
    from requests import Response

T = TypeVar("T")
_log = structlog.get_logger()

OLDEST_API = (1, 41)  # Docker 20.10
NEWEST_API = (1, 51)  # what this adapter has been tried with; newer engines still speak it
QUICK_THREADS = 24
SLOW_THREADS = 192
CONNECT_SECONDS = 5.0
CALL_SECONDS = 110.0  # below the kubelet's two minutes, so that the caller hears from us and not from its own timer
PING_SECONDS = 5.0
STOP_SLACK_SECONDS = 30.0
RESTORE_SECONDS = 600.0
REMOVAL_POLLS = 50
REMOVAL_POLL_SECONDS = 0.1
EVENT_CONNECT_SECONDS = 10.0


def parse_endpoint(endpoint: str) -> str:
    """The socket path of `unix:///path`. dockershim works on its own host's Docker, so nothing else is accepted."""
    scheme, separator, path = endpoint.partition("://")
    if scheme != "unix" or not separator or not path.startswith("/"):
        raise ConfigError(f"--docker-endpoint {endpoint!r}: want unix:///path/to/docker.sock")
    return path


def parse_version(text: str) -> tuple[int, int]:
    """An API version as Docker writes it."""
    major, _, minor = text.partition(".")
    try:
        return int(major), int(minor)
    except ValueError:
        raise EngineFailed(f"Docker names an API version that is none: {text!r}") from None


def _unobserved(label: str, failed: bool, seconds: float) -> None:
    """Nobody wants to know."""


class DockerClient:
    """The adapter. `connect` must have succeeded before anything else is called."""

    def __init__(self, endpoint: str, observe: Callable[[str, bool, float], None] = _unobserved) -> None:
        """`observe` is told of each call that was answered at once: its label, whether it failed, and its seconds."""
        self._socket_path = parse_endpoint(endpoint)
        self._observe = observe
        self._api: APIClient | None = None
        self._version = OLDEST_API
        self._quick = ThreadPoolExecutor(QUICK_THREADS, thread_name_prefix="docker-call")
        self._slow = ThreadPoolExecutor(SLOW_THREADS, thread_name_prefix="docker-wait")
        self._health = EngineHealth()
        self.call_counts: dict[str, int] = {}

    # ---- connection

    async def connect(self) -> EngineInfo:
        """See DockerEngine."""
        self._api = await self._run(self._quick, self._dial, CONNECT_SECONDS + PING_SECONDS)
        version = json.loads(await self._look("/version", "version"))
        self._health.connected(version)
        newest = parse_version(version.get("ApiVersion", ""))
        oldest = parse_version(version.get("MinAPIVersion", "1.24"))
        self._version = min(newest, NEWEST_API)
        if newest < OLDEST_API or oldest > NEWEST_API:
            spoken = f"{oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
            wanted = f"{OLDEST_API[0]}.{OLDEST_API[1]} to {NEWEST_API[0]}.{NEWEST_API[1]}"
            raise Unavailable(f"Docker speaks API {spoken}; dockershim needs one of {wanted}")
        info = await self._json("GET", "/info", label="info")
        return EngineInfo(
            api_version=self._version,
            engine_version=str(version.get("Version", "")),
            root_directory=str(info.get("DockerRootDir", "/var/lib/docker")),
            cgroup_driver=str(info.get("CgroupDriver", "")),
            cgroup_version=str(info.get("CgroupVersion", "1")),
            runtimes=tuple(sorted(info.get("Runtimes") or {})),
            default_runtime=str(info.get("DefaultRuntime", "")),
            security_options=tuple(info.get("SecurityOptions") or ()),
            live_restore=bool(info.get("LiveRestoreEnabled", False)),
            experimental=bool(info.get("ExperimentalBuild", False)),
            wrapped_runtimes=wrapped_runtimes(info.get("Runtimes") or {}, str(info.get("DefaultRuntime", ""))),
        )

    def _dial(self) -> APIClient:
        from docker.api import APIClient

        if self._api is not None:
            self._api.close()
        api = APIClient(
            base_url=f"unix://{self._socket_path}",
            version="1.41",  # a placeholder: paths are made here
            timeout=int(CALL_SECONDS),
            max_pool_size=QUICK_THREADS + 8,
        )
        api.trust_env = False  # no look at proxies and .netrc for a local socket, at each call
        return api

    async def ping(self) -> None:
        """See DockerEngine."""
        try:
            await self._look("/_ping", "ping")
        except DeadlineExceeded as error:
            self._health.silent(str(error))
            raise
        if self._health.answered():
            doubts = self._health.doubts
            self._health.judge(json.loads(await self._look("/version", "version")), doubts)

    async def _look(self, path: str, label: str) -> bytes:
        """A question that is asked also while nobody answers."""
        url = f"{self._require_api().base_url}{path}"
        return await self._request("GET", url, timeout_seconds=PING_SECONDS, label=label)

    async def close(self) -> None:
        """See DockerEngine."""
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._slow.shutdown(wait=False, cancel_futures=True)
        if self._api is not None:
            self._api.close()

    # ---- containers

    async def list_containers(self, label: str = "") -> list[Json]:
        """See DockerEngine."""
        wanted = {"filters": json.dumps({"label": [label]})} if label else {}
        found: list[Json] = await self._json("GET", "/containers/json", {"all": "1", **wanted}, label="list")
        return found

    async def inspect_container(self, reference: str) -> Json:
        """See DockerEngine."""
        found: Json = await self._json("GET", f"/containers/{_quoted(reference)}/json", label="inspect")
        return found

    async def create_container(self, name: str, body: Json) -> NewContainer:
        """See DockerEngine."""
        reply = await self._json("POST", "/containers/create", {"name": name}, body, label="create")
        warnings = tuple(str(warning) for warning in reply.get("Warnings") or ())
        for warning in warnings:
            _log.debug("docker_warned", name=name, warning=warning)
        return NewContainer(str(reply["Id"]), warnings)

    async def start_container(self, reference: str, checkpoint: str = "") -> None:
        """See DockerEngine."""
        path = f"/containers/{_quoted(reference)}/start"
        if not checkpoint:
            await self._call("POST", path, label="start")
            return
        await self._call(
            "POST", path, {"checkpoint": checkpoint}, timeout_seconds=RESTORE_SECONDS, slow=True, label="restore"
        )

    async def create_checkpoint(self, reference: str, name: str, directory: str, timeout_seconds: float) -> None:
        """See DockerEngine."""
        await self._call(
            "POST",
            f"/containers/{_quoted(reference)}/checkpoints",
            body={"CheckpointID": name, "CheckpointDir": directory, "Exit": False},
            timeout_seconds=timeout_seconds,
            slow=True,
            label="checkpoint",
        )

    async def stop_container(self, reference: str, timeout_seconds: int) -> None:
        """See DockerEngine."""
        await self._call(
            "POST",
            f"/containers/{_quoted(reference)}/stop",
            {"t": str(timeout_seconds)},
            timeout_seconds=timeout_seconds + STOP_SLACK_SECONDS,
            slow=True,
            label="stop",
        )

    async def kill_container(self, reference: str, signal: str) -> None:
        """See DockerEngine."""
        await self._call("POST", f"/containers/{_quoted(reference)}/kill", {"signal": signal}, label="kill")

    async def remove_container(self, reference: str, *, force: bool) -> None:
        """See DockerEngine."""
        parameters = {"v": "1", "force": "1" if force else "0"}
        path = f"/containers/{_quoted(reference)}"
        try:
            await self._call("DELETE", path, parameters, label="remove")
        except engine_errors.RemovalInProgress:
            await self._await_removal(reference)

    async def _await_removal(self, reference: str) -> None:
        for _ in range(REMOVAL_POLLS):
            await asyncio.sleep(REMOVAL_POLL_SECONDS)
            try:
                await self.inspect_container(reference)
            except NotFound:
                return
        raise EngineFailed(f"Docker is still removing container {reference}")

    async def update_container(self, reference: str, body: Json) -> None:
        """See DockerEngine."""
        await self._call("POST", f"/containers/{_quoted(reference)}/update", body=body, label="update")

    async def stat_path(self, reference: str, path: str) -> None:
        """See DockerEngine. An answer to HEAD has no text, so the status is all there is."""
        await self._call("HEAD", f"/containers/{_quoted(reference)}/archive", {"path": path}, label="stat_path")

    async def read_file(self, reference: str, path: str, limit_bytes: int) -> bytes | None:
        """See DockerEngine. Docker answers with an archive of the one file."""
        url = self._url(f"/containers/{_quoted(reference)}/archive")

        def read() -> bytes | None:
            import tarfile

            plain, timeout = {"Accept-Encoding": "identity"}, (CONNECT_SECONDS, CALL_SECONDS)
            ask = self._require_api().get
            with ask(url, params={"path": path}, headers=plain, stream=True, timeout=timeout) as response:
                if response.status_code >= 400:
                    raise engine_errors.from_response(response.status_code, _message(response), path)
                try:
                    with tarfile.open(fileobj=response.raw, mode="r|") as archive:
                        member = archive.next()
                        if member is None or not member.isreg() or member.size > limit_bytes:
                            return None
                        file = archive.extractfile(member)
                        return file.read() if file is not None else None
                except tarfile.TarError as error:
                    raise EngineFailed(f"the archive of {path} cannot be read: {error}") from error

        self._health.require_answers()
        with self._health.listening():
            try:
                return await self._observed(self._quick, read, CALL_SECONDS + CONNECT_SECONDS, "read_file")
            except NotFound as error:
                if error.kind == "container":
                    raise
                return None

    # ---- exec

    async def exec_create(self, reference: str, body: Json) -> str:
        """See DockerEngine."""
        reply = await self._json("POST", f"/containers/{_quoted(reference)}/exec", body=body, label="exec_create")
        return str(reply["Id"])

    async def exec_start(self, exec_id: str, *, tty: bool) -> ProcessStream:
        """See DockerEngine."""
        self._count("exec_start")
        self._health.require_answers()
        path = f"/v{self._version[0]}.{self._version[1]}/exec/{exec_id}/start"
        with self._health.listening():
            reader, writer = await hijack(self._socket_path, path, {"Detach": False, "Tty": tty}, exec_id)
        return HijackedStream(reader, writer, tty=tty)

    async def exec_resize(self, exec_id: str, width: int, height: int) -> None:
        """See DockerEngine."""
        await self._call("POST", f"/exec/{exec_id}/resize", {"w": str(width), "h": str(height)}, label="exec_resize")

    async def attach(self, reference: str, *, stdin: bool, tty: bool) -> ProcessStream:
        """See DockerEngine."""
        self._count("attach")
        self._health.require_answers()
        query = f"stream=1&stdout=1&stderr=1&stdin={int(stdin)}&detachKeys={quote(DETACH_KEYS)}"
        path = f"/v{self._version[0]}.{self._version[1]}/containers/{_quoted(reference)}/attach?{query}"
        reader, writer = await hijack(self._socket_path, path, None, reference)
        return HijackedStream(reader, writer, tty=tty)

    async def resize_container(self, reference: str, width: int, height: int) -> None:
        """See DockerEngine."""
        size = {"w": str(width), "h": str(height)}
        await self._call("POST", f"/containers/{_quoted(reference)}/resize", size, label="resize")

    async def exec_inspect(self, exec_id: str) -> Json:
        """See DockerEngine."""
        found: Json = await self._json("GET", f"/exec/{exec_id}/json", label="exec_inspect")
        return found

    # ---- images

    async def list_images(self) -> list[Json]:
        """See DockerEngine."""
        found: list[Json] = await self._json("GET", "/images/json", label="image_list")
        return found

    async def inspect_image(self, reference: str) -> Json:
        """See DockerEngine."""
        found: Json = await self._json("GET", f"/images/{_quoted(reference)}/json", label="image_inspect")
        return found

    async def pull_image(
        self, name: str, tag: str, auth: RegistryAuth | None, report: Callable[[PullProgress], None]
    ) -> None:
        """See DockerEngine."""
        self._count("pull")
        self._health.require_answers()
        self._require_api()
        await pull(self._socket_path, f"/v{self._version[0]}.{self._version[1]}", name, tag, auth, report)

    async def remove_image(self, reference: str, *, force: bool) -> None:
        """See DockerEngine."""
        parameters = {"force": "1" if force else "0"}
        await self._call("DELETE", f"/images/{_quoted(reference)}", parameters, label="image_remove")

    # ---- networks

    async def inspect_network(self, reference: str) -> Json:
        """See DockerEngine."""
        found: Json = await self._json("GET", f"/networks/{_quoted(reference)}", label="network_inspect")
        return found

    async def create_network(self, body: Json) -> str:
        """See DockerEngine."""
        try:
            reply = await self._json("POST", "/networks/create", body=body, label="network_create")
        except EngineFailed as error:
            if error.status == 409:
                raise NameConflict(str(error), "") from error
            raise
        return str(reply["Id"])

    # ---- events

    async def events(self, since_ns: int, types: Sequence[str], actions: Sequence[str]) -> EventStream:
        """See DockerEngine."""
        parameters = {"filters": json.dumps({"type": list(types), "event": list(actions)})}
        if since_ns:
            parameters["since"] = f"{since_ns // 10**9}.{since_ns % 10**9:09d}"
        self._count("events")

        def subscribe() -> Response:
            response = self._require_api().get(
                self._url("/events"), params=parameters, stream=True, timeout=(CONNECT_SECONDS, None)
            )
            if response.status_code >= 400:
                raise engine_errors.from_response(response.status_code, _message(response))
            return response

        response = await self._run(self._slow, subscribe, EVENT_CONNECT_SECONDS)
        return ThreadedEventStream(response, asyncio.get_running_loop())

    # ---- plumbing

    def _require_api(self) -> APIClient:
        if self._api is None:
            raise Unavailable(f"Docker has not answered on {self._socket_path} yet")
        return self._api

    def _url(self, path: str) -> str:
        return f"{self._require_api().base_url}/v{self._version[0]}.{self._version[1]}{path}"

    def _count(self, label: str) -> None:
        self.call_counts[label] = self.call_counts.get(label, 0) + 1

    async def _json(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        body: Json | None = None,
        *,
        label: str,
    ) -> Any:
        return json.loads(await self._call(method, path, parameters, body, label=label))

    async def _call(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        body: Json | None = None,
        *,
        timeout_seconds: float = CALL_SECONDS,
        slow: bool = False,
        label: str,
    ) -> bytes:
        url = self._url(path)
        self._health.require_answers()
        with self._health.listening():
            return await self._request(
                method, url, parameters, body, timeout_seconds=timeout_seconds, slow=slow, label=label, about=path
            )

    async def _request(
        self,
        method: str,
        url: str,
        parameters: Mapping[str, str] | None = None,
        body: Json | None = None,
        *,
        timeout_seconds: float,
        slow: bool = False,
        label: str,
        about: str = "",
    ) -> bytes:
        api = self._require_api()

        def call() -> bytes:
            response = api.request(
                method, url, params=parameters, json=body, timeout=(CONNECT_SECONDS, timeout_seconds)
            )
            self._health.heard()
            if response.status_code >= 400:
                raise engine_errors.from_response(response.status_code, _message(response), about)
            return response.content

        return await self._observed(self._slow if slow else self._quick, call, timeout_seconds + CONNECT_SECONDS, label)

    async def _observed(
        self, pool: ThreadPoolExecutor, work: Callable[[], T], deadline_seconds: float, label: str
    ) -> T:
        self._count(label)
        begun, failed = time.monotonic(), True
        try:
            answer = await self._run(pool, work, deadline_seconds)
            failed = False
        finally:
            self._observe(label, failed, time.monotonic() - begun)
        return answer

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], T], deadline_seconds: float) -> T:
        """Do blocking work in a thread. After the deadline the caller goes on; the thread ends by its own timer."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(deadline_seconds):
                return await loop.run_in_executor(pool, _translating(work, self._socket_path))
        except TimeoutError as error:
            raise DeadlineExceeded(f"Docker did not answer within {deadline_seconds:.0f} s") from error


def _translating(work: Callable[[], T], socket_path: str) -> Callable[[], T]:
    """The same work with the SDK's and the transport's errors turned into ours."""

    def translated() -> T:
        import docker.errors
        import requests.exceptions
        import urllib3.exceptions

        try:
            return work()
        except ShimError:
            raise
        except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as error:
            raise DeadlineExceeded(f"Docker did not answer in time on {socket_path}") from error
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"Docker does not answer on {socket_path}: {_cause(error)}") from error
        except docker.errors.DockerException as error:
            raise EngineFailed(str(error)) from error

    return translated


def _cause(error: BaseException) -> str:
    """The innermost reason, without the layers of the HTTP library around it."""
    seen: BaseException = error
    while (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
    return str(seen) or type(seen).__name__


def _quoted(reference: str) -> str:
    return quote(reference, safe=":@/")


def _message(response: Response) -> str:
    data = response.content
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace")
