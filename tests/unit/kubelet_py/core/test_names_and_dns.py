"""Hostnames, hosts files, resolver settings and name rules are the Go kubelet's."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import pod as podlib
from kubelet_py.core import dns, hosts_file, name_rules
from kubelet_py.core.dns import NodeDns, ResolvConf
from kubelet_py.core.hostname import PodHostname, compute_hostname, compute_kernel_hostname
from kubelet_py.errors import SyncError
from tests.unit.kubelet_py.core.pod_builder import UID, a_container, a_pod

CLUSTER = NodeDns(
    cluster_dns=("10.96.0.10",),
    cluster_domain="cluster.local",
    host=ResolvConf(("192.0.2.1",), ("example.com",), ("timeout:1",)),
)


def test_hostname_is_the_pods_name_unless_said_otherwise() -> None:
    """spec.hostname wins over the name, hostnameOverride over everything."""
    assert compute_hostname(a_pod(), "c.local") == PodHostname("web", "")
    assert compute_hostname(a_pod(hostname="h"), "c.local") == PodHostname("h", "")
    pod = a_pod(hostname="h", subdomain="sub", hostnameOverride="a.b.c")
    assert compute_hostname(pod, "c.local") == PodHostname("a.b.c", "")


def test_subdomain_makes_a_domain() -> None:
    """And setHostnameAsFQDN tells the kernel the whole name."""
    pod = a_pod(subdomain="sub")
    name = compute_hostname(pod, "c.local")
    assert name == PodHostname("web", "sub.shop.svc.c.local")
    assert compute_kernel_hostname(pod, name) == "web"
    assert compute_kernel_hostname(a_pod(subdomain="sub", setHostnameAsFQDN=True), name) == "web.sub.shop.svc.c.local"
    assert compute_kernel_hostname(a_pod(setHostnameAsFQDN=True), PodHostname("web", "")) == "web"


def test_long_names_are_cut() -> None:
    """63 characters, no hyphen or dot at the end; nothing left is an error."""
    assert compute_hostname(a_pod(metadata={"name": "a" * 62 + "-bcd"}), "c") == PodHostname("a" * 62, "")
    assert compute_hostname(a_pod(metadata={"name": "X" * 70}), "c") == PodHostname("X" * 63, "")
    assert compute_hostname(a_pod(metadata={"name": "a" * 62 + "-"}), "c") == PodHostname("a" * 62 + "-", ""), "63 fit"
    with pytest.raises(SyncError, match=r'hostname for pod "-{70}" was invalid') as caught:
        compute_hostname(a_pod(metadata={"name": "-" * 70}), "c")
    assert caught.value.reason == "CreatePodSandboxError"
    pod = a_pod(hostnameOverride=f"{'a' * 63}.b")
    assert compute_hostname(pod, "c") == PodHostname("a" * 63, "")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"hostname": "A_"}, 'pod Hostname "A_" is not a valid DNS label: '),
        ({"subdomain": "a.b"}, 'pod Subdomain "a.b" is not a valid DNS label: '),
        ({"hostnameOverride": "a..b"}, 'pod HostnameOverride "a..b" is not a valid DNS subdomain: '),
    ],
)
def test_impossible_names_are_refused(spec: dict[str, Any], message: str) -> None:
    """With the Go kubelet's words."""
    with pytest.raises(SyncError) as caught:
        compute_hostname(a_pod(**spec), "c")
    assert caught.value.message.startswith(message)
    assert caught.value.reason == "CreatePodSandboxError"


def test_too_long_full_name_is_refused() -> None:
    """The kernel takes 64 characters."""
    pod = a_pod(subdomain="s" * 50, setHostnameAsFQDN=True)
    with pytest.raises(SyncError) as caught:
        compute_kernel_hostname(pod, compute_hostname(pod, "cluster.local"))
    assert caught.value.reason == "CreatePodSandboxError"
    assert caught.value.message == (
        f"failed to construct FQDN from pod hostname and cluster domain, FQDN web.{'s' * 50}.shop.svc.cluster.local"
        " is too long (64 characters is the max, 77 characters requested)"
    )
    pod = a_pod(subdomain="s" * 37, setHostnameAsFQDN=True)
    assert len(compute_kernel_hostname(pod, compute_hostname(pod, "cluster.local"))) == 64


