"""Logins are read from what docker writes, and found for the images that they are for."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kubelet_py.api import codec, core_v1
from kubelet_py.core.keyring import (
    Credential,
    InvalidLogins,
    Keyring,
    Login,
    Logins,
    SecretSource,
    keyring_of_secrets,
    logins_of_secret,
    matches,
    parse_config_json,
    parse_docker_cfg,
)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def with_auth(auth: str) -> str:
    return json.dumps({"r": {"auth": auth}})


def a_secret(kind: str, key: str, content: str, name: str = "regcred") -> core_v1.Secret:
    described: dict[str, Any] = {
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}"},
        "type": kind,
        "data": {key: encoded(content)},
    }
    return codec.from_builtins(core_v1.Secret, described)


def a_ring(*registries: str) -> Keyring:
    ring = Keyring()
    ring.add({registry: Login(registry) for registry in registries})
    return ring


def names(ring: Keyring, image: str) -> list[str]:
    return [credential.login.username for credential in ring.lookup(image)]


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("r.example", "r.example/app", True),
        ("r.example", "r.example:5000/app", False),
        ("r.example:5000", "r.example:5000/app", True),
        ("r.example:5000", "r.example/app", False),
        ("r.example", "x.r.example/app", False),
        ("*.example", "r.example/app", True),
        ("*.example", "a.r.example/app", False),
        ("*.*.example", "a.r.example/app", True),
        ("eu-*.example", "eu-1.example/app", True),
        ("eu-*.example", "us-1.example/app", False),
        ("e*-*1.example", "eu-west1.example/app", True),
        ("*.example:5000", "r.example:5000/app", True),
        ("*.example:*", "r.example:5000/app", False),
        ("r.example/team", "r.example/team/app", True),
        ("r.example/team", "r.example/teamwork/app", True),
        ("r.example/team/app", "r.example/team", False),
        ("r.example/*", "r.example/app", False),
        ("[fd00::1]:5000", "[fd00::1]:5000/app", True),
        ("[fd00::1]", "[fd00::1]/app", True),
        ("[fd00::1]", "[fd00::1]:5000/app", False),
        ("rXexample", "r.example/app", False),
    ],
)
def test_which_images_a_pattern_fits(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) is fits


def test_the_most_specific_come_first_and_all_that_fit_are_tried() -> None:
    ring = a_ring("r.example", "r.example/team", "*.example", "r.example/team/app", "other.example")
    assert names(ring, "r.example/team/app") == ["r.example/team/app", "r.example/team", "r.example", "*.example"]


@pytest.mark.parametrize(
    ("written", "image"),
    [
        ("https://index.docker.io/v1/", "docker.io/library/busybox"),
        ("index.docker.io", "docker.io/me/app"),
        ("docker.io", "docker.io/library/busybox"),
        ("http://r.example/", "r.example/app"),
        ("https://r.example/v2/", "r.example/app"),
        ("r.example/v1/team", "r.example/team/app"),
    ],
)
def test_registries_as_people_and_tools_write_them(written: str, image: str) -> None:
    assert names(a_ring(written), image) == [written]


def test_the_default_registry_is_the_last_resort_and_only_for_its_own_images() -> None:
    ring = a_ring("index.docker.io", "docker.io/team")
    assert names(ring, "docker.io/team/app") == ["docker.io/team"]
    assert names(ring, "docker.io/library/app") == ["index.docker.io"]
    assert names(ring, "r.example/app") == []
    assert names(Keyring(), "docker.io/library/app") == []


def test_an_address_in_brackets_may_have_a_port() -> None:
    """The last colon of `[fd00::1]` starts none."""
    assert matches("[fd00::1]:5000", "[fd00::1]:5000/app")
    assert not matches("[fd00::1]:5000", "[fd00::1]/app")
    assert not matches("[fd00::1]", "[fd00::1]:5000/app")
    assert matches("[fd00::1]", "[fd00::1]/app")


def test_several_logins_for_one_place_keep_their_order() -> None:
    ring = Keyring()
    ring.add({"r.example": Login("one")})
    ring.add({"https://r.example": Login("two")})
    assert names(ring, "r.example/app") == ["one", "two"]


@given(st.lists(st.sampled_from(["r.example", "*.example", "r.example/a", "r.example:1", "s.example"]), unique=True))
def test_a_lookup_gives_exactly_what_fits(registries: list[str]) -> None:
    found = names(a_ring(*registries), "r.example/a/b")
    assert found == sorted((entry for entry in registries if matches(entry, "r.example/a/b")), reverse=True)


LABEL = st.from_regex(r"[a-z0-9]{1,5}", fullmatch=True)


@given(st.lists(LABEL, min_size=1, max_size=4), st.sampled_from(["", ":5000"]), st.lists(LABEL, max_size=3), st.data())
def test_a_name_fits_itself_its_beginnings_and_any_label_starred(
    labels: list[str], port: str, path: list[str], data: st.DataObject
) -> None:
    name = "/".join([".".join(labels) + port, *path, "app"])
    starred = data.draw(st.integers(0, len(labels) - 1))
    glob = [f"{label[:1]}*" if index == starred else label for index, label in enumerate(labels)]
    kept = path[: data.draw(st.integers(0, len(path)))]
    assert matches("/".join([".".join(glob) + port, *kept]), name)
    assert not matches("/".join([".".join(["x", *glob]) + port, *kept]), name)


def test_what_docker_login_writes() -> None:
    text = json.dumps({"auths": {"r.example": {"auth": encoded("user:pass:word")}}, "credsStore": "desktop"})
    assert parse_config_json(text.encode()) == {"r.example": Login("user", "pass:word")}
    assert parse_docker_cfg(b'{"r.example": {"username": "u", "password": "p", "email": "e"}}') == {
        "r.example": Login("u", "p", "e")
    }


@pytest.mark.parametrize("text", ["{}", '{"auths": null}', '{"auths": {}}'])
def test_a_configuration_without_logins(text: str) -> None:
    assert parse_config_json(text.encode()) == {}


@pytest.mark.parametrize("auth", [encoded("u:p").rstrip("="), encoded("u:pp"), encoded("u:p") + "\n", encoded("ué:p")])
def test_auth_with_and_without_padding(auth: str) -> None:
    (login,) = parse_docker_cfg(json.dumps({"r": {"auth": auth, "username": "other"}}).encode()).values()
    assert login.username in ("u", "ué")
    assert login.password in ("p", "pp")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no JSON", "malformed"),
        ("[]", "Expected `object`"),
        ('{"r": {"password": 5}}', "Expected `str | null`"),
        ('{"r": {"auth": "%%%"}}', "auth of 'r' is not base64 of username:password"),
        (with_auth(encoded("no colon")), "auth of 'r' is not base64 of username:password"),
        (with_auth(base64.b64encode(b"u:\xff").decode()), "auth of 'r' is not base64"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidLogins, match=message):
        parse_docker_cfg(text.encode())


@pytest.mark.parametrize("parse", [parse_config_json, parse_docker_cfg])
def test_a_configuration_that_is_nested_without_end_is_refused(parse: Callable[[bytes], Logins]) -> None:
    with pytest.raises(InvalidLogins, match="nested too deeply"):
        parse(b'{"r": {"x": ' + b"[" * 9000 + b"]" * 9000 + b"}}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["auths", "auth", "username", "password", "r.example"]) | st.text(), inner)
    ),
    max_leaves=12,
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_content_gives_logins_or_is_refused(text: bytes) -> None:
    """What comes out is text that a runtime can be told."""
    for parse in (parse_config_json, parse_docker_cfg):
        try:
            logins = parse(text)
        except InvalidLogins:
            continue
        for login in logins.values():
            (login.username + login.password).encode()
        a = Keyring()
        a.add(logins)
        a.lookup("r.example/app")


@given(st.text())
@example("Oh")
def test_any_auth_gives_a_login_or_is_refused(auth: str) -> None:
    text = json.dumps({"r": {"auth": auth}}).encode()
    try:
        (login,) = parse_docker_cfg(text).values()
    except InvalidLogins:
        return
    bare = "".join(auth.split()).rstrip("=")
    written = base64.b64decode(bare + "=" * (-len(bare) % 4))  # bits that are left over at the end say nothing
    assert not auth or written == f"{login.username}:{login.password}".encode()


def test_both_kinds_of_secrets() -> None:
    modern = a_secret(
        "kubernetes.io/dockerconfigjson", ".dockerconfigjson", '{"auths": {"r": {"username": "a"}}}', "new"
    )
    older = a_secret("kubernetes.io/dockercfg", ".dockercfg", '{"r": {"username": "b"}}', "old")
    assert keyring_of_secrets([modern, older]).lookup("r/app") == (
        Credential(Login("a"), SecretSource("uid-new", "shop", "new")),
        Credential(Login("b"), SecretSource("uid-old", "shop", "old")),
    )


@pytest.mark.parametrize(
    "secret",
    [
        a_secret("Opaque", ".dockerconfigjson", "{}"),
        a_secret("kubernetes.io/dockerconfigjson", ".dockercfg", "{}"),
        a_secret("kubernetes.io/dockercfg", ".dockercfg", ""),
        core_v1.Secret(),
    ],
)
def test_secrets_that_are_no_pull_secrets_say_nothing(secret: core_v1.Secret) -> None:
    assert logins_of_secret(secret) is None
    assert keyring_of_secrets([secret]).lookup("r/app") == ()


def test_a_broken_secret_is_named_and_not_shown() -> None:
    with pytest.raises(InvalidLogins) as caught:
        keyring_of_secrets([a_secret("kubernetes.io/dockercfg", ".dockercfg", '{"r": {"password": ["hunter2"]}}')])
    assert str(caught.value).startswith("secret shop/regcred, .dockercfg: ")
    assert "hunter2" not in str(caught.value)


def test_a_secret_without_metadata_has_no_coordinates() -> None:
    secret = a_secret("kubernetes.io/dockercfg", ".dockercfg", '{"r": {"username": "a"}}')
    secret.metadata = None
    assert keyring_of_secrets([secret]).lookup("r/app") == (Credential(Login("a"), SecretSource("", "", "")),)


@pytest.mark.parametrize(
    ("login", "digest"),
    [
        # printf '{"username":"u","password":"p"}' | sha256sum
        (Login("u", "p"), "edbd57ca9372e64eb1c9070ecf3a049ac553596b0529acf034c7a71d4e618e88"),
        # printf '{"username":"u","password":"a\\u003cb\\u0026\\u003e","email":"e"}' | sha256sum
        (Login("u", "a<b&>", "e"), "37df74fde57ab880e927644fca92d88b4cd65d13255143359e60e65647b06478"),
        # printf '{}' | sha256sum
        (Login(), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
    ],
)
def test_the_digest_is_that_of_the_go_kubelet(login: Login, digest: str) -> None:
    assert Credential(login).digest == digest


def test_passwords_are_not_shown() -> None:
    assert "hunter2" not in repr(Credential(Login("u", "hunter2")))
