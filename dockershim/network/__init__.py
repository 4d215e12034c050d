"""Pod networks: what connects a sandbox to the world, and what tells whether that is possible now.

Owns the seam between the sandbox RPCs and a network (`PodNetwork`), whichever network the node has: CNI plugins
(`cni`) or a bridge of Docker's (`bridge`). Must not know Docker's client or the store: what it needs of Docker comes
in as callables. Upstream counterpart: cri-dockerd's network/ package. Deliberate differences: the result of a set-up
is handed back and kept by the caller, so that the status of a sandbox needs no process in its namespace, and tearing
down needs no configuration.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cri_proto import runtime_v1 as cri


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """One sandbox as its network sees it; the same to set up and to tear down (`netns_path` may be gone by then)."""

    sandbox_id: str
    name: str
    namespace: str
    uid: str
    netns_path: str
    port_mappings: tuple[cri.PortMapping, ...]
    annotations: Mapping[str, str]
    dns: cri.DNSConfig | None
    cgroup_parent: str = ""


@dataclass(frozen=True, slots=True)
class NetworkResult:
    """The addresses of a pod, the primary first, and what tearing down will need (JSON-able, kept by the caller)."""

    ips: tuple[str, ...]
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NetworkCondition:
    """Whether pods can be connected now, as CRI's NetworkReady condition says it."""

    ready: bool
    reason: str
    message: str


class NetworkFailed(Exception):
    """A sandbox could not be connected or disconnected; the text names the plugin, the verb and what it said."""


class PodNetwork(Protocol):
    """A way to connect pods. `start` comes first and `close` last; sandboxes are set up and torn down concurrently."""

    docker_network_mode: str
    """What Docker gets as NetworkMode of a sandbox: empty for CNI, the name of the Docker network in bridge mode."""

    publishes_ports: bool
    """True: Docker publishes the host ports (PortBindings on the sandbox). False: the CNI plugin portmap does."""

    async def start(self) -> None:
        """Watch the configuration, make the bridge network. A missing or broken configuration is no error here."""

    def check_annotations(self, annotations: Mapping[str, str]) -> None:
        """NetworkFailed where a pod's annotations ask for what `set_up` would refuse; asked before anything is made."""

    async def set_up(self, request: NetworkRequest) -> NetworkResult:
        """Connect a running sandbox. A failure leaves nothing behind and raises NetworkFailed."""
        ...

    async def tear_down(self, request: NetworkRequest, raw: Mapping[str, Any]) -> None:
        """Disconnect it. Idempotent; works without a configuration and when the network namespace is gone."""

    async def check(self, request: NetworkRequest, raw: Mapping[str, Any]) -> str:
        """What is wrong with a sandbox's attachment now; nothing where all is well or nobody can tell."""
        ...

    async def set_pod_cidr(self, text: str) -> None:
        """The node's ranges for pods, comma-separated (UpdateRuntimeConfig). ValueError: malformed."""

    async def run(self) -> None:
        """Look after the network until cancelled; may return when there is nothing to look after."""

    async def retain(self, sandbox_ids: Collection[str]) -> None:
        """Give back what other sandboxes than these hold: at the start, for those that went while nobody looked."""

    def condition(self) -> NetworkCondition:
        """Whether `set_up` can work now."""
        ...

    async def close(self) -> None:
        """Stop watching; what is connected stays connected."""
