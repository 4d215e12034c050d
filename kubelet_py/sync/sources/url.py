"""The source of pods at a URL: a Pod or a PodList, fetched each httpCheckFrequency.

An unchanged answer is not read again. Failures keep what runs; the first three are loud, the rest are for -v=4.
HTTP_PROXY, HTTPS_PROXY and NO_PROXY hold here too, for each server on the way: a redirect may lead to one that stands
before the proxy or behind it.

Upstream counterpart: pkg/kubelet/config/http.go and Go's default HTTP client. Differences: one unusable pod of a list
leaves the whole list aside (as there), and the log names all that is wrong with it; a proxy that cannot be used is a
failure and not passed over.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

import structlog

from kubelet_py.api.pod import SOURCE_URL
from kubelet_py.core.manifest import MAX_MANIFEST_BYTES
from kubelet_py.core.problems import ManifestError
from kubelet_py.core.proxy_rules import proxy_from_environment
from kubelet_py.core.source_merge import PodSet
from kubelet_py.core.static_pod import StaticOrigin, static_pods_of
from kubelet_py.errors import ConfigError

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_SECONDS: Final = 10.0
MAX_REDIRECTS: Final = 9
"""Go's client gives up at the tenth."""
LOUD_FAILURES: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SENSITIVE: Final = frozenset({"authorization", "cookie", "cookie2", "www-authenticate"})
_CHUNK_BYTES: Final = 1 << 16

_log = structlog.get_logger()


class _Unusable(Exception):
    """The URL gave nothing to work with; the message says why."""


class UrlSource:
    """Fetches one URL and gives the full set of its pods whenever it changes."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, Sequence[str]],
        node_name: str,
        check_seconds: float,
        emit: Callable[[PodSet], Awaitable[None]],
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._url = url
        self._headers = [(name, value) for name, values in headers.items() for value in values]
        self._node_name = node_name
        self._check_seconds = check_seconds
        self._emit = emit
        self._environment = environment
        self._body: bytes | None = None
        self._failures = 0

    async def run(self) -> None:
        """Never ends."""
        import aiohttp  # most nodes have no such source, and the client costs memory

        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                await self.fetch(session)
                await asyncio.sleep(self._check_seconds)

    async def fetch(self, session: "aiohttp.ClientSession") -> None:
        """Fetches once; gives the set if the answer is another one than before."""
        try:
            await self._fetch(session)
        except _Unusable as error:
            self._failed(str(error))
            return
        except ManifestError as error:
            self._failed("; ".join(str(problem) for problem in error.problems))
            return
        except Exception as error:  # a fault of ours costs these pods their start, and no others
            self._failed(f"fault of the agent: {type(error).__name__}: {error}")
            return
        if self._failures:
            _log.info("manifest_url_recovered", url=self._url, failures=self._failures)
            self._failures = 0

    async def _fetch(self, session: "aiohttp.ClientSession") -> None:
        body = await self._read(session)
        if not body:
            await self._emit(PodSet(SOURCE_URL, ()))
            self._body = None
            raise _Unusable("the answer is empty; expected a Pod or a PodList")
        if body == self._body:
            return
        self._body = body
        origin = StaticOrigin(self._node_name, SOURCE_URL, self._url)
        found = await asyncio.to_thread(static_pods_of, body, origin)
        for warning in found.warnings:
            _log.warning("manifest_warning", url=self._url, warning=str(warning))
        await self._emit(PodSet(SOURCE_URL, found.pods))

    async def _read(self, session: "aiohttp.ClientSession") -> bytes:
        import aiohttp

        try:
            async with asyncio.timeout(session.timeout.total):
                return await self._follow(session, self._url)
        except TimeoutError as error:
            raise _Unusable(f"no complete answer within {TIMEOUT_SECONDS:g}s") from error
        except aiohttp.ClientHttpProxyError as error:  # its own text repeats the password in the proxy's URL
            raise _Unusable(f"the proxy answered {error.status} {error.message}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _Unusable(f"{type(error).__name__}: {error}") from error

    async def _follow(self, session: "aiohttp.ClientSession", url: str) -> bytes:
        """The body behind as many redirects as Go's client follows."""
        origin, headers = url, self._headers
        for _ in range(MAX_REDIRECTS + 1):
            proxy = self._proxy(url)
            async with session.get(url, headers=headers, proxy=proxy, allow_redirects=False) as response:
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or location is None:
                    return await _body(response)
                url = urljoin(url, location)
                if not _is_at(url, origin):
                    headers = [pair for pair in headers if pair[0].lower() not in _SENSITIVE]
        raise _Unusable(f"more than {MAX_REDIRECTS} redirects")

    def _proxy(self, url: str) -> str | None:
        try:
            return proxy_from_environment(url, self._environment)
        except ConfigError as error:
            raise _Unusable(str(error)) from error

    def _failed(self, why: str) -> None:
        self._failures += 1
        if self._failures <= LOUD_FAILURES:
            _log.warning("manifest_url_failed", url=self._url, problem=why)
        elif self._failures == LOUD_FAILURES + 1:
            _log.warning("manifest_url_failed", url=self._url, problem=why, note="further failures are shown with -v=4")
        else:
            _log.debug("manifest_url_failed", url=self._url, problem=why)


async def _body(response: "aiohttp.ClientResponse") -> bytes:
    if response.status != 200:
        raise _Unusable(f"the server answered {response.status} {response.reason}")
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_MANIFEST_BYTES:
            raise _Unusable(f"the answer is larger than {MAX_MANIFEST_BYTES} bytes")
    return bytes(body)


def _is_at(url: str, origin: str) -> bool:
    """Whether a redirect stays with the host that the headers are meant for, or goes to one below it."""
    host, first = urlsplit(url).hostname or "", urlsplit(origin).hostname or ""
    return host == first or (host.endswith(f".{first}") and ":" not in host)