def test_hosts_file_of_a_pod() -> None:
    """Local names, the pod's own, then its aliases."""
    aliases = [{"ip": "192.0.2.9", "hostnames": ["a", "b"]}]
    text = hosts_file.compute_hosts_file(
        a_pod(hostAliases=aliases), ("10.0.0.5", "fd00::5"), PodHostname("web", "sub.shop.svc.c")
    )
    assert text == (
        "# Kubernetes-managed hosts file.\n"
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::0\tip6-localnet\n"
        "fe00::0\tip6-mcastprefix\n"
        "fe00::1\tip6-allnodes\n"
        "fe00::2\tip6-allrouters\n"
        "10.0.0.5\tweb.sub.shop.svc.c\tweb\n"
        "fd00::5\tweb.sub.shop.svc.c\tweb\n"
        "\n# Entries added by HostAliases.\n"
        "192.0.2.9\ta\tb\n"
    )
    assert "10.0.0.5\tweb\n" in hosts_file.compute_hosts_file(a_pod(), ("10.0.0.5",), PodHostname("web", ""))


def test_hosts_file_on_the_host_network() -> None:
    """The node's file under our header."""
    text = hosts_file.compute_host_network_hosts_file(a_pod(), "127.0.0.1 localhost\n")
    assert text == "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n"


def test_hosts_file_is_mounted_unless_a_volume_is_there() -> None:
    """And when there is something to write in it."""
    pod = a_pod(a_container(volumeMounts=[{"name": "v", "mountPath": "/etc/hosts"}]), a_container("b"))
    covered, plain = podlib.containers_of(pod)
    assert not hosts_file.needs_hosts_mount(pod, covered, ("10.0.0.1",))
    assert hosts_file.needs_hosts_mount(pod, plain, ("10.0.0.1",))
    assert not hosts_file.needs_hosts_mount(pod, plain, ())
    assert hosts_file.needs_hosts_mount(a_pod(hostNetwork=True), plain, ())


def test_resolv_conf_is_read_as_resolvers_do() -> None:
    """Nameservers add up, the last search line holds, options are kept by name."""
    text = (
        "# comment\n; other\nnameserver 192.0.2.1 trailing\nnameserver 192.0.2.2\nsearch old\n"
        "search a.example. . b.example\noptions ndots:2 rotate\noptions ndots:3\n\n"
    )
    assert dns.parse_resolv_conf(text) == ResolvConf(
        ("192.0.2.1", "192.0.2.2"), ("a.example", "b.example"), ("ndots:3", "rotate")
    )
    with pytest.raises(ValueError, match=r"^a nameserver line names no address$"):
        dns.parse_resolv_conf("nameserver\n")
    assert dns.parse_resolv_conf("#nameserver 192.0.2.1\noptions a:b:c a:d:e\n") == ResolvConf((), (), ("a:d:e",))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"dnsPolicy": "ClusterFirst"},
            (
                ["10.96.0.10"],
                ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com"],
                ["ndots:5"],
            ),
        ),
        ({"dnsPolicy": "Default"}, (["192.0.2.1"], ["example.com"], ["timeout:1"])),
        ({"dnsPolicy": "ClusterFirst", "hostNetwork": True}, (["192.0.2.1"], ["example.com"], ["timeout:1"])),
        (
            {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.7"], "options": [{"name": "debug"}]}},
            (["192.0.2.7"], [], ["debug"]),
        ),
        (
            {
                "dnsPolicy": "Default",
                "dnsConfig": {
                    "nameservers": ["192.0.2.1", "192.0.2.3"],
                    "searches": ["example.com", "x.example"],
                    "options": [{"name": "timeout", "value": "9"}, {"name": "edns0"}],
                },
            },
            (["192.0.2.1", "192.0.2.3"], ["example.com", "x.example"], ["timeout:9", "edns0"]),
        ),
        (
            {"dnsPolicy": "None", "dnsConfig": {"options": [{"name": "odd", "value": "a:b"}]}},
            ([], [], ["odd:a:b"]),
        ),
    ],
)
def test_policies(spec: dict[str, Any], expected: tuple[list[str], list[str], list[str]]) -> None:
    """Each policy has its base; the pod's own settings are put on top, without repeating."""
    result = dns.compute_pod_dns(a_pod(**spec), CLUSTER)
    config = result.config
    assert (list(config.servers), list(config.searches), list(config.options)) == expected
    assert result.warnings == ()


