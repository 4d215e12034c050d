"""CBOR as the Go kubelet 1.37.2 writes it; lengths and numbers from RFC 8949, appendix A."""

from typing import Any

import pytest

from kubelet_py.api import cbor


@pytest.mark.parametrize(
    ("value", "hexadecimal"),
    [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (255, "18ff"),
        (406, "190196"),
        (65536, "1a00010000"),
        (2**64 - 1, "1bffffffffffffffff"),
        (-1, "20"),
        (-500, "3901f3"),
        (False, "f4"),
        (True, "f5"),
        (None, "f6"),
        ("", "40"),
        ("v1", "427631"),
        ("x" * 24, "5818" + "78" * 24),
        ([], "80"),
        (["a", 1], "82416101"),
        ({}, "a0"),
        ({"name": "kubelet"}, "a1446e616d65476b7562656c6574"),
    ],
)
def test_strings_are_byte_strings_and_lengths_are_short(value: Any, hexadecimal: str) -> None:
    assert cbor.encode(value).hex() == "d9d9f7" + hexadecimal


@pytest.mark.parametrize("value", [1.5, b"x", [object()], 2**64])
def test_what_has_no_place_in_a_document_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        cbor.encode(value)
