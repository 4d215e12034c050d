"""The container hash is the Go kubelet's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import core_v1
from kubelet_py.core.container_hash import compute_container_hash, fnv_32a, fnv_64a, fnv_128a


def test_value_of_the_go_kubelet() -> None:
    """Name and image of the Go kubelet's own consistency test give its value, which has held since 1.31."""
    assert compute_container_hash(core_v1.Container(name="test_container", image="foo/image:v1")) == "8e45cbd0"


def test_only_name_and_image_count() -> None:
    """Another command is the same container; another image is not."""
    one = core_v1.Container(name="a", image="i:1")
    assert compute_container_hash(one) == compute_container_hash(
        core_v1.Container(name="a", image="i:1", command=["other"])
    )
    assert compute_container_hash(one) != compute_container_hash(core_v1.Container(name="a", image="i:2"))
    assert compute_container_hash(one) != compute_container_hash(core_v1.Container(name="b", image="i:1"))


@pytest.mark.parametrize(
    ("name", "image", "document"),
    [
        ("ä", "i", '{"image":"i","name":"ä"}'),
        ("a", "<&>", '{"image":"\\u003c\\u0026\\u003e","name":"a"}'),
        ("a", "\u2028", '{"image":"\\u2028","name":"a"}'),
        (None, None, '{"image":"","name":""}'),
    ],
)
def test_it_is_taken_over_what_go_writes(name: str | None, image: str | None, document: str) -> None:
    """JSON as Go's encoder has it: keys sorted, UTF-8, some characters escaped; dumped as a slice of bytes."""
    dump = f"([]uint8)[{' '.join(str(byte) for byte in document.encode())}]"
    expected = f"{fnv_32a(dump.encode()):x}"
    container = core_v1.EphemeralContainer(name=name, image=image)  # type: ignore[arg-type] # objects may lack the name
    assert compute_container_hash(container) == expected


def test_half_a_surrogate_pair_does_no_harm() -> None:
    """JSON and YAML may have one in any text."""
    assert int(compute_container_hash(core_v1.Container(name="a", image="\ud800")), 16) < 2**32


def test_published_vectors() -> None:
    """FNV-1a of nothing is the offset; of "a" what its authors publish."""
    assert fnv_32a(b"") == 0x811C9DC5
    assert fnv_32a(b"a") == 0xE40C292C
    assert fnv_64a(b"a") == 0xAF63DC4C8601EC8C
    assert fnv_64a(b"foobar") == 0x85944171F73967E8
    assert fnv_128a(b"a") == 0xD228CB696F1A8CAF78912B704E4A8964


@given(st.text(), st.text())
def test_any_name_has_a_hash(name: str, image: str) -> None:
    """Eight hexadecimal digits at most, whatever the characters."""
    assert int(compute_container_hash(core_v1.Container(name=name, image=image)), 16) < 2**32
