"""What CNI plugins are told about a pod, and what their result says about it: pure translation.

Owns CNI_ARGS, the capability arguments (portMappings, bandwidth, ipRanges, dns, pod annotations, cgroupPath) and the
order of the pod's addresses. Upstream counterpart: cri-dockerd's network/cni plus containerd's sandbox_run for the
arguments that cri-dockerd lacks. Addresses: IPv4 before IPv6, else as in the result; the kubelet puts them in its own
order of families.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim.network import NetworkFailed, NetworkRequest

INGRESS_BANDWIDTH = "kubernetes.io/ingress-bandwidth"
EGRESS_BANDWIDTH = "kubernetes.io/egress-bandwidth"
POD_ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
_BANDWIDTHS = {INGRESS_BANDWIDTH: "ingress", EGRESS_BANDWIDTH: "egress"}
_BURST_BITS = (1 << 31) - 1
_MIN_BITS_PER_SECOND = 1_000
_MAX_BITS_PER_SECOND = 10**15
_QUANTITY = re.compile(r"\+?(\d+(?:\.\d*)?|\.\d+)(?:(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)|[eE]([+-]?\d{1,2}))?")
_DECIMAL_EXPONENTS = {"m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_EXPONENTS = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_PROTOCOLS = {cri.TCP: "tcp", cri.UDP: "udp", cri.SCTP: "sctp"}


def cni_args(request: NetworkRequest) -> str:
    """CNI_ARGS."""
    return ";".join(
        [
            "IgnoreUnknown=1",
            f"K8S_POD_NAMESPACE={request.namespace}",
            f"K8S_POD_NAME={request.name}",
            f"K8S_POD_INFRA_CONTAINER_ID={request.sandbox_id}",
            f"K8S_POD_UID={request.uid}",
        ]
    )


def runtime_config(request: NetworkRequest, pod_cidrs: Sequence[str], limits: Mapping[str, int]) -> dict[str, Any]:
    """All capability arguments this pod has a value for, with its bandwidth; each plugin gets those it declares."""
    config: dict[str, Any] = {POD_ANNOTATIONS: dict(request.annotations)}
    ports = [port_mapping(each) for each in request.port_mappings if each.host_port > 0]
    if ports:
        config["portMappings"] = ports
    if limits:
        config["bandwidth"] = dict(limits)
    if pod_cidrs:
        config["ipRanges"] = [[{"subnet": cidr}] for cidr in pod_cidrs]
    dns = request.dns
    if dns is not None and (dns.servers or dns.searches or dns.options):
        config["dns"] = {"servers": [*dns.servers], "searches": [*dns.searches], "options": [*dns.options]}
    if request.cgroup_parent:
        config["cgroupPath"] = request.cgroup_parent
    return config


def port_mapping(mapping: cri.PortMapping) -> dict[str, Any]:
    """One host port as the portmap plugin reads it."""
    content: dict[str, Any] = {
        "hostPort": mapping.host_port,
        "containerPort": mapping.container_port,
        "protocol": _PROTOCOLS.get(mapping.protocol, "tcp"),
    }
    if mapping.host_ip:
        content["hostIP"] = mapping.host_ip
    return content


def bandwidth(annotations: Mapping[str, str]) -> dict[str, int]:
    """Limits in bits per second, from the pod's annotations. NetworkFailed for one that is none."""
    limits: dict[str, int] = {}
    for annotation, direction in _BANDWIDTHS.items():
        text = annotations.get(annotation)
        if text is not None:
            limits[f"{direction}Rate"] = _bits_per_second(annotation, text)
            limits[f"{direction}Burst"] = _BURST_BITS
    return limits


def readable_bandwidth(annotations: Mapping[str, str]) -> dict[str, int]:
    """The same to take down what nobody knows of any more: one that is none was never set, and must not hold a pod."""
    limits: dict[str, int] = {}
    for annotation in _BANDWIDTHS.keys() & annotations.keys():
        with contextlib.suppress(NetworkFailed):
            limits |= bandwidth({annotation: annotations[annotation]})
    return limits


def _bits_per_second(annotation: str, text: str) -> int:
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise NetworkFailed(f"annotation {annotation} is {text!r}: it must be a quantity such as 10M")
    number, suffix, exponent = Decimal(found[1]), found[2], found[3]
    if suffix in _BINARY_EXPONENTS:
        number *= 1 << _BINARY_EXPONENTS[suffix]
    else:
        number = number.scaleb(_DECIMAL_EXPONENTS.get(suffix or "", int(exponent or 0)))
    if not _MIN_BITS_PER_SECOND <= number <= _MAX_BITS_PER_SECOND:
        raise NetworkFailed(f"annotation {annotation} is {text!r}: it must be between 1k and 1P")
    return int(number.to_integral_value(ROUND_CEILING))


def pod_cidrs(text: str) -> tuple[str, ...]:
    """The ranges of UpdateRuntimeConfig's pod_cidr, one or two, comma-separated. ValueError for what is none."""
    return tuple(str(ipaddress.ip_network(part.strip())) for part in text.split(",") if part.strip())


def pod_ips(result: Mapping[str, Any], interface: str) -> tuple[str, ...]:
    """The pod's addresses in a result: those of its interface where the result says so, IPv4 first."""
    interfaces = result.get("interfaces") or []
    found: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for entry in result.get("ips") or []:
        index = entry.get("interface")
        if isinstance(index, int) and 0 <= index < len(interfaces):
            owner = interfaces[index]
            if not owner.get("sandbox") or owner.get("name") != interface:
                continue
        found.append(ipaddress.ip_interface(entry["address"]).ip)
    before_030 = [result[key]["ip"] for key in ("ip4", "ip6") if key in result]
    found += [ipaddress.ip_interface(address).ip for address in before_030]
    ordered = sorted(found, key=lambda address: address.version)
    return tuple(dict.fromkeys(map(str, ordered)))
