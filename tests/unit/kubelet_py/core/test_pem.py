"""What counts of PEM text, as Go reads it, and how it is written."""

import base64
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.core.pem import certificates_file, pem_blocks

BEGIN, END = "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n"


def pem(*contents: bytes) -> str:
    return "".join(f"{BEGIN}{base64.encodebytes(content).decode()}{END}" for content in contents)


def blocks_of(text: bytes) -> list[bytes]:
    return list(pem_blocks(text))


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("", []),
        ("text", []),
        (f"{BEGIN}QUJD\n{END}", [b"ABC"]),
        (f"before\n{BEGIN}QUJD\n{END}between\n{BEGIN}QQ==\n{END}after", [b"ABC", b"A"]),
        (f"before{BEGIN}QUJD\n{END}", []),
        (f"{BEGIN}Proc-Type: 4,ENCRYPTED\nDEK: x\n\nQUJD\n{END}", [b"ABC"]),
        ("-----BEGIN X-----\nQUJD\n-----END X-----\n", [b"ABC"]),
        (f"-----BEGIN X-----\nQUJD\n{END}{BEGIN}QQ==\n{END}", [b"A"]),
        (f"{BEGIN}{END}", [b""]),
        (f"{BEGIN}\n{END}", [b""]),
        (f"{BEGIN}{BEGIN}QUJD\n{END}", [b"ABC"]),
        (f"-----BEGIN CERTIFICATE\nQUJD\n{END}", []),
        (f"{BEGIN} QU JD \t\n{END}", [b"ABC"]),
        ("-----BEGIN CERTIFICATE----- \r\nQUJD\r\n-----END CERTIFICATE----- \t\r\n", [b"ABC"]),
        (f"{BEGIN}QUJD\n{END.strip()}", [b"ABC"]),
        (f"{BEGIN}QUJD\n{END.strip()}more\n{BEGIN}QQ==\n{END}", [b"A"]),
        (f"before{BEGIN}QUJD\n{END}{BEGIN}QQ==\n{END}", [b"A"]),
        (f"-----BEGIN CERTIFICATE\nQUJD\n{END}{BEGIN}QQ==\n{END}", [b"A"]),
        (f"{BEGIN}QUJD\n{END.strip()}\r", []),
        (f"{BEGIN}QUJD\n{END.strip()}X", []),
        (f"{BEGIN}QUJD\n{END.strip()} X\n", []),
        (f"{BEGIN}QUJD\n{END.strip()}X\n", []),
        (f"{BEGIN}QUJD\n{END.strip()}\v\n", []),
        (f"{BEGIN}QUJD\n{END.strip()} ", [b"ABC"]),
        (f"{BEGIN}QUJD", []),
        (f"{BEGIN}QUJD\n-----END CERT", []),
        (f"{BEGIN}QUJD\n-----END CERTIFICATE", []),
    ],
)
def test_blocks_of_pem_are_those_that_the_api_server_sees(text: str, blocks: list[bytes]) -> None:
    """As Go 1.26 reads each of these."""
    assert blocks_of(text.encode()) == blocks


@pytest.mark.parametrize("content", ["Q!JD", "QUJ", "QUJD=", "QUJD====", "====", "QQ==QQ=="])
def test_a_block_that_is_no_base64_is_passed_over(content: str) -> None:
    assert blocks_of(f"{BEGIN}{content}\n{END}{BEGIN}QQ==\n{END}".encode()) == [b"A"]


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        (f"{BEGIN}a: b\n\n{END}", [b""]),
        (f"{BEGIN}a: b\n{END}{BEGIN}QUJD\n{END}", [b"ABC"]),  # headers up to the END line
        (f"{BEGIN}a: b\n-----END x: y", []),  # and to the end of everything
        (f"{BEGIN}a: b\n-----END CERTIFICATE: y\nz: y\nmore\n{BEGIN}QUJD\n{END}", []),  # and past the END line
        (f"{BEGIN}\n-----END : x\nQUJD\n{END}", []),  # an END line of another type
    ],
)
def test_headers_that_reach_the_end_of_their_block(text: str, blocks: list[bytes]) -> None:
    """As Go 1.26 reads each of these."""
    assert blocks_of(text.encode()) == blocks


contents = st.lists(st.binary(max_size=200), max_size=6)
noise = st.text(st.characters(exclude_characters="-", exclude_categories=["Cs"]), max_size=40)


@given(contents, noise)
def test_whatever_stands_between_blocks_is_gone(blocks: list[bytes], between: str) -> None:
    text = f"\n{between}\n".join(["", *(pem(block) for block in blocks), ""])
    assert blocks_of(text.encode()) == blocks


@given(st.binary(max_size=300))
def test_no_input_is_too_strange(data: bytes) -> None:
    assert all(isinstance(block, bytes) for block in pem_blocks(data + pem(b"x").encode() + data))


def test_the_file_has_lines_of_64_characters_as_openssl_reads_them() -> None:
    content = bytes(range(100))
    file = certificates_file([content]).decode()
    lines = file.splitlines(keepends=True)
    assert (lines[0], lines[-1]) == (BEGIN, END)
    assert [len(line.strip()) for line in lines[1:-1]] == [64, 64, 8]
    assert ssl.PEM_cert_to_DER_cert(file) == content
