"""Image references."""

from __future__ import annotations

import pytest

from dockershim.errors import InvalidArgument
from dockershim.translate.image_refs import canonical_or_none, decode_auth, is_image_id, parse_image_ref

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.2", "docker.io/library/nginx:1.2"),
        ("index.docker.io/library/nginx:1.2", "docker.io/library/nginx:1.2"),
        ("me/app", "docker.io/me/app:latest"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("r.io:5000/a/b", "r.io:5000/a/b:latest"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"r.io/a:1@{DIGEST}", f"r.io/a@{DIGEST}"),
        ("[::1]:5000/a:1", "[::1]:5000/a:1"),
    ],
)
def test_every_spelling_has_one_form(text: str, canonical: str) -> None:
    """The form that is the key of the store."""
    assert parse_image_ref(text).canonical == canonical
    assert parse_image_ref(canonical).canonical == canonical


@pytest.mark.parametrize(
    "text", ["", "Nginx", "a b", "nginx:", "nginx:a:b", "r.io/", "nginx@sha256:12", "-x", "r.io/a//b"]
)
def test_what_is_no_reference(text: str) -> None:
    """Is refused."""
    with pytest.raises(InvalidArgument):
        parse_image_ref(text)


def test_ids_are_told_from_names() -> None:
    """64 hex digits, with or without the algorithm."""
    assert is_image_id("a" * 64)
    assert is_image_id(DIGEST)
    assert not is_image_id("a" * 63)
    assert not is_image_id("pause")


def test_dangling_marks_are_no_names() -> None:
    """Docker's words for nothing."""
    assert canonical_or_none("<none>:<none>") is None
    assert canonical_or_none("<none>@<none>") is None


def test_docker_shows_short_names() -> None:
    """As Docker lists them."""
    assert parse_image_ref("docker.io/library/nginx").familiar == "nginx"
    assert parse_image_ref("docker.io/me/app").familiar == "me/app"
    assert parse_image_ref("r.io/a").familiar == "r.io/a"


def test_auth_holds_user_and_password() -> None:
    """Base64 of both; a password may hold a colon."""
    assert decode_auth("dXNlcjpwYTpzcw==") == ("user", "pa:ss")
    for bad in ("%%%", "ü", "/w==", "dXNlcg=="):
        with pytest.raises(InvalidArgument):
            decode_auth(bad)
