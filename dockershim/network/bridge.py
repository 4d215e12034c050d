"""Pod networks without CNI: a bridge network of Docker's own, with host ports published by Docker.

Owns what that network looks like and when a pod counts as connected. Must not know Docker's client: making the network
and reading addresses are callables. Upstream counterpart: cri-dockerd's no-op plugin (Docker's default bridge).
Deliberate difference: a network of its own, so that what an operator does to `docker0` does not touch pods, and so that
Docker gives each pod an address in every family the network has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from dockershim.network import NetworkCondition, NetworkFailed, NetworkRequest, NetworkResult, PodNetwork
from dockershim.network.pod_settings import pod_cidrs

KIND = "bridge"
LABEL = "io.kubernetes.dockershim.network"

EnsureNetwork = Callable[[str, Mapping[str, Any]], Awaitable[None]]
"""Make a Docker network of this name unless it is there; the mapping is the body of Docker's networks/create."""
AddressesOf = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses that Docker gave a running sandbox, in its networks' order."""

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """The Docker network. Without subnets Docker chooses a free one; an IPv6 subnet makes it dual stack."""

    name: str = "dockershim"
    interface: str = "dockershim0"
    subnets: tuple[str, ...] = ()
    mtu: int = 0

    def create_body(self) -> dict[str, Any]:
        """The body of networks/create, without the name."""
        options = {"com.docker.network.bridge.name": self.interface}
        if self.mtu:
            options["com.docker.network.driver.mtu"] = str(self.mtu)
        body: dict[str, Any] = {
            "Driver": "bridge",
            "CheckDuplicate": True,
            "EnableIPv6": any(":" in subnet for subnet in self.subnets),
            "Options": options,
            "Labels": {LABEL: "pods"},
        }
        if self.subnets:
            body["IPAM"] = {"Driver": "default", "Config": [{"Subnet": subnet} for subnet in self.subnets]}
        return body


def check_ranges(name: str, found: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    """NetworkFailed when the Docker network that is there has not the ranges that it was to be made with."""
    wanted, there = (
        sorted(str(part.get("Subnet")) for part in (network.get("IPAM") or {}).get("Config") or ())
        for network in (body, found)
    )
    if wanted and wanted != there:
        raise NetworkFailed(
            f"has the ranges {', '.join(there)}, and --pod-cidr says {', '.join(wanted)}: drain the node and "
            f"run `docker network rm {name}`"
        )


class BridgeNetwork:
    """`PodNetwork` by Docker. `former` gives back what sandboxes hold that were connected by CNI before."""

    publishes_ports = True

    def __init__(
        self,
        settings: BridgeSettings,
        ensure_network: EnsureNetwork,
        addresses_of: AddressesOf,
        former: PodNetwork | None = None,
    ) -> None:
        self.docker_network_mode = settings.name
        self._settings = settings
        self._ensure_network = ensure_network
        self._addresses_of = addresses_of
        self._former = former
        self._making = asyncio.Lock()
        self._trouble = "the Docker network has not been made yet"

    async def start(self) -> None:
        """See PodNetwork. Call it again when Docker is back."""
        async with self._making:
            try:
                await self._ensure_network(self._settings.name, self._settings.create_body())
            except Exception as error:  # whatever Docker says, the node goes on and its condition tells
                self._trouble = f"Docker network {self._settings.name}: {error}"
                logger.warning("bridge_network_not_made", network=self._settings.name, error=str(error))
            else:
                self._trouble = ""

    async def close(self) -> None:
        """See PodNetwork."""

    def condition(self) -> NetworkCondition:
        """See PodNetwork."""
        if self._trouble:
            return NetworkCondition(False, "NetworkPluginNotReady", self._trouble)
        return NetworkCondition(True, "", "")

    def check_annotations(self, annotations: Mapping[str, str]) -> None:
        """See PodNetwork: none of them means anything to Docker."""

    async def set_up(self, request: NetworkRequest) -> NetworkResult:
        """See PodNetwork: Docker has connected the sandbox at its start."""
        ips = tuple(address for address in await self._addresses_of(request.sandbox_id) if address)
        if not ips:
            raise NetworkFailed(f"Docker gave sandbox {request.sandbox_id} no address in network {self._settings.name}")
        return NetworkResult(ips, {"kind": KIND, "network": self._settings.name, "ips": list(ips)})

    async def tear_down(self, request: NetworkRequest, raw: Mapping[str, Any]) -> None:
        """See PodNetwork: Docker disconnects the sandbox when it stops."""
        if self._former is not None and raw.get("kind") != KIND:
            await self._former.tear_down(request, raw)

    async def check(self, request: NetworkRequest, raw: Mapping[str, Any]) -> str:
        """See PodNetwork: Docker does not tell."""
        return ""

    async def set_pod_cidr(self, text: str) -> None:
        """See PodNetwork. A Docker network cannot change its ranges; what the operator gave stays."""
        cidrs = pod_cidrs(text)
        if cidrs != self._settings.subnets:
            logger.warning("pod_cidrs_not_used", told=cidrs, network=self._settings.name, hint="use --pod-cidr or CNI")

    async def run(self) -> None:
        """See PodNetwork: Docker looks after its own."""

    async def retain(self, sandbox_ids: Collection[str]) -> None:
        """See PodNetwork: Docker looks after its own; what CNI gave before is given back by CNI."""
        if self._former is not None:
            await self._former.retain(sandbox_ids)
