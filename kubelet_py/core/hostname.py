"""The names a pod answers to: its hostname, its domain, and what the kernel is told.

Upstream counterparts: pkg/kubelet/kubelet_pods.go (GeneratePodHostNameAndDomain), pkg/kubelet/util/util.go.
"""

from typing import Final, NamedTuple

from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.core.name_rules import check_dns_label, check_dns_subdomain
from kubelet_py.errors import SyncError

_HOSTNAME_MAX_LENGTH: Final = 63
_KERNEL_HOSTNAME_MAX_LENGTH: Final = 64
_REASON: Final = "CreatePodSandboxError"


class PodHostname(NamedTuple):
    """`domain` is empty when the pod has no subdomain."""

    hostname: str
    domain: str


def compute_hostname(pod: core_v1.Pod, cluster_domain: str) -> PodHostname:
    """Hostname and domain; hostnameOverride wins over everything. Raises SyncError for what is no DNS name."""
    spec, metadata = podlib.spec_of(pod), podlib.metadata_of(pod)
    if spec.hostnameOverride is not None:
        if wrong := check_dns_subdomain(spec.hostnameOverride):
            raise SyncError(
                _REASON, f'pod HostnameOverride "{spec.hostnameOverride}" is not a valid DNS subdomain: {wrong}'
            )
        return PodHostname(_fitted(pod, spec.hostnameOverride), "")
    hostname = metadata.name or ""
    if spec.hostname:
        if wrong := check_dns_label(spec.hostname):
            raise SyncError(_REASON, f'pod Hostname "{spec.hostname}" is not a valid DNS label: {wrong}')
        hostname = spec.hostname
    hostname = _fitted(pod, hostname)
    if not spec.subdomain:
        return PodHostname(hostname, "")
    if wrong := check_dns_label(spec.subdomain):
        raise SyncError(_REASON, f'pod Subdomain "{spec.subdomain}" is not a valid DNS label: {wrong}')
    return PodHostname(hostname, f"{spec.subdomain}.{metadata.namespace}.svc.{cluster_domain}")


def compute_kernel_hostname(pod: core_v1.Pod, name: PodHostname) -> str:
    """What `hostname` prints in the pod: the full name when setHostnameAsFQDN asks for it."""
    if not name.domain or not podlib.spec_of(pod).setHostnameAsFQDN:
        return name.hostname
    full = f"{name.hostname}.{name.domain}"
    if len(full) > _KERNEL_HOSTNAME_MAX_LENGTH:
        raise SyncError(
            _REASON,
            "failed to construct FQDN from pod hostname and cluster domain, "
            f"FQDN {full} is too long ({_KERNEL_HOSTNAME_MAX_LENGTH} characters is the max, "
            f"{len(full)} characters requested)",
        )
    return full


def _fitted(pod: core_v1.Pod, hostname: str) -> str:
    if len(hostname) <= _HOSTNAME_MAX_LENGTH:
        return hostname
    fitted = hostname[:_HOSTNAME_MAX_LENGTH].rstrip("-.")
    if not fitted:
        raise SyncError(_REASON, f'hostname for pod "{podlib.metadata_of(pod).name}" was invalid: "{hostname}"')
    return fitted
