"""The files in /etc that Docker gives containers on its own networks, for pods whose network Docker knows nothing of.

Pure: what they hold and how a container gets them. A sandbox that Docker is told to leave without a network starts
without the process that hands its namespace to Docker, a third of all that a start costs; Docker then makes no hosts
and no resolv.conf either. Upstream counterpart: what containerd keeps in each sandbox's directory.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from cri_proto import runtime_v1 as cri

DIRECTORY = "etc"
HOSTS, RESOLV_CONF = "hosts", "resolv.conf"
NAMES = (HOSTS, RESOLV_CONF)
_ETC = "/etc"
_LOCAL = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def render_hosts(hostname: str, ips: Iterable[str]) -> str:
    """The names of this machine, then the pod's own at each of its addresses."""
    return _LOCAL + "".join(f"{ip}\t{hostname}\n" for ip in ips)


def render_resolv_conf(dns: cri.DNSConfig) -> str:
    """The file for a DNS configuration."""
    lines = [f"nameserver {server}" for server in dns.servers]
    if dns.searches:
        lines.append("search " + " ".join(dns.searches))
    if dns.options:
        lines.append("options " + " ".join(dns.options))
    return "".join(line + "\n" for line in lines)


def mounts(directory: str, asked_for: Iterable[cri.Mount], *, readonly: bool) -> list[cri.Mount]:
    """The mounts of the files in a sandbox's directory, without those that the container brings itself."""
    taken = {posixpath.normpath(mount.container_path) for mount in asked_for}
    return [
        cri.Mount(
            container_path=posixpath.join(_ETC, name),
            host_path=posixpath.join(directory, name),
            readonly=readonly,
            selinux_relabel=True,
        )
        for name in NAMES
        if posixpath.join(_ETC, name) not in taken
    ]


def without_own(found: Iterable[cri.Mount], sandbox_id: str) -> Iterator[cri.Mount]:
    """A container's mounts without these files: nobody asked for them, so nobody shall see them in its status."""
    own = {posixpath.join(_ETC, name): posixpath.join(DIRECTORY, sandbox_id, name) for name in NAMES}
    for mount in found:
        end = own.get(mount.container_path)
        if end is None or not mount.host_path.endswith(f"/{end}"):
            yield mount
