"""/statusz and /flagz over real sockets. Forms and headers are those of the Go kubelet 1.37.2."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from kubelet_py.server.listener import KubeletServer
from kubelet_py.server.settings import AuthSettings, ServerConfig
from tests.integration.server.conftest import Authority, Judge, Node, free_port
from tests.integration.server.test_server import client_context, config_for, get

STATUSZ = "as=Statusz;g=config.k8s.io;v=v1beta1"
FLAGZ = "as=Flagz;g=config.k8s.io;v=v1beta1"


async def ask(
    config: ServerConfig, path: str, accept: str | None, agent: str = "x"
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one GET."""
    connector = aiohttp.TCPConnector(ssl=client_context(), force_close=True)
    headers = {"User-Agent": agent} | ({"Accept": accept} if accept is not None else {})
    skip = ("Accept",) if accept is None else ()
    async with (
        aiohttp.ClientSession(connector=connector, skip_auto_headers=skip) as session,
        session.get(f"https://127.0.0.1:{config.port}{path}", headers=headers) as response,
    ):
        return response.status, dict(response.headers), await response.read()


async def test_statusz_says_what_runs_and_since_when(tmp_path: Path, node: Node) -> None:
    config = config_for(tmp_path)
    async with KubeletServer(config, node):
        status, headers, body = await ask(config, "/statusz", f"application/json;{STATUSZ}")
        assert (status, headers["Content-Type"]) == (200, "application/json;g=config.k8s.io;v=v1beta1;as=Statusz")
        assert "Warning" not in headers
        shown: dict[str, Any] = json.loads(body)
        assert shown["kind"] == "Statusz"
        assert shown["metadata"] == {"name": "kubelet"}
        assert shown["goVersion"] == ""
        assert (shown["binaryVersion"], shown["emulationVersion"]) == ("1.37.2", "1.37")
        assert shown["paths"] == ["/configz", "/flagz", "/healthz", "/metrics"]
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        running = float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
        assert abs(shown["uptimeSeconds"] - running) < 5
        for path in shown["paths"]:
            assert (await get(config, path))[0] == 200


