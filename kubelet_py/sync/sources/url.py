"""The source of pods at a URL: a Pod or a PodList, fetched each httpCheckFrequency.

An unchanged answer is not read again. Failures keep what runs; the first three are loud, the rest are for -v=4.

Upstream counterpart: pkg/kubelet/config/http.go. Difference: one unusable pod of a list leaves the whole list aside
(as there), and the log names all that is wrong with it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from kubelet_py.api.pod import SOURCE_URL
from kubelet_py.core.manifest import MAX_MANIFEST_BYTES
from kubelet_py.core.problems import ManifestError
from kubelet_py.core.source_merge import PodSet
from kubelet_py.core.static_pod import StaticOrigin, static_pods_of

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_SECONDS: Final = 10.0
LOUD_FAILURES: Final = 3
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
    ) -> None:
        self._url = url
        self._headers = [(name, value) for name, values in headers.items() for value in values]
        self._node_name = node_name
        self._check_seconds = check_seconds
        self._emit = emit
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
            async with session.get(self._url, headers=self._headers) as response:
                if response.status != 200:
                    raise _Unusable(f"the server answered {response.status} {response.reason}")
                body = bytearray()
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    body += chunk
                    if len(body) > MAX_MANIFEST_BYTES:
                        raise _Unusable(f"the answer is larger than {MAX_MANIFEST_BYTES} bytes")
                return bytes(body)
        except TimeoutError as error:
            raise _Unusable(f"no complete answer within {TIMEOUT_SECONDS:g}s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _Unusable(f"{type(error).__name__}: {error}") from error

    def _failed(self, why: str) -> None:
        self._failures += 1
        if self._failures <= LOUD_FAILURES:
            _log.warning("manifest_url_failed", url=self._url, problem=why)
        elif self._failures == LOUD_FAILURES + 1:
            _log.warning("manifest_url_failed", url=self._url, problem=why, note="further failures are shown with -v=4")
        else:
            _log.debug("manifest_url_failed", url=self._url, problem=why)
