"""Which bundles a volume means, and the file made of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import certificates_v1, codec, core_v1
from kubelet_py.core.pem import certificates_file, pem_blocks
from kubelet_py.core.trust_bundles import TrustBundle, is_selected, trust_anchors, trust_bundle_of
from kubelet_py.core.volume_payload import PayloadError

SIGNER = "example.com/signer"


def source(**fields: Any) -> core_v1.ClusterTrustBundleProjection:
    return codec.from_builtins(core_v1.ClusterTrustBundleProjection, {"path": "ca.pem", **fields})


def bundle(*anchors: bytes, signer: str = SIGNER, **labels: str) -> TrustBundle:
    return TrustBundle(signer, labels, anchors)


def blocks_of(text: bytes) -> list[bytes]:
    return list(pem_blocks(text))


contents = st.lists(st.binary(max_size=200), max_size=6)


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


def test_a_bundle_is_read_once() -> None:
    stated: dict[str, Any] = {
        "metadata": {"name": "a", "labels": {"x": "1"}},
        "spec": {"signerName": SIGNER, "trustBundle": f"é\n{certificates_file([b'A', b'B', b'A']).decode()}"},
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
