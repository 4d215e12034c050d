"""Which form an answer takes. The expected answers are those of the Go kubelet 1.37.2 to the same headers."""

import pytest

from kubelet_py.core.content_negotiation import (
    CBOR,
    JSON,
    TEXT,
    YAML,
    Choice,
    Clause,
    Target,
    choose,
    choose_for_error,
    parse_accept,
    read_by_a_person,
)

OLD, NEW = Target("config.k8s.io", "v1alpha1", "Statusz"), Target("config.k8s.io", "v1beta1", "Statusz")
KINDS = (OLD, NEW)
FORMS = (JSON, YAML, TEXT)
AS_NEW = "as=Statusz;g=config.k8s.io;v=v1beta1"


@pytest.mark.parametrize(
    ("header", "choice"),
    [
        ("text/plain", Choice(TEXT, None, False)),
        ("text/*", Choice(TEXT, None, False)),
        ("*/*", Choice(TEXT, None, False)),
        ("*", Choice(TEXT, None, False)),
        ("text/html, text/plain;q=0.5", Choice(TEXT, None, False)),
        (f"application/json;{AS_NEW}", Choice(JSON, NEW, False)),
        ("application/json;as=Statusz;g=config.k8s.io;v=v1alpha1", Choice(JSON, OLD, False)),
        (f"application/yaml; {AS_NEW}", Choice(YAML, NEW, False)),
        (f"*/*;{AS_NEW}", Choice(JSON, NEW, False)),
        (f"application/*;{AS_NEW};pretty=1", Choice(JSON, NEW, True)),
        (f"application/json;{AS_NEW};charset=utf-8", Choice(JSON, NEW, False)),
        (f"application/json;{AS_NEW};sv=", Choice(JSON, NEW, False)),
        ("application/json;as=Statusz;g=config.k8s.io;v=v1, text/plain", Choice(TEXT, None, False)),
        (f"application/json;q=0.1;{AS_NEW}, application/yaml;q=0.2;{AS_NEW}", Choice(YAML, NEW, False)),
        ("application/json", None),
        ("application/yaml", None),
        ("text/html", None),
        ("application/vnd.kubernetes.protobuf", None),
        (f"application/cbor;{AS_NEW}", None),
        ("application/json;as=Statusz", None),
        ("application/json;as=Flagz;g=config.k8s.io;v=v1beta1", None),
        (f"text/plain;{AS_NEW}", None),
        (f"application/yaml;{AS_NEW};sv=1", None),
        (f"application/json;{AS_NEW};stream=watch", None),
        ("nonsense", None),
    ],
)
def test_text_for_those_who_name_no_object_and_the_object_for_those_who_name_a_known_one(
    header: str, choice: Choice | None
) -> None:
    assert choose(header, FORMS, KINDS) == choice


def test_a_form_that_the_server_has_on_top_is_chosen_like_the_others() -> None:
    assert choose(f"application/cbor;{AS_NEW}", (*FORMS, CBOR), KINDS) == Choice(CBOR, NEW, False)


@pytest.mark.parametrize(
    ("header", "choice"),
    [
        ("application/json", Choice(JSON, None, False)),
        ("application/json;pretty=1", Choice(JSON, None, True)),
        ("application/yaml", Choice(YAML, None, False)),
        ("application/json;stream=watch", Choice(JSON, None, False)),
        ("application/cbor;stream=watch", Choice(CBOR, None, False)),
        ("application/yaml;stream=watch", None),
        ("application/json;stream=else", None),
        ("application/json;sv=1", None),
        (f"application/json;{AS_NEW}x", None),
        ("text/html", None),
        ("", None),
    ],
)
def test_an_error_is_told_in_a_form_that_the_client_takes(header: str, choice: Choice | None) -> None:
    assert choose_for_error(header, (*FORMS, CBOR)) == choice


def test_the_most_wanted_comes_first_then_what_is_said_exactly() -> None:
    header = "*/*, a/*, a/b;q=0.5, a/b, c/d;q=x, e/f;q=2, a/b/c, /, g/h;w;x=1=2;y=;z = 1"
    assert parse_accept(header) == [
        Clause("a", "b"),
        Clause("g", "h", 1.0, {"z": "1"}),
        Clause("a", "*"),
        Clause("*", "*"),
        Clause("a", "b", 0.5),
        Clause("c", "d", 0.0),
        Clause("e", "f", 0.0),
    ]


@pytest.mark.parametrize(
    ("query", "agent", "person"),
    [
        ({}, "curl/8.0", True),
        ({}, "Wget/1.2", True),
        ({}, "Mozilla/5.0 (X11)", True),
        ({}, "kubectl/v1.37.2", False),
        ({"pretty": "true"}, "kubectl", True),
        ({"pretty": "0"}, "curl", False),
        ({"pretty": ""}, "curl", True),
    ],
)
def test_line_breaks_are_for_those_who_read(query: dict[str, str], agent: str, person: bool) -> None:
    assert read_by_a_person(query, agent) is person
