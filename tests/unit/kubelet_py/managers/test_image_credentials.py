"""A pull is offered the logins of the pod's secrets first, then those that lie on the node."""

import base64
import json
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kubelet_py.api import codec, core_v1
from kubelet_py.core.keyring import InvalidLogins
from kubelet_py.managers.images import NodeLogins, PodSecrets, PullCredentials

POD = core_v1.Pod()
NAME = "r.example/app"


class Secrets:
    """A SecretReader."""

    def __init__(self, *usernames: str, missing: tuple[str, ...] = ()) -> None:
        self.answer = PodSecrets([a_secret(username) for username in usernames], missing)

    async def pull_secrets(self, pod: core_v1.Pod) -> PodSecrets:
        return self.answer


def a_secret(username: str, content: str = "") -> core_v1.Secret:
    data = content or json.dumps({"auths": {"r.example": {"username": username}}})
    return codec.from_builtins(
        core_v1.Secret,
        {
            "metadata": {"name": username, "namespace": "shop", "uid": f"uid-{username}"},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64.b64encode(data.encode()).decode()},
        },
    )


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node whose agent has its directory in `agent`, its user a home in `home`, and runs in `here`."""
    for directory in ("agent", "home/.docker", "here", ".docker"):
        (tmp_path / directory).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def logins_of(node: Path) -> NodeLogins:
    return NodeLogins(node / "agent", node / "home", node)


def write(path: Path, username: str) -> None:
    logins = {"r.example": {"username": username}}
    path.write_text(json.dumps({"auths": logins} if path.name == "config.json" else logins))


def usernames(logins: NodeLogins) -> list[str]:
    return [login.username for login in logins.read().values()]


def test_the_first_place_with_a_configuration_counts(node: Path) -> None:
    """The older form only when there is no newer one anywhere."""
    logins = logins_of(node)
    assert usernames(logins) == []
    places = (
        *(node / directory / "config.json" for directory in ("agent", "here", "home/.docker", ".docker")),
        *(node / directory / ".dockercfg" for directory in ("agent", "here", "home", ".")),
    )
    for number, place in reversed(list(enumerate(places))):
        write(place, str(number))
        assert usernames(logins) == [str(number)]


def test_a_configuration_that_cannot_be_understood_is_passed_over_and_told_once(node: Path) -> None:
    logins = logins_of(node)
    write(node / "home/.docker/config.json", "fine")
    (node / "agent/config.json").write_text('{"auths": {"r.example": {"password": ["hunter2"]}}}')
    (node / "here/config.json").mkdir()
    with capture_logs() as logs:
        assert usernames(logins) == ["fine"]
        assert usernames(logins) == ["fine"]
    assert [entry["file"] for entry in logs] == [str(node / "agent/config.json"), str(node / "here/config.json")]
    assert "hunter2" not in str(logs)


def test_without_a_home_the_working_directory_stands_in(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    os.mkdir(".docker")
    write(Path(".docker/config.json"), "here")
    assert usernames(NodeLogins(node / "agent", top=node)) == ["here"]


async def test_the_pods_secrets_come_before_the_node(node: Path) -> None:
    write(node / "agent/config.json", "node")
    found = await PullCredentials(Secrets("one", "two", missing=("three",)), logins_of(node)).find(POD, NAME)
    assert [credential.login.username for credential in found.credentials] == ["one", "two", "node"]
    assert [getattr(credential.source, "name", None) for credential in found.credentials] == ["one", "two", None]
    assert found.missing_secrets == ("three",)


async def test_a_login_that_was_added_is_used_at_the_next_pull(node: Path) -> None:
    credentials = PullCredentials(Secrets(), logins_of(node))
    assert (await credentials.find(POD, NAME)).credentials == ()
    write(node / "agent/config.json", "node")
    assert len((await credentials.find(POD, NAME)).credentials) == 1
    assert (await credentials.find(POD, "other.example/app")).credentials == ()


async def test_a_broken_secret_is_an_error(node: Path) -> None:
    secrets = Secrets()
    secrets.answer = PodSecrets([a_secret("broken", "no JSON")])
    with pytest.raises(InvalidLogins, match="secret shop/broken"):
        await PullCredentials(secrets, logins_of(node)).find(POD, NAME)