@pytest.mark.parametrize("accept", [None, "  ", "text/plain", "*/*", "text/html,*/*;q=0.8"])
async def test_who_names_no_object_gets_text(tmp_path: Path, node: Node, accept: str | None) -> None:
    config = config_for(tmp_path)
    async with KubeletServer(config, node):
        status, headers, body = await ask(config, "/statusz", accept)
        assert (status, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
        assert body.startswith(b"\nkubelet statusz\nWarning: ")
        assert re.search(rb"^Paths(:|: |=| ) /configz /flagz /healthz /metrics$", body, re.MULTILINE)
        status, headers, body = await ask(config, "/flagz", accept)
        assert (status, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
        assert re.search(rb"^\nkubelet flagz\nWarning: .*\naddress(:|: |=| )0.0.0.0\nv(:|: |=| )2\n$", body)


async def test_flagz_shows_the_flags_in_every_form(tmp_path: Path, node: Node) -> None:
    config = replace(config_for(tmp_path), cbor=True)
    expected = {
        "kind": "Flagz",
        "apiVersion": "config.k8s.io/v1beta1",
        "metadata": {"name": "kubelet"},
        "flags": {"address": "0.0.0.0", "v": "2"},
    }
    async with KubeletServer(config, node):
        _, _, body = await ask(config, "/flagz", f"application/json;{FLAGZ}")
        assert json.loads(body) == expected
        assert body.count(b"\n") == 1
        _, _, body = await ask(config, "/flagz", f"application/json;{FLAGZ}", agent="curl/8")
        assert body == json.dumps(expected, indent=2).encode()
        _, headers, body = await ask(config, "/flagz", f"application/yaml;{FLAGZ}")
        assert headers["Content-Type"] == "application/yaml;g=config.k8s.io;v=v1beta1;as=Flagz"
        assert yaml.safe_load(body) == expected
        _, headers, body = await ask(config, "/flagz", f"application/cbor;{FLAGZ}")
        assert headers["Content-Type"] == "application/cbor;g=config.k8s.io;v=v1beta1;as=Flagz"
        assert body.startswith(b"\xd9\xd9\xf7\xa4DkindEFlagz")


async def test_the_old_version_is_served_with_a_warning(tmp_path: Path, node: Node) -> None:
    config = config_for(tmp_path)
    async with KubeletServer(config, node):
        for page in ("statusz", "flagz"):
            accept = f"application/json;as={page.capitalize()};g=config.k8s.io;v=v1alpha1"
            status, headers, body = await ask(config, f"/{page}", accept)
            assert (status, json.loads(body)["apiVersion"]) == (200, "config.k8s.io/v1alpha1")
            warning = f'299 - "This version of the {page} endpoint is deprecated. Please use a newer version."'
            assert headers["Warning"] == warning


async def test_who_takes_none_of_the_forms_is_told_which_there_are(tmp_path: Path, node: Node) -> None:
    """CBOR is one of them while CBORServingAndStorage is on."""
    config = config_for(tmp_path)
    message = "only the following media types are accepted: application/json, application/yaml, text/plain"
    async with KubeletServer(config, node):
        status, headers, body = await ask(config, "/statusz", f"application/cbor;{STATUSZ}")
        assert (status, headers["Content-Type"]) == (406, "application/json")
        assert (
            body
            == json.dumps(
                {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "metadata": {},
                    "status": "Failure",
                    "message": message,
                    "reason": "NotAcceptable",
                    "code": 406,
                },
                indent=2,
            ).encode()
        )
        status, headers, body = await ask(config, "/flagz", "application/yaml")
        assert (status, headers["Content-Type"], yaml.safe_load(body)["message"]) == (406, "application/yaml", message)


async def test_each_page_has_its_gate_and_both_are_only_where_somebody_said_who_he_is(
    tmp_path: Path, node: Node
) -> None:
    config = replace(config_for(tmp_path), statusz=False, read_only_port=free_port())
    async with KubeletServer(config, node):
        assert (await get(config, "/statusz"))[0] == 404
        assert (await get(config, "/flagz"))[0] == 200
        async with aiohttp.ClientSession() as session:
            for path in ("/statusz", "/flagz"):
                async with session.get(f"http://127.0.0.1:{config.read_only_port}{path}") as response:
                    assert response.status == 404
    config = replace(config_for(tmp_path), flagz=False)
    async with KubeletServer(config, node):
        assert (await get(config, "/flagz"))[0] == 404
        _, _, body = await ask(config, "/statusz", f"application/json;{STATUSZ}")
        assert json.loads(body)["paths"] == ["/configz", "/healthz", "/metrics"]
    config = replace(config_for(tmp_path), debugging_handlers=False)
    async with KubeletServer(config, node):
        assert [(await get(config, path))[0] for path in ("/statusz", "/flagz")] == [404, 404]


async def test_the_right_to_proxy_does_not_open_the_pages(
    tmp_path: Path, node: Node, judge: Judge, authority: Authority
) -> None:
    config = config_for(tmp_path, AuthSettings(client_ca_file=str(authority.ca_file)))
    alice, bob = authority.issue("alice", "alice"), authority.issue("bob", "bob")
    judge.allowed = {("alice", "get", "statusz"), ("alice", "get", "configz"), ("bob", "get", "proxy")}
    async with KubeletServer(config, node, judge.reviews):
        assert (await get(config, "/statusz"))[0] == 401
        assert [(await get(config, path, alice))[0] for path in ("/statusz", "/flagz")] == [200, 200]
        text = "Forbidden (user=bob, verb=get, resource=nodes, subresource(s)=[{}])\n"
        assert await get(config, "/statusz", bob) == (403, text.format("statusz"))
        assert await get(config, "/flagz", bob) == (403, text.format("configz"))
