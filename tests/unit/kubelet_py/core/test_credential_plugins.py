"""Plugins are configured, asked and remembered as the Go kubelet does it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.core.credential_plugins import (
    Account,
    Answer,
    AnswerCache,
    CacheKeyType,
    InvalidAnswer,
    InvalidPluginConfig,
    Plugin,
    Scope,
    TokenAttributes,
    TokenCache,
    account_annotations,
    decode_answer,
    encode_request,
    parse_plugins,
    scope_of,
)
from kubelet_py.core.keyring import Login

V1 = "credentialprovider.kubelet.k8s.io/v1"
TOKEN_ATTRIBUTES = {
    "serviceAccountTokenAudience": "registry",
    "cacheType": "ServiceAccount",
    "requireServiceAccount": True,
    "requiredServiceAccountAnnotationKeys": ["example.com/role"],
}
PLUGIN = Plugin("ecr", ("*.r.example",), "10m", V1)
ACCOUNT = Account("shop", "builder", "uid-1", {"example.com/role": "puller"}, "secret-token")


def with_token(cache: str = "ServiceAccount") -> Plugin:
    return Plugin("ecr", ("*.r.example",), "10m", V1, tokenAttributes=TokenAttributes("registry", cache, True))


def a_config(**changes: Any) -> dict[str, Any]:
    plugin = {"name": "ecr", "matchImages": ["*.r.example"], "defaultCacheDuration": "10m", "apiVersion": V1}
    plugin |= changes
    return {
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": [{key: value for key, value in plugin.items() if value is not None}],
    }


def problems(document: Any, **options: bool) -> list[str]:
    with pytest.raises(InvalidPluginConfig) as caught:
        parse_plugins({"f": document}, **options)
    return list(caught.value.problems)


def test_a_whole_configuration() -> None:
    document = a_config(args=["get"], env=[{"name": "A", "value": "b"}], tokenAttributes=TOKEN_ATTRIBUTES)
    (plugin,) = parse_plugins({"f": document})
    assert (plugin.name, plugin.args, plugin.env[0].name, plugin.env[0].value) == ("ecr", ("get",), "A", "b")
    assert plugin.default_cache_seconds == 600.0
    assert plugin.serves("eu.r.example/app")
    assert not plugin.serves("r.example/app")
    assert plugin.tokenAttributes is not None
    assert plugin.tokenAttributes.requiredServiceAccountAnnotationKeys == ("example.com/role",)


def test_several_files_give_their_plugins_in_order() -> None:
    files = {"a": a_config(name="one"), "b": a_config(name="two", apiVersion=V1.replace("v1", "v1beta1"))}
    assert [plugin.name for plugin in parse_plugins(files)] == ["one", "two"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": "a/b"}, "name: 'a/b' is no file name"),
        ({"name": "a b"}, "name: 'a b' is no file name"),
        ({"name": ".."}, "name: '..' is no file name"),
        ({"name": None}, "name: '' is no file name"),
        ({"apiVersion": "v1"}, "apiVersion: 'v1' is none of credentialprovider.kubelet.k8s.io/v1"),
        ({"matchImages": None}, "matchImages: at least one is expected"),
        ({"matchImages": ["https://r.example"]}, "matchImages: 'https://r.example' is no registry"),
        ({"matchImages": [""]}, "matchImages: '' is no registry"),
        ({"matchImages": ["a b"]}, "matchImages: 'a b' is no registry"),
        ({"defaultCacheDuration": None}, "defaultCacheDuration: is missing"),
        ({"defaultCacheDuration": "-1s"}, "defaultCacheDuration: -1s is negative"),
        ({"defaultCacheDuration": "soon"}, "defaultCacheDuration: 'soon' is not a duration"),
        ({"cacheDuration": "1m"}, "cacheDuration: is no field of this object"),
    ],
)
def test_what_is_wrong_with_a_plugin(change: dict[str, Any], problem: str) -> None:
    (found,) = problems(a_config(**change))
    assert found.startswith("f: providers[0].")
    assert problem in found


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"serviceAccountTokenAudience": ""}, "serviceAccountTokenAudience: is missing"),
        ({"cacheType": "Forever"}, "cacheType: 'Forever' is none of ServiceAccount, Token"),
        ({"cacheType": ""}, "cacheType: '' is none of"),
        ({"requireServiceAccount": None}, "requireServiceAccount: is missing"),
        ({"requireServiceAccount": False}, "requiredServiceAccountAnnotationKeys: needs requireServiceAccount: true"),
        ({"optionalServiceAccountAnnotationKeys": ["a b"]}, "annotation key 'a b': "),
        ({"optionalServiceAccountAnnotationKeys": ["example.com/role"]}, "'example.com/role' stands twice"),
        ({"audience": "x"}, "audience: is no field of this object"),
    ],
)
def test_what_is_wrong_with_token_attributes(change: dict[str, Any], problem: str) -> None:
    (found,) = problems(a_config(tokenAttributes=TOKEN_ATTRIBUTES | change))
    assert found.startswith("f: providers[0].tokenAttributes.")
    assert problem in found


def test_tokens_need_their_gate_and_version() -> None:
    document = a_config(tokenAttributes=TOKEN_ATTRIBUTES, apiVersion=V1.replace("v1", "v1beta1"))
    assert [problem.split(": ", 2)[2].split(" ")[0] for problem in problems(document, with_tokens=False)] == [
        "needs",
        "needs",
    ]


def test_all_problems_of_all_files_come_at_once() -> None:
    documents = {
        "a": a_config(name="a/b", extra=1),
        "b": {"kind": "Pod", "apiVersion": "v1", "what": 1},
        "c": [],
        "d": a_config(name="a/b"),
        "e": a_config(args="get"),
    }
    with pytest.raises(InvalidPluginConfig) as caught:
        parse_plugins(documents)
    found = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in found] == ["a", "a", "b", "b", "b", "c", "d", "d", "e"]
    assert "stands twice" in found[6]


def test_the_request() -> None:
    assert json.loads(encode_request(PLUGIN, "eu.r.example/app", None)) == {
        "kind": "CredentialProviderRequest",
        "apiVersion": V1,
        "image": "eu.r.example/app",
    }
    asked = json.loads(encode_request(with_token(), "eu.r.example/app", ACCOUNT))
    assert asked["serviceAccountToken"] == "secret-token"
    assert asked["serviceAccountAnnotations"] == {"example.com/role": "puller"}
    bare = Account("shop", "builder", "uid-1", token="t")
    assert "serviceAccountAnnotations" not in json.loads(encode_request(with_token(), "a", bare))


def an_answer(**changes: Any) -> bytes:
    answer: dict[str, Any] = {
        "kind": "CredentialProviderResponse",
        "apiVersion": V1,
        "cacheKeyType": "Registry",
        "auth": {"eu.r.example": {"username": "u", "password": "hunter2"}},
    }
    return json.dumps(answer | changes).encode()


@pytest.mark.parametrize(
    ("duration", "seconds"), [({}, 600.0), ({"cacheDuration": "5m0s"}, 300.0), ({"cacheDuration": "0s"}, 0.0)]
)
def test_an_answer(duration: dict[str, str], seconds: float) -> None:
    expected = Answer({"eu.r.example": Login("u", "hunter2")}, CacheKeyType.REGISTRY, seconds)
    assert decode_answer(PLUGIN, an_answer(**duration), None) == expected


def test_an_answer_without_logins() -> None:
    assert decode_answer(PLUGIN, an_answer(auth=None), None).logins == {}
    assert decode_answer(PLUGIN, an_answer(cacheDuration="-5s"), None).cache_seconds == 0.0


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"hunter2",
        an_answer(cacheKeyType="Image and Registry"),
        an_answer(kind="Pod"),
        an_answer(apiVersion=V1.replace("v1", "v1beta1")),
        an_answer(cacheDuration="soon"),
        an_answer(auth={"eu.r.example": {"password": ["hunter2"]}}),
    ],
)
def test_what_is_no_answer_is_refused_and_not_shown(text: bytes) -> None:
    with pytest.raises(InvalidAnswer) as caught:
        decode_answer(PLUGIN, text, None)
    assert "hunter2" not in str(caught.value)


@given(
    st.binary()
    | st.dictionaries(
        st.sampled_from(["kind", "apiVersion", "cacheKeyType", "cacheDuration", "auth", "more"]),
        st.sampled_from(["CredentialProviderResponse", V1, "Image", "5m", "-1h", "1", "", {}, [], 7, None])
        | st.dictionaries(st.text(), st.dictionaries(st.sampled_from(["username", "password"]), st.text())),
    ).map(lambda answer: json.dumps(answer).encode())
)
def test_any_output_is_an_answer_or_refused(text: bytes) -> None:
    try:
        answer = decode_answer(PLUGIN, text, None)
    except InvalidAnswer:
        return
    assert answer.cache_seconds >= 0
    assert all(isinstance(login, Login) for login in answer.logins.values())


def test_a_token_may_come_back_as_the_password_only_where_that_was_said() -> None:
    echo = an_answer(auth={"eu.r.example": {"username": "u", "password": "secret-token"}})
    with pytest.raises(InvalidAnswer, match="cacheType must be Token"):
        decode_answer(with_token(), echo, ACCOUNT)
    assert decode_answer(with_token("Token"), echo, ACCOUNT).logins
    assert decode_answer(PLUGIN, echo, None).logins


@pytest.mark.parametrize(
    ("annotations", "given_on"),
    [
        ({"need": "1"}, {"need": "1"}),
        ({"need": "1", "like": "2", "other": "3"}, {"need": "1", "like": "2"}),
        ({"like": "2"}, None),
    ],
)
def test_which_annotations_a_plugin_gets(annotations: dict[str, str], given_on: dict[str, str] | None) -> None:
    attributes = TokenAttributes(
        requiredServiceAccountAnnotationKeys=("need",), optionalServiceAccountAnnotationKeys=("like",)
    )
    assert account_annotations(attributes, annotations) == given_on


def test_for_whom_an_answer_is_good() -> None:
    assert scope_of(PLUGIN, None) == Scope()
    by_account = scope_of(with_token(), ACCOUNT)
    assert by_account == Scope("shop", "builder", "uid-1", (("example.com/role", "puller"),))
    by_token = scope_of(with_token("Token"), ACCOUNT)
    assert by_token.token_digest
    assert "secret-token" not in str(by_token) + repr(ACCOUNT)
    assert ACCOUNT.scope(TokenCache.SERVICE_ACCOUNT) == by_account


def stored(key_type: CacheKeyType, seconds: float = 60.0) -> AnswerCache:
    cache = AnswerCache()
    cache.put("r.example/team/app", Scope(), Answer({"r": Login("u")}, key_type, seconds), 100.0)
    return cache


@pytest.mark.parametrize(
    ("key_type", "same_registry", "elsewhere"),
    [(CacheKeyType.IMAGE, False, False), (CacheKeyType.REGISTRY, True, False), (CacheKeyType.GLOBAL, True, True)],
)
def test_for_which_images_an_answer_is_good(key_type: CacheKeyType, same_registry: bool, elsewhere: bool) -> None:
    cache = stored(key_type)
    assert cache.get("r.example/team/app", Scope(), 100.0) == {"r": Login("u")}
    assert (cache.get("r.example/other", Scope(), 100.0) is not None) is same_registry
    assert (cache.get("s.example/app", Scope(), 100.0) is not None) is elsewhere
    assert cache.get("r.example/team/app", Scope("shop"), 100.0) is None


def test_how_long_an_answer_is_good() -> None:
    cache = stored(CacheKeyType.IMAGE)
    assert cache.get("r.example/team/app", Scope(), 160.0) is not None
    assert cache.get("r.example/team/app", Scope(), 160.1) is None
    assert cache.get("r.example/team/app", Scope(), 2000.0) is None
    assert cache.get("r.example/team/app", Scope(), 100.0) is None
    assert stored(CacheKeyType.IMAGE, 0.0).get("r.example/team/app", Scope(), 100.0) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["r.example/a", "r.example/b", "s.example/a"]),
            st.sampled_from(list(CacheKeyType)),
            st.sampled_from([0.0, 10.0, 100.0]),
            st.integers(0, 200),
        ),
        max_size=6,
    ),
    st.sampled_from(["r.example/a", "s.example/a"]),
)
def test_nothing_is_given_after_its_time_or_for_another_image(
    puts: list[tuple[str, CacheKeyType, float, int]], wanted: str
) -> None:
    cache = AnswerCache()
    for number, (image, key_type, seconds, at) in enumerate(puts):
        cache.put(image, Scope(), Answer({str(number): Login()}, key_type, seconds), float(at))
    found = cache.get(wanted, Scope(), 100.0)
    if found is not None:
        image, key_type, seconds, at = puts[int(next(iter(found)))]
        assert at + seconds >= 100.0
        assert seconds > 0
        assert (
            key_type is CacheKeyType.GLOBAL
            or image == wanted
            or (key_type is CacheKeyType.REGISTRY and image.split("/")[0] == wanted.split("/")[0])
        )