def test_cluster_first_with_host_net() -> None:
    """Keeps the cluster's DNS on the host's network."""
    pod = a_pod(dnsPolicy="ClusterFirstWithHostNet", hostNetwork=True)
    assert list(dns.compute_pod_dns(pod, CLUSTER).config.servers) == ["10.96.0.10"]


def test_no_cluster_domain() -> None:
    """Then the host's searches stay as they are."""
    node = NodeDns(cluster_dns=("10.96.0.10",), host=ResolvConf((), ("example.com",), ()))
    assert list(dns.compute_pod_dns(a_pod(dnsPolicy="ClusterFirst"), node).config.searches) == ["example.com"]


def test_missing_cluster_dns_is_told_to_pod_and_node() -> None:
    """And the pod gets the host's settings."""
    result = dns.compute_pod_dns(a_pod(dnsPolicy="ClusterFirst"), NodeDns(host=CLUSTER.host))
    assert list(result.config.servers) == ["192.0.2.1"]
    message = (
        'kubelet does not have ClusterDNS IP configured and cannot create Pod using "ClusterFirst" policy. '
        'Falling back to "Default" policy.'
    )
    assert [(w.reason, w.message, w.on_node) for w in result.warnings] == [
        ("MissingClusterDNS", message, True),
        ("MissingClusterDNS", f'pod: "web_shop({UID})". {message}', False),
    ]


def test_no_resolv_conf() -> None:
    """resolvConf "" means the pod's own loopback."""
    config = dns.compute_pod_dns(a_pod(dnsPolicy="Default"), NodeDns(resolv_conf_path="")).config
    assert (list(config.servers), list(config.searches)) == (["127.0.0.1"], ["."])


def test_limits_are_kept_and_told() -> None:
    """Three nameservers, 32 searches of 253 characters, 2048 in all."""
    many = {"nameservers": [f"192.0.2.{i}" for i in range(5)], "searches": ["x" * 254, *(f"d{i}" for i in range(40))]}
    result = dns.compute_pod_dns(a_pod(dnsPolicy="None", dnsConfig=many), CLUSTER)
    assert len(result.config.servers) == 3
    assert list(result.config.searches) == [f"d{i}" for i in range(31)]
    assert [w.reason for w in result.warnings] == ["DNSConfigForming"] * 2
    assert result.warnings[0].message == (
        "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "
        "192.0.2.0 192.0.2.1 192.0.2.2"
    )
    assert result.warnings[1].message.startswith(
        "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: d0 d1"
    )
    long = {"nameservers": ["192.0.2.1"], "searches": [f"{i:0200}" for i in range(20)]}
    result = dns.compute_pod_dns(a_pod(dnsPolicy="None", dnsConfig=long), CLUSTER)
    assert len(result.config.searches) == 10


def test_the_last_that_fits_is_kept() -> None:
    """Three nameservers; a path of 253 characters; a line of 2048."""
    lines = ["a" * 253, *(f"{i:0199}" for i in range(8)), "b" * 194]
    assert len(" ".join(lines)) == 2048
    fitting = {"nameservers": [f"192.0.2.{i}" for i in range(3)], "searches": lines}
    result = dns.compute_pod_dns(a_pod(dnsPolicy="None", dnsConfig=fitting), CLUSTER)
    assert (len(result.config.servers), list(result.config.searches), result.warnings) == (3, lines, ())
    assert dns.check_resolv_conf_limits(NodeDns(host=ResolvConf((), tuple(lines)))) is None


@given(st.lists(st.text(alphabet="ab.", min_size=1, max_size=300), max_size=50))
def test_limits_always_hold(searches: list[str]) -> None:
    """Whatever the pod asks for, resolvers can bear what it gets, and it is told when something is missing."""
    config = {"nameservers": ["192.0.2.1"], "searches": searches}
    result = dns.compute_pod_dns(a_pod(dnsPolicy="None", dnsConfig=config), CLUSTER)
    kept = list(result.config.searches)
    assert len(kept) <= 32
    assert len(" ".join(kept)) <= 2048
    assert all(len(search) <= 253 for search in kept)
    assert bool(result.warnings) == (len(kept) < len(dict.fromkeys(searches)))


