"""The flags that belong to one node and have no field in KubeletConfiguration.

Owns their types, defaults and checks. The flag of an attribute is its name with dashes. Pure.

Upstream counterpart: KubeletFlags of cmd/kubelet/app/options/options.go.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kubelet_py.config.decode import Problem, is_ip_address
from kubelet_py.config.model import Int32, Seconds

_LABEL_NAMESPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")
_LABELS = (
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "beta.kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/arch",
)
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFlags:
    """The flags of one node. An empty `kubeconfig` is standalone mode."""

    config: str = ""
    config_dir: str = ""
    kubeconfig: str = ""
    bootstrap_kubeconfig: str = ""
    cert_dir: str = "/var/lib/kubelet/pki"
    root_dir: str = "/var/lib/kubelet"
    hostname_override: str = ""
    node_ip: str = ""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    cloud_provider: str = ""
    image_credential_provider_config: str = ""
    image_credential_provider_bin_dir: str = ""
    runtime_cgroups: str = ""
    lock_file: str = ""
    exit_on_lock_contention: bool = False
    minimum_container_ttl_duration: Seconds = 0.0
    maximum_dead_containers_per_container: Int32 = 1
    maximum_dead_containers: Int32 = -1
    experimental_mounter_path: str = ""
    experimental_allocatable_ignore_eviction: bool = False
    housekeeping_interval: Seconds = 10.0


DEPRECATED_NODE_FLAGS = frozenset(
    {
        "minimum_container_ttl_duration",
        "maximum_dead_containers_per_container",
        "maximum_dead_containers",
        "experimental_mounter_path",
        "experimental_allocatable_ignore_eviction",
    }
)


def node_flag_problems(flags: NodeFlags) -> list[Problem]:
    """What is wrong with the node's own flags; paths are attribute names."""
    problems: list[Problem] = []
    if flags.cloud_provider not in ("", "external"):
        text = f"is {flags.cloud_provider!r}: leave it empty or write external"
        problems.append(Problem("cloud_provider", text))
    if flags.exit_on_lock_contention and not flags.lock_file:
        problems.append(Problem("exit_on_lock_contention", "needs --lock-file"))
    problems += [Problem("node_ip", f"has {flags.node_ip}: {text}") for text in _node_ip_mistakes(flags.node_ip)]
    for key, value in flags.node_labels.items():
        problems += [Problem("node_labels", f"has {key}={value}: {text}") for text in _label_mistakes(key, value)]
    return problems


def _node_ip_mistakes(text: str) -> list[str]:
    """What several addresses together may not be; single ones are looked at where the machine's own are known."""
    ips = [ipaddress.ip_address(item) for item in text.split(",") if is_ip_address(item)]
    if len(ips) > 2 or len({ip.version for ip in ips}) < len(ips):
        return ["one address, or one of each family, is expected"]
    if len(ips) == 2 and any(ip.is_unspecified for ip in ips):
        return ["0.0.0.0 and :: stand alone: they say which family to look for"]
    return []


def _label_mistakes(key: str, value: str) -> list[str]:
    mistakes: list[str] = []
    namespace, slash, name = key.rpartition("/")
    if not _NAME.fullmatch(name) or (slash and not (_DNS_SUBDOMAIN.fullmatch(namespace) and len(namespace) <= 253)):
        mistakes.append("the key must be [prefix/]name, name of at most 63 letters, digits, - _ or .")
    if value and not _NAME.fullmatch(value):
        mistakes.append("the value must be at most 63 letters, digits, - _ or ., with a letter or digit at both ends")
    is_reserved = _is_under(namespace, ("kubernetes.io", "k8s.io")) and not _is_under(namespace, _LABEL_NAMESPACES)
    if is_reserved and key not in _LABELS:
        allowed = ", ".join([*(f"{namespace}/*" for namespace in _LABEL_NAMESPACES), *_LABELS])
        mistakes.append(f"a node may not give itself this label; under kubernetes.io and k8s.io it may use {allowed}")
    return mistakes


def _is_under(namespace: str, domains: tuple[str, ...]) -> bool:
    return any(namespace == domain or namespace.endswith(f".{domain}") for domain in domains)
