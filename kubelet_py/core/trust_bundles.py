"""Certificates of authorities for pods: which ClusterTrustBundles a projected volume means, and the file made of them.

Each certificate is there once. `kube.trust_bundles` has the bundles, `core.pem` reads and writes them.

Upstream counterpart: pkg/kubelet/clustertrustbundle. Differences: certificates come in an order that is each pod's own
and stays, where upstream shuffles them anew every few minutes, and with them every file: what may not be relied on is
the same, and a file changes only when its certificates do. A selector may be of any length.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubelet_py.api import core_v1
from kubelet_py.core import label_selectors
from kubelet_py.core.pem import certificates_file, pem_blocks
from kubelet_py.core.volume_payload import PayloadError

if TYPE_CHECKING:
    from kubelet_py.api import certificates_v1


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
    return certificates_file(ordered)
