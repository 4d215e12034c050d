"""Plugins are real programs here: they get what they should, answers are kept, and failures stop nothing."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kubelet_py.api import codec, core_v1
from kubelet_py.core.credential_plugins import EnvVar, Plugin, TokenAttributes
from kubelet_py.core.keyring import ServiceAccountSource
from kubelet_py.core.volume_payload import TokenAsk
from kubelet_py.errors import ApiForbidden, ApiNotFound
from kubelet_py.managers.images import NodeLogins, PodSecrets, PullCredentials, plugins
from kubelet_py.managers.images.plugins import CredentialPlugins
from tests.fakes.waiting import eventually

V1 = "credentialprovider.kubelet.k8s.io/v1"
NAME = "r.example/app"


class Node:
    """A directory of plugins, service accounts, and a clock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 1000.0
        self.plugins: list[Plugin] = []
        self.asks: list[TokenAsk] = []
        self.error: Exception | None = None
        self.annotations: dict[str, str] = {}

    def add(self, name: str, script: str, **fields: Any) -> None:
        """A shell script; each run leaves a line in `runs`, and its input in `asked`."""
        path = self.root / name
        path.write_text(f"#!/bin/sh\ncd {self.root}\necho {name} >> runs\ncat > asked\n{script}\n")
        path.chmod(0o755)
        self.plugins.append(Plugin(name, ("r.example",), fields.pop("default", "10m"), V1, **fields))

    def answering(self, name: str, username: str, **fields: Any) -> None:
        answer = {
            "kind": "CredentialProviderResponse",
            "apiVersion": V1,
            "cacheKeyType": "Registry",
            "auth": {"r.example": {"username": username, "password": "p"}},
        }
        self.add(name, f"echo '{json.dumps(answer)}'", **fields)

    def start(self, standalone: bool = False) -> CredentialPlugins:
        return CredentialPlugins(self.plugins, self.root, None if standalone else self, lambda: self.now)

    async def service_account(self, namespace: str, name: str) -> core_v1.ServiceAccount:
        if self.error is not None:
            raise self.error
        metadata = {"name": name, "namespace": namespace, "uid": "uid-sa", "annotations": self.annotations}
        return codec.from_builtins(core_v1.ServiceAccount, {"metadata": metadata})

    async def service_account_token(self, ask: TokenAsk) -> str:
        self.asks.append(ask)
        return f"token-{len(self.asks)}"

    @property
    def runs(self) -> list[str]:
        file = self.root / "runs"
        return file.read_text().split() if file.exists() else []

    @property
    def asked(self) -> dict[str, Any]:
        asked: dict[str, Any] = json.loads((self.root / "asked").read_text())
        return asked


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def a_pod(account: str = "builder") -> core_v1.Pod:
    metadata = {"name": "web", "namespace": "shop", "uid": "u-1"}
    return codec.from_builtins(
        core_v1.Pod, {"metadata": metadata, "spec": {"containers": [], "serviceAccountName": account}}
    )


async def users(found: CredentialPlugins, name: str = NAME, pod: core_v1.Pod | None = None) -> list[str]:
    return [credential.login.username for credential in await found.find(pod or a_pod(), name)]


async def test_plugins_are_asked_in_order_and_only_for_their_images(node: Node) -> None:
    node.answering("one", "a")
    node.answering("two", "b")
    started = node.start()
    assert await users(started) == ["a", "b"]
    assert node.asked == {"kind": "CredentialProviderRequest", "apiVersion": V1, "image": NAME}
    assert await users(started, "other.example/app") == []
    assert node.runs == ["one", "two"]
    assert all(credential.source is None for credential in await started.find(a_pod(), NAME))


async def test_an_answer_is_kept_and_asked_for_again_when_its_time_is_over(node: Node) -> None:
    node.answering("one", "a")
    started = node.start()
    await users(started)
    await users(started, "r.example/other")
    assert len(node.runs) == 1
    node.now += 601
    await users(started)
    assert len(node.runs) == 2


async def test_those_who_wait_together_get_one_answer(node: Node) -> None:
    node.answering("one", "a")
    started = node.start()
    assert await asyncio.gather(*(users(started) for _ in range(5))) == [["a"]] * 5
    assert node.runs == ["one"]


async def test_arguments_and_environment(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_THE_AGENT", "1")
    monkeypatch.setenv("BOTH", "agent")
    script = 'echo "$1 $2 $FROM_THE_AGENT $BOTH" >&2; exit 3'
    node.add("one", script, args=("get", "it"), env=(EnvVar("BOTH", "plugin"),))
    with capture_logs() as logs:
        assert await users(node.start()) == []
    assert [entry["error"] for entry in logs] == ["exit code 3: get it 1 plugin"]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("exit 1", "exit code 1"),
        ("echo no JSON", "it printed no CredentialProviderResponse"),
        ("kill -9 $$", "exit code -9"),
    ],
)
async def test_a_plugin_that_fails_is_told_and_the_others_are_asked(node: Node, script: str, error: str) -> None:
    node.add("bad", script)
    node.answering("good", "a")
    with capture_logs() as logs:
        assert await users(node.start()) == ["a"]
    ((entry),) = logs
    assert (entry["event"], entry["plugin"], entry["pod"]) == ("credential_plugin_failed", "bad", "shop/web")
    assert entry["error"].startswith(error)


