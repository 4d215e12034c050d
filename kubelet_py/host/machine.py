"""What the host is and which addresses it has: reads /proc, /sys, /etc and the interfaces.

Runs in a thread where it may touch DNS (`node_addresses`). Upstream counterparts: cAdvisor's machine info,
pkg/kubelet/nodestatus NodeAddress, apimachinery net.ChooseHostInterface. Deliberate difference: without a default
route the first global address of any interface is taken instead of failing the registration.
"""

import ipaddress
import os
import platform
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from kubelet_py.api import core_v1
from kubelet_py.core.node_rules import Hugepages, MachineInfo
from kubelet_py.errors import ConfigError, NodeAddressUnknown

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_GO_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


@dataclass(frozen=True, slots=True)
class AddressWish:
    """What was asked for: `ips` from --node-ip (one per family; 0.0.0.0 or :: only says the family)."""

    node_name: str
    hostname: str
    ips: tuple[IpAddress, ...] = ()
    external_cloud: bool = False


def read_machine_info(storage_path: Path, root: Path = Path("/")) -> MachineInfo:
    """The machine; `storage_path` is where ephemeral storage is counted, `root` another root for tests."""
    memory = _meminfo(root / "proc/meminfo")
    system = os.uname()
    return MachineInfo(
        machine_id=_first_line(root / "etc/machine-id", root / "var/lib/dbus/machine-id"),
        system_uuid=_first_line(
            root / "sys/class/dmi/id/product_uuid",
            root / "proc/device-tree/system-id",
            root / "proc/device-tree/vm,uuid",
            root / "etc/machine-id",
        ),
        boot_id=_first_line(root / "proc/sys/kernel/random/boot_id"),
        kernel_version=system.release,
        os_image=_os_image(root),
        cores=os.cpu_count() or 1,
        memory_bytes=memory.get("MemTotal", 0),
        architecture=_GO_ARCHITECTURES.get(system.machine, system.machine),
        operating_system=platform.system().lower(),
        swap_bytes=memory.get("SwapTotal", 0),
        hugepages=tuple(_hugepages(root / "sys/kernel/mm/hugepages")),
        ephemeral_storage_bytes=_filesystem_bytes(storage_path),
        max_pids=_max_pids(root / "proc/sys/kernel"),
    )


def process_start() -> int:
    """When this process began, in whole seconds of Unix time."""
    return int(psutil.Process().create_time())


def _first_line(*paths: Path) -> str:
    for path in paths:
        try:
            if text := path.read_text(errors="replace").strip("\0\n "):
                return text.splitlines()[0]
        except OSError:
            continue
    return ""


