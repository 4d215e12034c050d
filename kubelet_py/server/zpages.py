"""/statusz and /flagz: what this process is, and with which flags it was started.

Owns the two routes and the bytes of their answers; what they say is in `core.zpages`, in which form in
`core.content_negotiation`. They are only on the port behind `guard`, and only while debugging is on.

Upstream counterpart: InstallZPages in pkg/kubelet/server/server.go, apiserver's pkg/server/statusz and flagz.
"""

import platform
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from aiohttp import web

from kubelet_py.api import cbor, codec
from kubelet_py.config import KUBERNETES_VERSION
from kubelet_py.core import zpages as pages
from kubelet_py.core.content_negotiation import (
    CBOR,
    JSON,
    TEXT,
    YAML,
    Target,
    choose,
    choose_for_error,
    read_by_a_person,
)
from kubelet_py.host.machine import process_start
from kubelet_py.server.settings import ServerBackend

_COMPONENT: Final = "kubelet"
_LISTED: Final = ("/configz", "/healthz", "/metrics")


class ZPages:
    """The handlers over one backend; each page is there while its feature is on."""

    def __init__(self, backend: ServerBackend, *, statusz: bool, flagz: bool, cbor: bool) -> None:
        self._backend = backend
        self._statusz = statusz
        self._flagz = flagz
        self._forms = (JSON, YAML, TEXT, CBOR) if cbor else (JSON, YAML, TEXT)

    def install(self, app: web.Application) -> None:
        """The routes, for every method, as upstream has them."""
        if self._flagz:
            app.router.add_route("*", "/flagz", self.flagz)
        if self._statusz:
            app.router.add_route("*", "/statusz", self.statusz)

    async def statusz(self, request: web.Request) -> web.Response:
        """The process: since when, which version, what else to ask it for."""
        now, facts = datetime.now(UTC), self._facts()
        return self._answer(
            request,
            "statusz",
            pages.STATUSZ_KINDS,
            lambda target: pages.statusz_object(target, _COMPONENT, facts, now),
            lambda separator: pages.statusz_text(_COMPONENT, facts, now, separator),
        )

    async def flagz(self, request: web.Request) -> web.Response:
        """Every flag with its value."""
        flags = self._backend.flags()
        return self._answer(
            request,
            "flagz",
            pages.FLAGZ_KINDS,
            lambda target: pages.flagz_object(target, _COMPONENT, flags),
            lambda separator: pages.flagz_text(_COMPONENT, flags, separator),
        )

    def _facts(self) -> pages.ProcessFacts:
        paths = sorted([*_LISTED, "/flagz"] if self._flagz else _LISTED)
        started = datetime.fromtimestamp(process_start(), UTC).astimezone()
        return pages.ProcessFacts(started, KUBERNETES_VERSION, platform.python_version(), paths)

    def _answer(
        self,
        request: web.Request,
        page: str,
        kinds: Sequence[Target],
        make_object: Callable[[Target], dict[str, Any]],
        make_text: Callable[[str], str],
    ) -> web.Response:
        """The page in the form that the client takes: text for those who do not say, 406 when there is none."""
        accept = request.headers.get("Accept", "")
        choice = choose(accept if accept.strip() else TEXT, self._forms, kinds)
        if choice is None:
            return self._not_acceptable(request, accept)
        target = choice.target
        if target is None:
            return web.Response(text=make_text(random.choice(pages.SEPARATORS)))
        pretty = choice.pretty or _is_for_a_person(request)
        headers = {"Content-Type": f"{choice.form};g={target.group};v={target.version};as={target.kind}"}
        if warning := pages.deprecation_warning(target, page):
            headers["Warning"] = warning
        return web.Response(body=_encoded(make_object(target), choice.form, pretty=pretty), headers=headers)

    def _not_acceptable(self, request: web.Request, accept: str) -> web.Response:
        choice = choose_for_error(accept, self._forms)
        form = JSON if choice is None else choice.form
        pretty = choice is None or choice.pretty or _is_for_a_person(request)
        body = _encoded(pages.not_acceptable_status(self._forms), form, pretty=pretty)
        return web.Response(status=406, body=body, headers={"Content-Type": form})


def _is_for_a_person(request: web.Request) -> bool:
    return read_by_a_person(request.query, request.headers.get("User-Agent", ""))


def _encoded(document: dict[str, Any], form: str, *, pretty: bool) -> bytes:
    if form == CBOR:
        return cbor.encode(document)
    if form == YAML:
        import yaml

        text: str = yaml.safe_dump(document, default_flow_style=False)
        return text.encode()
    body = codec.encode(document)
    return msgspec.json.format(body, indent=2) if pretty else body + b"\n"
