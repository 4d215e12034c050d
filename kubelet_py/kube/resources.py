"""Where each kind of object lives in the API: group, version, plural, and whether it has a namespace.

Kinds of the lazily imported groups are functions, so that who does not need them does not load them.
Upstream counterpart: client-go's typed clients.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import quote

from kubelet_py.api import core_v1

if TYPE_CHECKING:
    from kubelet_py.api import (
        authentication_v1,
        authorization_v1,
        certificates_v1,
        coordination_v1,
        node_v1,
        storage_v1,
    )

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """One resource of the API; `T` is its type."""

    kind: type[T]
    plural: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True

    @property
    def prefix(self) -> str:
        """The path of the group and version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of the collection, of one object or of its subresource."""
        parts = [self.prefix]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


PODS = Resource(core_v1.Pod, "pods")
NODES = Resource(core_v1.Node, "nodes", namespaced=False)
EVENTS = Resource(core_v1.Event, "events")
CONFIG_MAPS = Resource(core_v1.ConfigMap, "configmaps")
SECRETS = Resource(core_v1.Secret, "secrets")
SERVICES = Resource(core_v1.Service, "services")
SERVICE_ACCOUNTS = Resource(core_v1.ServiceAccount, "serviceaccounts")
PERSISTENT_VOLUMES = Resource(core_v1.PersistentVolume, "persistentvolumes", namespaced=False)
PERSISTENT_VOLUME_CLAIMS = Resource(core_v1.PersistentVolumeClaim, "persistentvolumeclaims")


@cache
def leases() -> "Resource[coordination_v1.Lease]":
    """Leases of coordination.k8s.io."""
    from kubelet_py.api import coordination_v1

    return Resource(coordination_v1.Lease, "leases", group="coordination.k8s.io")


@cache
def runtime_classes() -> "Resource[node_v1.RuntimeClass]":
    """RuntimeClasses."""
    from kubelet_py.api import node_v1

    return Resource(node_v1.RuntimeClass, "runtimeclasses", group="node.k8s.io", namespaced=False)


@cache
def token_reviews() -> "Resource[authentication_v1.TokenReview]":
    """Reviews of bearer tokens."""
    from kubelet_py.api import authentication_v1

    return Resource(authentication_v1.TokenReview, "tokenreviews", group="authentication.k8s.io", namespaced=False)


@cache
def subject_access_reviews() -> "Resource[authorization_v1.SubjectAccessReview]":
    """Reviews of what a user may do."""
    from kubelet_py.api import authorization_v1

    return Resource(
        authorization_v1.SubjectAccessReview, "subjectaccessreviews", group="authorization.k8s.io", namespaced=False
    )


@cache
def certificate_signing_requests() -> "Resource[certificates_v1.CertificateSigningRequest]":
    """Requests for certificates."""
    from kubelet_py.api import certificates_v1

    return Resource(
        certificates_v1.CertificateSigningRequest,
        "certificatesigningrequests",
        group="certificates.k8s.io",
        namespaced=False,
    )


@cache
def cluster_trust_bundles() -> "Resource[certificates_v1.ClusterTrustBundle]":
    """Certificates of authorities, for pods."""
    from kubelet_py.api import certificates_v1

    return Resource(
        certificates_v1.ClusterTrustBundle, "clustertrustbundles", group="certificates.k8s.io", namespaced=False
    )


@cache
def pod_certificate_requests() -> "Resource[certificates_v1.PodCertificateRequest]":
    """Requests for certificates of pods."""
    from kubelet_py.api import certificates_v1

    return Resource(certificates_v1.PodCertificateRequest, "podcertificaterequests", group="certificates.k8s.io")


@cache
def csi_nodes() -> "Resource[storage_v1.CSINode]":
    """What the CSI drivers of a node can do."""
    from kubelet_py.api import storage_v1

    return Resource(storage_v1.CSINode, "csinodes", group="storage.k8s.io", namespaced=False)
