"""What plugins are told about a pod, and which addresses a result gives it."""

from __future__ import annotations

from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.network import NetworkFailed, NetworkRequest
from dockershim.network.pod_settings import bandwidth, cni_args, pod_cidrs, pod_ips, readable_bandwidth, runtime_config

BURST = 2**31 - 1


def request(**fields: Any) -> NetworkRequest:
    """A pod without wishes, and with some."""
    plain: dict[str, Any] = {
        "sandbox_id": "s1",
        "name": "web",
        "namespace": "shop",
        "uid": "u1",
        "netns_path": "/proc/1/ns/net",
        "port_mappings": (),
        "annotations": {},
        "dns": None,
    }
    return NetworkRequest(**{**plain, **fields})


def test_the_arguments_name_the_pod() -> None:
    assert cni_args(request()) == (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=s1;K8S_POD_UID=u1"
    )


def test_a_pod_without_wishes_has_its_annotations_only() -> None:
    assert runtime_config(request(annotations={"a": "b"}), (), {}) == {"io.kubernetes.cri.pod-annotations": {"a": "b"}}


def test_every_wish_has_its_capability() -> None:
    ports = (
        cri.PortMapping(protocol=cri.UDP, container_port=53, host_port=5353, host_ip="127.0.0.1"),
        cri.PortMapping(protocol=cri.TCP, container_port=80, host_port=0),
        cri.PortMapping(protocol=cri.SCTP, container_port=7, host_port=7),
    )
    dns = cri.DNSConfig(servers=["10.0.0.10"], searches=["svc"], options=["ndots:5"])
    wishes = request(port_mappings=ports, dns=dns, cgroup_parent="/kubepods/pod1")
    assert runtime_config(wishes, ("10.1.0.0/24", "fd00::/64"), {"egressRate": 1000}) == {
        "io.kubernetes.cri.pod-annotations": {},
        "portMappings": [
            {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"},
            {"hostPort": 7, "containerPort": 7, "protocol": "sctp"},
        ],
        "bandwidth": {"egressRate": 1000},
        "ipRanges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]],
        "dns": {"servers": ["10.0.0.10"], "searches": ["svc"], "options": ["ndots:5"]},
        "cgroupPath": "/kubepods/pod1",
    }


@pytest.mark.parametrize(
    ("text", "bits"),
    [("1k", 1000), ("10M", 10**7), ("1.5M", 1_500_000), ("1Mi", 1 << 20), ("2e6", 2 * 10**6), ("1500.2", 1501)],
)
def test_bandwidth_is_a_kubernetes_quantity_in_bits_per_second(text: str, bits: int) -> None:
    limits = bandwidth({"kubernetes.io/ingress-bandwidth": text, "kubernetes.io/egress-bandwidth": "1G"})
    assert limits == {"ingressRate": bits, "ingressBurst": BURST, "egressRate": 10**9, "egressBurst": BURST}


@pytest.mark.parametrize("text", ["", "fast", "10MB", "1", "999", "2P", "-1M", "1e99"])
def test_a_bandwidth_that_is_none_is_refused_by_the_name_of_its_annotation(text: str) -> None:
    with pytest.raises(NetworkFailed, match=r"annotation kubernetes\.io/egress-bandwidth"):
        bandwidth({"kubernetes.io/egress-bandwidth": text})


def test_of_two_bandwidths_the_one_that_can_be_read_is_left() -> None:
    annotations = {"kubernetes.io/egress-bandwidth": "1G", "kubernetes.io/ingress-bandwidth": "fast", "other": "1G"}
    assert readable_bandwidth(annotations) == {"egressRate": 10**9, "egressBurst": BURST}


def test_pod_ranges_are_one_or_two() -> None:
    assert pod_cidrs("10.1.0.0/24, fd00::/64") == ("10.1.0.0/24", "fd00::/64")
    assert pod_cidrs("") == ()
    with pytest.raises(ValueError, match=r"10\.1\.0\.0/99"):
        pod_cidrs("10.1.0.0/99")


def test_addresses_are_those_of_the_pods_interface_ipv4_first_and_each_once() -> None:
    result = {
        "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/n"}, {"name": "net1", "sandbox": "/n"}],
        "ips": [
            {"address": "fd00::2/64", "interface": 1},
            {"address": "10.1.0.2/24", "interface": 1},
            {"address": "10.1.0.1/24", "interface": 0},
            {"address": "192.168.0.2/24", "interface": 2},
            {"address": "10.1.0.2/24"},
        ],
    }
    assert pod_ips(result, "eth0") == ("10.1.0.2", "fd00::2")


def test_old_results_are_understood() -> None:
    assert pod_ips({"ip4": {"ip": "10.0.0.2/24"}, "ip6": {"ip": "fd00::2/64"}}, "eth0") == ("10.0.0.2", "fd00::2")
    assert pod_ips({"ips": [{"version": "4", "address": "10.0.0.3/24"}]}, "eth0") == ("10.0.0.3",)
    assert pod_ips({}, "eth0") == ()
