"""Which pod network this node has: CNI when a configuration is there or when asked for, else Docker's bridge.

Owns the choice, made once, when dockershim starts: sandboxes are created for one of them. Upstream counterpart:
cri-dockerd's --network-plugin, whose default is CNI with or without a configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import structlog

from dockershim.network import cni_config
from dockershim.network.bridge import AddressesOf, BridgeNetwork, BridgeSettings, EnsureNetwork
from dockershim.network.cni import CniNetwork

AUTO = "auto"
CNI = "cni"
BRIDGE = "bridge"
PLUGINS = (AUTO, CNI, BRIDGE)

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """What the operator says about pod networks. `plugin` is one of PLUGINS."""

    state_directory: Path
    pin_directory: Path
    plugin: str = AUTO
    configuration_directory: Path = Path("/etc/cni/net.d")
    plugin_directories: tuple[Path, ...] = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
    bridge: BridgeSettings = field(default_factory=BridgeSettings)
    pod_cidrs: tuple[str, ...] = ()


def select_network(
    settings: NetworkSettings, ensure_network: EnsureNetwork, addresses_of: AddressesOf
) -> CniNetwork | BridgeNetwork:
    """The node's pod network, not started yet. Reads the configuration directory."""
    if settings.plugin not in PLUGINS:
        raise ValueError(f"network plugin {settings.plugin!r}: it must be one of {', '.join(PLUGINS)}")
    cni = CniNetwork(
        settings.configuration_directory,
        settings.plugin_directories,
        settings.state_directory,
        settings.pin_directory,
        pod_cidrs=settings.pod_cidrs,
    )
    found = cni_config.load_directory(settings.configuration_directory)
    if settings.plugin == CNI or (settings.plugin == AUTO and found.network is not None):
        return cni
    if settings.plugin == AUTO and found.broken:
        logger.warning("cni_configuration_broken", files=found.broken, hint="pods get the Docker bridge instead")
    return BridgeNetwork(settings.bridge, ensure_network, addresses_of, former=cni)
