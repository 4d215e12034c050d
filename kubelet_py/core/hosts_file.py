"""The content of a pod's /etc/hosts.

Upstream counterpart: pkg/kubelet/kubelet_pods.go (managedHostsFileContent, nodeHostsFileContent).
"""

from collections.abc import Sequence
from typing import Final

from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.core.hostname import PodHostname
from kubelet_py.core.pod_resources import AnyContainer

HOSTS_PATH: Final = "/etc/hosts"
HOSTS_FILE_MODE: Final = 0o644

_HEADER: Final = "# Kubernetes-managed hosts file.\n"
_HOST_NETWORK_HEADER: Final = "# Kubernetes-managed hosts file (host network).\n"
_LOCAL_NAMES: Final = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "fe00::0\tip6-mcastprefix\n"
    "fe00::1\tip6-allnodes\n"
    "fe00::2\tip6-allrouters\n"
)


def needs_hosts_mount(pod: core_v1.Pod, container: AnyContainer, pod_ips: Sequence[str]) -> bool:
    """The container gets our file: there is an address to write and no volume covers the place."""
    if not pod_ips and not podlib.is_host_network(pod):
        return False
    return all(mount.mountPath != HOSTS_PATH for mount in container.volumeMounts or ())


def compute_hosts_file(pod: core_v1.Pod, pod_ips: Sequence[str], name: PodHostname) -> str:
    """The file of a pod with a network of its own."""
    own_name = f"{name.hostname}.{name.domain}\t{name.hostname}" if name.domain else name.hostname
    own_lines = "".join(f"{ip}\t{own_name}\n" for ip in pod_ips)
    return _HEADER + _LOCAL_NAMES + own_lines + _alias_lines(pod)


def compute_host_network_hosts_file(pod: core_v1.Pod, node_hosts_file: str) -> str:
    """The node's file, with the pod's aliases behind."""
    return _HOST_NETWORK_HEADER + node_hosts_file + _alias_lines(pod)


def _alias_lines(pod: core_v1.Pod) -> str:
    aliases = podlib.spec_of(pod).hostAliases or ()
    if not aliases:
        return ""
    lines = "".join("\t".join((alias.ip, *(alias.hostnames or ()))) + "\n" for alias in aliases)
    return f"\n# Entries added by HostAliases.\n{lines}"