async def test_a_program_that_is_not_there(node: Node) -> None:
    node.answering("gone", "a")
    (node.root / "gone").unlink()
    with capture_logs() as logs:
        assert await users(node.start()) == []
    assert "gone cannot be run: No such file" in logs[0]["error"]


def is_over(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second when it goes between the opening and the reading
        return True


async def test_a_plugin_that_hangs_is_ended_with_what_it_started(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    child = node.root / "child"
    child.touch()
    node.add("slow", "sleep 1000 & echo $! > child; wait")
    for timeout_seconds in (0.5, 2.0, 8.0, 30.0):  # a slow machine takes so long until it has started something
        monkeypatch.setattr(plugins, "TIMEOUT_SECONDS", timeout_seconds)
        with capture_logs() as logs:
            assert await users(node.start()) == []
        assert "no answer within" in logs[0]["error"]
        if child.read_text():
            break
    await eventually(lambda: is_over(int(child.read_text())))


async def test_a_pull_that_is_broken_off_ends_the_plugin(node: Node) -> None:
    node.add("slow", "sleep 1000 & echo $! > child; wait")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(users(node.start()))
        await eventually(lambda: (node.root / "child").exists() and (node.root / "child").read_text())
        task.cancel()
    child = int((node.root / "child").read_text())
    await eventually(lambda: is_over(child))


def with_token(**fields: Any) -> TokenAttributes:
    return TokenAttributes("registry", fields.pop("cache", "ServiceAccount"), fields.pop("require", True), **fields)


async def test_a_plugin_gets_the_token_of_the_pods_account(node: Node) -> None:
    node.annotations = {"role": "puller", "other": "x"}
    node.answering("one", "a", tokenAttributes=with_token(requiredServiceAccountAnnotationKeys=("role",)))
    (credential,) = await node.start().find(a_pod(), NAME)
    assert credential.source == ServiceAccountSource("uid-sa", "shop", "builder")
    assert node.asked["serviceAccountToken"] == "token-1"
    assert node.asked["serviceAccountAnnotations"] == {"role": "puller"}
    assert node.asks == [TokenAsk("shop", "builder", "web", "u-1", "registry", service_account_uid="uid-sa")]


@pytest.mark.parametrize(("cache", "runs"), [("ServiceAccount", 1), ("Token", 2)])
async def test_whether_a_new_token_needs_a_new_answer(node: Node, cache: str, runs: int) -> None:
    node.answering("one", "a", tokenAttributes=with_token(cache=cache))
    started = node.start()
    await users(started)
    await users(started)
    assert len(node.runs) == runs


@pytest.mark.parametrize(
    ("require", "account", "runs"), [(True, "", 0), (False, "", 1), (True, "builder", 1), (False, "builder", 1)]
)
async def test_pods_without_an_account(node: Node, require: bool, account: str, runs: int) -> None:
    node.answering("one", "a", tokenAttributes=with_token(require=require))
    with capture_logs() as logs:
        found = await node.start().find(a_pod(account), NAME)
    assert len(found) == len(node.runs) == runs
    assert logs == []


async def test_an_account_without_the_annotation_is_not_served_and_not_told(node: Node) -> None:
    node.answering("one", "a", tokenAttributes=with_token(requiredServiceAccountAnnotationKeys=("role",)))
    with capture_logs() as logs:
        assert await users(node.start()) == []
    assert (logs, node.runs, node.asks) == ([], [], [])


@pytest.mark.parametrize("error", [ApiNotFound(404, "NotFound", "no account"), ApiForbidden(403, "Forbidden", "no")])
async def test_an_api_server_that_says_no(node: Node, error: Exception) -> None:
    node.error = error
    node.answering("one", "a", tokenAttributes=with_token())
    with capture_logs() as logs:
        assert await users(node.start()) == []
    assert logs[0]["error"] == str(error)


async def test_a_standalone_node_has_no_tokens(node: Node) -> None:
    node.answering("one", "a", tokenAttributes=with_token())
    with capture_logs() as logs:
        assert await users(node.start(standalone=True)) == []
    assert "there is no API server" in logs[0]["error"]


async def test_plugins_come_after_the_nodes_own_files(node: Node) -> None:
    class NoSecrets:
        async def pull_secrets(self, pod: core_v1.Pod) -> PodSecrets:
            return PodSecrets()

    (node.root / "config.json").write_text('{"auths": {"r.example": {"username": "node"}}}')
    node.answering("one", "a")
    logins = NodeLogins(node.root, node.root, node.root)
    found = await PullCredentials(NoSecrets(), logins, node.start()).find(a_pod(), NAME)
    assert [credential.login.username for credential in found.credentials] == ["node", "a"]
