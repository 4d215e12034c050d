"""Which bundles a volume means, and the file made of them."""

import base64
import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import certificates_v1, codec, core_v1
from kubelet_py.core.trust_bundles import TrustBundle, is_selected, pem_blocks, trust_anchors, trust_bundle_of
from kubelet_py.core.volume_payload import PayloadError

BEGIN, END = "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n"
SIGNER = "example.com/signer"


def source(**fields: Any) -> core_v1.ClusterTrustBundleProjection:
    return codec.from_builtins(core_v1.ClusterTrustBundleProjection, {"path": "ca.pem", **fields})


def bundle(*anchors: bytes, signer: str = SIGNER, **labels: str) -> TrustBundle:
    return TrustBundle(signer, labels, anchors)


def pem(*contents: bytes, kind: str = "CERTIFICATE") -> str:
    return "".join(
        f"-----BEGIN {kind}-----\n{base64.encodebytes(content).decode()}-----END {kind}-----\n" for content in contents
    )


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


@given(contents, contents, st.uuids())
def test_each_certificate_is_there_once_and_their_order_is_the_pods(
    one: list[bytes], other: list[bytes], pod_uid: Any
) -> None:
    wanted = source(signerName=SIGNER, labelSelector={})
    uid = str(pod_uid)
    file = trust_anchors(wanted, {"1": bundle(*one), "2": bundle(*other)}, uid)
    blocks = blocks_of(file)
    assert sorted(blocks) == sorted({*one, *other})
    assert file == trust_anchors(wanted, {"2": bundle(*other, *one), "3": bundle()}, uid)
    assert trust_anchors(source(name="again"), {"again": bundle(*blocks_of(file))}, uid) == file


def test_pods_differ_in_the_order_and_in_nothing_else() -> None:
    anchors = [bytes([number]) for number in range(20)]
    files = {trust_anchors(source(name="a"), {"a": bundle(*anchors)}, f"uid-{number}") for number in range(9)}
    assert len(files) == 9
    assert {frozenset(file.splitlines()) for file in files} == {frozenset(files.pop().splitlines())}


def test_the_file_has_lines_of_64_characters_as_openssl_reads_them() -> None:
    content = bytes(range(100))
    file = trust_anchors(source(name="a"), {"a": bundle(content)}, "").decode()
    lines = file.splitlines(keepends=True)
    assert (lines[0], lines[-1]) == (BEGIN, END)
    assert [len(line.strip()) for line in lines[1:-1]] == [64, 64, 8]
    assert ssl.PEM_cert_to_DER_cert(file) == content


def test_a_bundle_is_read_once() -> None:
    stated: dict[str, Any] = {
        "metadata": {"name": "a", "labels": {"x": "1"}},
        "spec": {"signerName": SIGNER, "trustBundle": f"é\n{pem(b'A', b'B', b'A')}"},
    }
    described = codec.from_builtins(certificates_v1.ClusterTrustBundle, stated)
    assert trust_bundle_of(described) == TrustBundle(SIGNER, {"x": "1"}, (b"A", b"B"))
    bare = certificates_v1.ClusterTrustBundle(spec=certificates_v1.ClusterTrustBundleSpec(trustBundle=""))
    assert trust_bundle_of(bare) == TrustBundle("", {}, ())
    described.metadata.labels = None  # type: ignore[union-attr] # it has metadata
    assert trust_bundle_of(described).labels == {}


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (source(name="plain"), {"plain"}),
        (source(name="none"), set()),
        (source(name="plain", signerName=SIGNER, labelSelector={}), {"plain"}),
        (source(signerName=SIGNER), set()),
        (source(signerName=SIGNER, labelSelector={}), {"one", "two"}),
        (source(signerName=SIGNER, labelSelector={"matchLabels": {"live": "yes"}}), {"one"}),
        (source(signerName="example.com/other", labelSelector={}), {"third"}),
        (source(), set()),
    ],
)
def test_a_source_means_one_name_or_a_signer_with_labels(
    wanted: core_v1.ClusterTrustBundleProjection, names: set[str]
) -> None:
    bundles = {
        "plain": bundle(b"0", signer="", live="yes"),
        "one": bundle(b"1", live="yes"),
        "two": bundle(b"2", live="no"),
        "third": bundle(b"3", signer="example.com/other", live="yes"),
    }
    assert {name for name, each in bundles.items() if is_selected(wanted, name, each)} == names
    expected = sorted(anchor for name in names for anchor in bundles[name].anchors)
    if names:
        assert sorted(blocks_of(trust_anchors(wanted, bundles, "uid"))) == expected
    elif wanted.name is not None or wanted.signerName is not None:
        with pytest.raises(PayloadError):
            trust_anchors(wanted, bundles, "uid")
        wanted.optional = True
        assert trust_anchors(wanted, bundles, "uid") == b""


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (source(name="gone"), 'clustertrustbundle.certificates.k8s.io "gone" not found'),
        (source(name="gone", optional=False), 'clustertrustbundle.certificates.k8s.io "gone" not found'),
        (
            source(signerName=SIGNER, labelSelector={}),
            f"combination of signerName and labelSelector matched zero ClusterTrustBundles (signerName {SIGNER})",
        ),
        (source(optional=True), "ClusterTrustBundle projection requires either name or signerName to be set"),
        (
            source(
                signerName=SIGNER, optional=True, labelSelector={"matchExpressions": [{"key": "a", "operator": "Lt"}]}
            ),
            'clusterTrustBundle.labelSelector: "Lt" is not a valid label selector operator',
        ),
    ],
)
def test_what_is_missing_or_wrong_is_named(wanted: core_v1.ClusterTrustBundleProjection, text: str) -> None:
    with pytest.raises(PayloadError) as caught:
        trust_anchors(wanted, {"other": bundle(b"x", signer="s")}, "uid")
    assert str(caught.value) == text


def test_a_bundle_without_certificates_is_there_all_the_same() -> None:
    assert trust_anchors(source(name="a"), {"a": bundle()}, "uid") == b""