def _meminfo(path: Path) -> dict[str, int]:
    sizes = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words:
            sizes[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return sizes


def _os_image(root: Path) -> str:
    for path in (root / "etc/os-release", root / "usr/lib/os-release"):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith("PRETTY_NAME="):
                return line.partition("=")[2].strip().strip("\"'")
    return "Linux"


def _hugepages(directory: Path) -> Iterable[Hugepages]:
    for size in sorted(directory.glob("hugepages-*kB")):
        count = _first_line(size / "nr_hugepages")
        if count.isdigit():
            yield Hugepages(int(size.name.removeprefix("hugepages-").removesuffix("kB")) * 1024, int(count))


def _max_pids(directory: Path) -> int:
    limits = [int(text) for name in ("pid_max", "threads-max") if (text := _first_line(directory / name)).isdigit()]
    return min(limits, default=0)


def _filesystem_bytes(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    state = os.statvfs(path)
    return state.f_blocks * state.f_frsize


def node_addresses(wish: AddressWish, known: Sequence[core_v1.NodeAddress] = ()) -> tuple[core_v1.NodeAddress, ...]:
    """The addresses of the node object: InternalIP, one or two, and Hostname. May ask DNS: call it in a thread.

    `known` are those of before. Raises NodeAddressUnknown.
    """
    named = core_v1.NodeAddress(type="Hostname", address=wish.hostname)
    if wish.external_cloud and not wish.ips:
        return (named,)
    addresses = [str(address) for address in node_ips(wish, [each.address for each in known])]
    return (*(core_v1.NodeAddress(type="InternalIP", address=address) for address in addresses), named)


def node_ips(wish: AddressWish, known: Sequence[str] = ()) -> tuple[IpAddress, ...]:
    """The IPs, primary family first. Raises NodeAddressUnknown when there is none, or a wished one is missing."""
    fixed = tuple(address for address in wish.ips if not address.is_unspecified)
    if fixed:
        for address in fixed:
            check_node_ip(address, _interface_addresses())
        return fixed
    family = wish.ips[0].version if wish.ips else 0
    return (_find_address(wish, family, known),)


def parse_node_ip(text: str) -> IpAddress:
    """One value of --node-ip. Raises ConfigError."""
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise ConfigError(f"--node-ip: {text!r} is not an IP address; right would be one of this machine's") from error


def check_node_ip(address: IpAddress, on_interfaces: Sequence[IpAddress]) -> None:
    """Raises NodeAddressUnknown unless the address can stand for the node."""
    kinds = {
        "a loopback address": address.is_loopback,
        "a multicast address": address.is_multicast,
        "a link-local address": address.is_link_local,
        "the unspecified address": address.is_unspecified,
    }
    for kind, holds in kinds.items():
        if holds:
            right = "right would be an address that other nodes reach"
            raise NodeAddressUnknown(f"--node-ip: {address} is {kind}; {right}")
    if address not in on_interfaces:
        there = ", ".join(str(each) for each in on_interfaces if _can_be_node_ip(each))
        raise NodeAddressUnknown(
            f"--node-ip: {address} is on no interface of this machine; there are: {there or 'none'}"
        )


def _can_be_node_ip(address: IpAddress) -> bool:
    return not (address.is_loopback or address.is_multicast or address.is_link_local or address.is_unspecified)


def _find_address(wish: AddressWish, family: int, known: Sequence[str]) -> IpAddress:
    """What the name says, else what the default route goes out from. Without one any address will do, unless there was
    one before: that of a bridge is not the node's because the link is down."""
    try:
        literal = ipaddress.ip_address(wish.hostname)
        if _can_be_node_ip(literal):
            return literal
    except ValueError:
        pass
    on_interfaces = _interface_addresses()
    resolved = [a for a in _resolve(wish.node_name) if _can_be_node_ip(a) and a in on_interfaces]
    for address in sorted(resolved, key=lambda each: each.version != (family or 4)):
        return address
    routed = [a for name in _default_route_interfaces() for a in _interface_addresses(name)]
    others = [a for a in on_interfaces if not known or str(a) in known]
    for candidates in (routed, others):
        usable = [a for a in candidates if _can_be_node_ip(a)]
        for address in sorted(usable, key=lambda each: each.version != (family or 4)):
            return address
    raise NodeAddressUnknown("no address for the node: no interface has a global one; name one with --node-ip")


def _resolve(name: str) -> list[IpAddress]:
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_address(answer[4][0]) for answer in answers]


def _interface_addresses(only: str | None = None) -> list[IpAddress]:
    found: list[IpAddress] = []
    try:
        interfaces = psutil.net_if_addrs()
    except OSError as error:
        raise NodeAddressUnknown(f"the interfaces of this machine cannot be listed: {error}") from error
    for name, addresses in interfaces.items():
        if only is None or name == only:
            found += [
                ipaddress.ip_address(each.address.partition("%")[0])
                for each in addresses
                if each.family in (socket.AF_INET, socket.AF_INET6)
            ]
    return found


def _default_route_interfaces() -> list[str]:
    names: list[str] = []
    for line in _lines("/proc/net/route")[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000":
            names.append(fields[0])
    for line in _lines("/proc/net/ipv6_route"):
        fields = line.split()
        if len(fields) == 10 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
            names.append(fields[9])
    return list(dict.fromkeys(names))


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
