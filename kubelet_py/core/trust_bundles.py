"""Certificates of authorities for pods: which ClusterTrustBundles a projected volume means, and the file made of them.

Owns reading and writing PEM as the API server understands it: text between blocks and headers go, types of blocks are
not looked at, each certificate is there once. `kube.trust_bundles` has the bundles.

Upstream counterparts: pkg/kubelet/clustertrustbundle, Go's encoding/pem. Differences: certificates come in an order
that is each pod's own and stays, where upstream shuffles them anew every few minutes, and with them every file: what
may not be relied on is the same, and a file changes only when its certificates do. A selector may be of any length.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kubelet_py.api import core_v1
from kubelet_py.core import label_selectors
from kubelet_py.core.volume_payload import PayloadError

if TYPE_CHECKING:
    from kubelet_py.api import certificates_v1

_BEGIN: Final = b"-----BEGIN "
_END: Final = b"\n-----END "
_DASHES: Final = b"-----"
_BASE64: Final = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_LINE_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """What counts of a ClusterTrustBundle. `anchors` are the contents of its PEM blocks, each once, as they come."""

    signer: str
    labels: Mapping[str, str]
    anchors: tuple[bytes, ...]


def trust_bundle_of(described: "certificates_v1.ClusterTrustBundle") -> TrustBundle:
    """The bundle as the API server has it, read."""
    labels = (described.metadata.labels if described.metadata is not None else None) or {}
    anchors = dict.fromkeys(pem_blocks(described.spec.trustBundle.encode()))
    return TrustBundle(described.spec.signerName or "", labels, tuple(anchors))


def is_selected(source: core_v1.ClusterTrustBundleProjection, name: str, bundle: TrustBundle) -> bool:
    """Whether the volume's source means this bundle: the one of its name, else those of its signer and labels."""
    if source.name is not None:
        return name == source.name
    return (
        source.signerName is not None
        and bundle.signer == source.signerName
        and label_selectors.matches(source.labelSelector, bundle.labels)
    )


def trust_anchors(
    source: core_v1.ClusterTrustBundleProjection, bundles: Mapping[str, TrustBundle], pod_uid: str
) -> bytes:
    """The file that the source wants, of all bundles there are; PayloadError says which are missing.

    The pod's UID gives the order.
    """
    if source.name is None and source.signerName is None:
        raise PayloadError("ClusterTrustBundle projection requires either name or signerName to be set")
    if source.name is not None:
        named = bundles.get(source.name)
        chosen = [named] if named is not None else []
        missing = f'clustertrustbundle.certificates.k8s.io "{source.name}" not found'
    else:
        if problem := label_selectors.selector_problem(source.labelSelector):
            raise PayloadError(f"clusterTrustBundle.labelSelector: {problem}")
        chosen = [bundle for name, bundle in bundles.items() if is_selected(source, name, bundle)]
        missing = (
            "combination of signerName and labelSelector matched zero ClusterTrustBundles "
            f"(signerName {source.signerName})"
        )
    if not chosen and not source.optional:
        raise PayloadError(missing)
    anchors = {anchor for bundle in chosen for anchor in bundle.anchors}
    key = hashlib.sha256(pod_uid.encode()).digest()
    ordered = sorted(anchors, key=lambda anchor: hashlib.blake2b(anchor, digest_size=16, key=key).digest())
    return b"".join(map(_pem_of, ordered))


def pem_blocks(data: bytes) -> Iterator[bytes]:
    """The contents of all blocks, whatever their types say. What is no whole block is passed over."""
    at = 0
    while (found := _next_block(data, at)) is not None:
        content, at = found
        yield content


def _next_block(data: bytes, start: int) -> tuple[bytes, int] | None:
    """The next block and where the line after it begins.

    An END line belongs to the last BEGIN line before it, so that one BEGIN without an END hides no block.
    """
    at = start
    while (end := data.find(_END, at)) >= 0:
        after_end = end + len(_END)
        begin = data.rfind(_BEGIN, at, end)
        is_line = begin == at or (begin > at and data[begin - 1 : begin] == b"\n")
        at = after_end
        if not is_line:
            continue
        kind, body = _line(data, begin + len(_BEGIN))
        if not kind.endswith(_DASHES):
            continue
        body, has_headers = _skip_headers(data, body)
        if body >= len(data) or body > after_end:
            return None  # what looked like headers goes on past the END line, and nothing after it can be trusted
        if has_headers and body > end:
            continue
        if not _ends_with(data, after_end, kind):
            continue
        content = _base64_content(data[body:end])
        if content is not None:
            return content, _line(data, after_end)[1]
    return None


def _skip_headers(data: bytes, at: int) -> tuple[int, bool]:
    """Where the lines with a colon end, and whether there are any."""
    start = at
    line, following = _line(data, at)
    while b":" in line:
        at = following
        line, following = _line(data, at)
    return at, at > start


def _ends_with(data: bytes, at: int, kind: bytes) -> bool:
    """Whether the rest of the END line is the type of the BEGIN line with its dashes, and at most white space."""
    return data.startswith(kind, at) and not _line(data, at + len(kind))[0]


def _line(data: bytes, start: int) -> tuple[bytes, int]:
    """A line without the white space at its end, and where the next one begins."""
    feed = data.find(b"\n", start)
    if feed < 0:
        return data[start:].rstrip(b" \t"), len(data)
    return data[start:feed].removesuffix(b"\r").rstrip(b" \t"), feed + 1


def _base64_content(data: bytes) -> bytes | None:
    text = data.translate(None, b" \t\r\n")
    # The decoder alone would take padding after what needs none.
    return binascii.a2b_base64(text) if _BASE64.fullmatch(text) else None


def _pem_of(anchor: bytes) -> bytes:
    text = base64.b64encode(anchor)
    lines = [text[at : at + _LINE_LENGTH] for at in range(0, len(text), _LINE_LENGTH)]
    return b"\n".join([b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""])