@pytest.mark.parametrize(
    ("searches", "domain", "message"),
    [
        (("a",) * 29, "c", None),
        (("a",) * 30, "c", "Resolv.conf file '/r' contains search line consisting of more than 29 domains!"),
        (("a",) * 32, "", None),
        (
            ("a" * 254,),
            "c",
            'Resolv.conf file "/r" contains a search path which length is more than allowed 253 chars!',
        ),
        (
            ("a" * 200,) * 11,
            "c",
            "Resolv.conf file '/r' contains search line which length is more than allowed 2048 chars!",
        ),
    ],
)
def test_the_nodes_file_is_checked(searches: tuple[str, ...], domain: str, message: str | None) -> None:
    """With room for the three domains that the cluster adds."""
    warning = dns.check_resolv_conf_limits(
        NodeDns(host=ResolvConf((), searches), cluster_domain=domain, resolv_conf_path="/r")
    )
    assert (warning.message if warning else None) == message
    assert warning is None or (warning.on_node and warning.reason == "CheckLimitsForResolvConf")


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (name_rules.check_dns_label, ["a", "a-1", "1a", "a" * 63], ["", "A", "-a", "a-", "a.b", "a" * 64, "a\n"]),
        (
            name_rules.check_dns_search,
            [".", "a.b-c.d", "example.com.", "_tcp.example.com", "a_b.c", "a" * 253, "a" * 253 + "."],
            ["", "..", "a..b", ".a", "A.b", "a_.b", "__a.b", "a b", "a\nnameserver 192.0.2.1", "a" * 254],
        ),
        (name_rules.check_dns_subdomain, ["a.b-c.d", "a" * 253], ["", "a..b", ".a", "A.b", "a" * 254]),
        (
            name_rules.check_qualified_name,
            ["a", "A_b.c", "example.com/A", "x" * 63],
            ["", "/a", "A.com/a", "a/", "a/b/c", "-a", "x" * 64],
        ),
        (name_rules.check_label_value, ["", "a", "A_b.c", "x" * 63], ["-a", "a b", "x" * 64]),
        (name_rules.check_env_name, ["A", "a.b-c d", "1"], ["", "a=b", "ä"]),
        (name_rules.check_config_key, ["a", "a.b_c-d", "..a", "x" * 253], ["", ".", "..", "a/b", "x" * 254]),
        (name_rules.check_port_number, [1, 65535], [0, 65536, -1]),
        (name_rules.check_port_name, ["http", "a-1"], ["80", "a--b", "-a", "a-", "x" * 16, "A"]),
        (name_rules.check_id, [0, 2**31 - 1], [-1, 2**31]),
        (name_rules.check_ip, ["192.0.2.1", "fd00::1"], ["", "1.2.3", "host"]),
        (name_rules.check_path_inside, ["a/b", "a..b"], ["/a", "a/../b"]),
    ],
)
def test_name_rules(check: Any, good: list[Any], bad: list[Any]) -> None:
    """Good values pass; bad ones are told what would be right."""
    assert [value for value in good if check(value)] == []
    assert [value for value in bad if not check(value)] == []


def test_sysctl_and_header_names() -> None:
    """Parts with dots or slashes; letters, digits and hyphens."""
    assert name_rules.is_sysctl_name("net.ipv4.ip_forward")
    assert name_rules.is_sysctl_name("net/ipv4/conf/eth0")
    assert name_rules.is_sysctl_name("a" * 253)
    assert not name_rules.is_sysctl_name("net..a")
    assert not name_rules.is_sysctl_name("a" * 254)
    assert name_rules.is_http_header_name("X-Token-1")
    assert not name_rules.is_http_header_name("a:b")


@given(st.ip_addresses())
def test_every_address_is_one(address: ipaddress.IPv4Address) -> None:
    """Both families."""
    assert name_rules.check_ip(str(address)) == ""
