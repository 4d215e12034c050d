"""The resolver configuration of a pod, by its DNS policy, within what resolvers can bear.

Reading resolv.conf is the shell's; its text comes in here. What the operator or the pod's owner must know comes out
as warnings, which the shell turns into events.

Upstream counterpart: pkg/kubelet/network/dns/dns.go. Difference: options keep their order (there it is that of a map).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib

MAX_NAMESERVERS: Final = 3
MAX_SEARCHES: Final = 32
MAX_SEARCH_CHARACTERS: Final = 2048
MAX_SEARCH_LENGTH: Final = 253
RESOLV_CONF_MAX_BYTES: Final = 10 * 2**20

_CLUSTER_OPTIONS: Final = ("ndots:5",)


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What a resolv.conf says."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeDns:
    """What the node knows about name resolution."""

    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = ""
    host: ResolvConf = ResolvConf()
    resolv_conf_path: str = "/etc/resolv.conf"
    """Empty: pods with the policy Default get the loopback address and no host settings."""
    loopbacks: tuple[str, ...] = ("127.0.0.1",)
    """One for each address family of the node."""


@dataclass(frozen=True, slots=True)
class DnsWarning:
    """Something was left out or is missing: an event for the pod, or for the node when `on_node`."""

    reason: str
    message: str
    on_node: bool = False


@dataclass(frozen=True, slots=True)
class PodDns:
    """The result, with what to warn about."""

    config: cri.DNSConfig
    warnings: tuple[DnsWarning, ...] = ()


def parse_resolv_conf(text: str) -> ResolvConf:
    """The last search line wins; options of one name too. Raises ValueError for a nameserver line without address."""
    nameservers: list[str] = []
    searches: list[str] = []
    options: dict[str, str] = {}
    for line in text.split("\n"):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        if fields[0] == "nameserver":
            if len(fields) < 2:
                raise ValueError("a nameserver line names no address")
            nameservers.append(fields[1])
        elif fields[0] == "search":
            searches = [domain.removesuffix(".") for domain in fields[1:] if domain != "."]
        elif fields[0] == "options":
            options.update((option.split(":", 1)[0], option) for option in fields[1:])
    return ResolvConf(tuple(nameservers), tuple(searches), tuple(options.values()))


def compute_pod_dns(pod: core_v1.Pod, node: NodeDns) -> PodDns:
    """The sandbox's DNS configuration."""
    warnings: list[DnsWarning] = []
    base = _base(pod, node, warnings)
    own = podlib.spec_of(pod).dnsConfig
    if own is not None:
        base = ResolvConf(
            nameservers=_distinct((*base.nameservers, *(own.nameservers or ()))),
            searches=_distinct((*base.searches, *(own.searches or ()))),
            options=_merged_options(base.options, own.options or ()),
        )
    config = cri.DNSConfig(
        servers=_fitted_nameservers(base.nameservers, warnings),
        searches=_fitted_searches(base.searches, warnings),
        options=base.options,
    )
    return PodDns(config, tuple(warnings))


def check_resolv_conf_limits(node: NodeDns) -> DnsWarning | None:
    """What in the node's file will be cut for pods: an event for the node."""
    searches = node.host.searches
    allowed = MAX_SEARCHES - (3 if node.cluster_domain else 0)
    path = node.resolv_conf_path
    if len(searches) > allowed:
        message = f"Resolv.conf file '{path}' contains search line consisting of more than {allowed} domains!"
    elif any(len(search) > MAX_SEARCH_LENGTH for search in searches):
        message = (
            f'Resolv.conf file "{path}" contains a search path which length is more than allowed '
            f"{MAX_SEARCH_LENGTH} chars!"
        )
    elif len(" ".join(searches)) > MAX_SEARCH_CHARACTERS:
        message = (
            f"Resolv.conf file '{path}' contains search line which length is more than allowed "
            f"{MAX_SEARCH_CHARACTERS} chars!"
        )
    else:
        return None
    return DnsWarning("CheckLimitsForResolvConf", message, on_node=True)


def _base(pod: core_v1.Pod, node: NodeDns, warnings: list[DnsWarning]) -> ResolvConf:
    policy = podlib.spec_of(pod).dnsPolicy
    if policy == "None":
        return ResolvConf()
    if policy == "Default" or (policy == "ClusterFirst" and podlib.is_host_network(pod)):
        return _host_settings(node)
    if node.cluster_dns:
        searches = node.host.searches
        if domain := node.cluster_domain:
            namespace = podlib.metadata_of(pod).namespace
            searches = _distinct((f"{namespace}.svc.{domain}", f"svc.{domain}", domain, *searches))
        return ResolvConf(node.cluster_dns, searches, _CLUSTER_OPTIONS)
    missing = (
        'kubelet does not have ClusterDNS IP configured and cannot create Pod using "ClusterFirst" policy. '
        'Falling back to "Default" policy.'
    )
    metadata = podlib.metadata_of(pod)
    described = f"{metadata.name}_{metadata.namespace}({metadata.uid})"
    warnings.append(DnsWarning("MissingClusterDNS", missing, on_node=True))
    warnings.append(DnsWarning("MissingClusterDNS", f'pod: "{described}". {missing}'))
    return _host_settings(node)


def _host_settings(node: NodeDns) -> ResolvConf:
    if node.resolv_conf_path:
        return node.host
    # Without a host file the runtime would fill in its own: name the loopback and the root domain instead.
    return ResolvConf(node.loopbacks, (".",), ())


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _merged_options(base: Sequence[str], own: Iterable[core_v1.PodDNSConfigOption]) -> tuple[str, ...]:
    merged = {name: value for name, _, value in (option.partition(":") for option in base)}
    merged.update((option.name or "", option.value or "") for option in own)
    return tuple(f"{name}:{value}" if value else name for name, value in merged.items())


def _fitted_nameservers(nameservers: Sequence[str], warnings: list[DnsWarning]) -> Sequence[str]:
    if len(nameservers) <= MAX_NAMESERVERS:
        return nameservers
    kept = nameservers[:MAX_NAMESERVERS]
    warnings.append(
        DnsWarning(
            "DNSConfigForming",
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "
            + " ".join(kept),
        )
    )
    return kept


def _fitted_searches(searches: Sequence[str], warnings: list[DnsWarning]) -> Sequence[str]:
    kept = [search for search in searches[:MAX_SEARCHES] if len(search) <= MAX_SEARCH_LENGTH]
    while len(" ".join(kept)) > MAX_SEARCH_CHARACTERS:
        kept.pop()
    if len(kept) < len(searches):
        warnings.append(
            DnsWarning(
                "DNSConfigForming",
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "
                + " ".join(kept),
            )
        )
    return kept
