"""Image references are read as registry clients do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.core.image_rules import (
    ImageReference,
    InvalidImageReference,
    PullPolicy,
    canonical,
    default_pull_policy,
    parse_image,
    with_default_tag,
    without_tag,
)
from kubelet_py.errors import SyncError

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("busybox", ("docker.io", "library/busybox", "latest", "")),
        ("busybox:1", ("docker.io", "library/busybox", "1", "")),
        ("me/app", ("docker.io", "me/app", "latest", "")),
        ("docker.io/busybox", ("docker.io", "library/busybox", "latest", "")),
        ("index.docker.io/busybox", ("docker.io", "library/busybox", "latest", "")),
        ("localhost/app", ("localhost", "app", "latest", "")),
        ("localhost:5000/app:v", ("localhost:5000", "app", "v", "")),
        ("[fd00::1]:5000/app", ("[fd00::1]:5000", "app", "latest", "")),
        ("registry.k8s.io/e2e/agnhost:2.66", ("registry.k8s.io", "e2e/agnhost", "2.66", "")),
        ("Host/app", ("Host", "app", "latest", "")),
        (f"app@{DIGEST}", ("docker.io", "library/app", "", DIGEST)),
        (f"r.example/app:v@{DIGEST}", ("r.example", "app", "v", DIGEST)),
        ("a__b.d/e", ("a__b.d", "e", "latest", "")),
        ("a__b-c/e--f.g", ("docker.io", "a__b-c/e--f.g", "latest", "")),
    ],
)
def test_parts(image: str, expected: tuple[str, str, str, str]) -> None:
    """Registry, repository, tag and digest, with what is usual where nothing is said."""
    reference = parse_image(image)
    assert (reference.registry, reference.repository, reference.tag, reference.digest) == expected
    assert reference.name == f"{expected[0]}/{expected[1]}"


_REFUSED = [
    *("", "A", "a/B", "a b", "a:", "a:b:c/", "a@", "/a", "a//b", "-a", "r.example/", "host_x:1/a", "H_x.y/a"),
    *("a@sha256:12", "a@md5:" + "0" * 64, "0" * 64, "a:" + "t" * 129, "a/" + "b" * 254, "a@sha256:" + "X" * 64),
]


@pytest.mark.parametrize("image", _REFUSED)
def test_what_is_no_reference(image: str) -> None:
    """Is refused, with the reason InvalidImageName when it was to be pulled."""
    with pytest.raises(InvalidImageReference, match="couldn't parse image name"):
        parse_image(image)
    with pytest.raises(SyncError) as caught:
        with_default_tag(image)
    assert caught.value.reason == "InvalidImageName"
    assert default_pull_policy(image) is PullPolicy.IF_NOT_PRESENT


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ("", "the name is empty"),
        ("0" * 64, "64 hexadecimal characters alone are an image id and no name"),
        ("a@md5:0", "'md5:0' is no digest such as sha256:<64 hexadecimal characters>"),
        ("a:b c", "'b c' is no tag: at most 128 letters, digits, '_', '.' and '-'"),
        ("host_x:1/a", "'host_x:1' is no registry host"),
        ("a/B", "the repository name must be lowercase"),
        ("r.example/a//b", "'a//b' is no repository path"),
        ("a/" + "b" * 254, "the repository path is longer than 255 characters"),
    ],
)
def test_the_message_names_what_is_wrong(image: str, why: str) -> None:
    """After the Go kubelet's own words, which end with what its parser found."""
    with pytest.raises(SyncError) as caught:
        with_default_tag(image)
    assert caught.value.message == (
        f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": '
        f"invalid reference format: {why}"
    )


def test_the_longest_path_has_255_characters() -> None:
    assert parse_image("a/" + "b" * 253).repository == "a/" + "b" * 253


def test_default_tag_is_added_to_what_is_written() -> None:
    """The name itself stays short: which registry it means is the runtime's business."""
    assert with_default_tag("busybox") == "busybox:latest"
    assert with_default_tag("busybox:latest") == "busybox:latest"
    assert with_default_tag("localhost:5000/a") == "localhost:5000/a:latest"
    assert with_default_tag(f"a@{DIGEST}") == f"a@{DIGEST}"
    assert with_default_tag(f"a:1@{DIGEST}") == f"a:1@{DIGEST}"


def test_default_policy() -> None:
    """Always for latest, said or not."""
    assert default_pull_policy("a") is PullPolicy.ALWAYS
    assert default_pull_policy("a:latest") is PullPolicy.ALWAYS
    assert default_pull_policy("a:1") is PullPolicy.IF_NOT_PRESENT
    assert default_pull_policy(f"a@{DIGEST}") is PullPolicy.IF_NOT_PRESENT


@pytest.mark.parametrize(
    ("image", "name", "full"),
    [
        ("a", "a", "docker.io/library/a:latest"),
        ("a:1", "a", "docker.io/library/a:1"),
        ("r.example:5000/a", "r.example:5000/a", "r.example:5000/a:latest"),
        ("r.example:5000/a:1", "r.example:5000/a", "r.example:5000/a:1"),
        (f"r.example/a@{DIGEST}", "r.example/a", f"r.example/a@{DIGEST}"),
        (f"r.example/a:1@{DIGEST}", "r.example/a", f"r.example/a:1@{DIGEST}"),
        ("NOT/an image", "NOT/an image", "NOT/an image"),
    ],
)
def test_the_name_alone_and_the_one_full_spelling(image: str, name: str, full: str) -> None:
    assert without_tag(image) == name
    assert canonical(image) == full
    assert canonical(full) == full


@given(st.text(alphabet="aA0.-_/:@[]", max_size=40))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    """Nothing else comes out, and what was read can be written and read again."""
    try:
        reference = parse_image(text)
    except InvalidImageReference:
        return
    written = reference.name + (f":{reference.tag}" if reference.tag else "")
    again = parse_image(written + (f"@{reference.digest}" if reference.digest else ""))
    assert again == ImageReference(reference.registry, reference.repository, reference.tag, reference.digest)
