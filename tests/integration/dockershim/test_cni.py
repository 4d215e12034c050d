"""Pods on a CNI network: address, host port, bandwidth, and giving back without a configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import Shim, code_of, eventually
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

CONFIGURATION = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": False,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.201.0.0/16"}]], "dataDir": "/run/ipam"},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
WRITE = "mkdir -p /etc/cni/net.d && cat > /etc/cni/net.d/10-pods.conflist"


@pytest.fixture(scope="module", params=["20.10", "29"])
def shim(request: pytest.FixtureRequest) -> Iterator[Shim]:
    with Lab.start(docker=request.param, docker_settings={"live-restore": True}) as lab:
        started = Shim(lab, "shim-cni", None, "--network-plugin=cni", wait_ready=False)
        eventually(lambda: started.runtime.Status(cri.StatusRequest()).status.conditions[0].status)
        yield started
        started.stop()


LISTENER = """#!/bin/sh
# a plugin that keeps what it is told at ADD, and answers with the result of those before it
cat > /run/told.$CNI_COMMAND
[ "$CNI_COMMAND" = ADD ] || exit 0
exec python3 -c 'import json; print(json.dumps(json.load(open("/run/told.ADD"))["prevResult"]))'
"""
INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"


def leases(shim: Shim) -> list[str]:
    """Addresses that are held."""
    listed = shim.lab.run(["sh", "-c", "ls /run/ipam/pods 2>/dev/null || true"]).stdout.split()
    return [name for name in listed if name[0].isdigit()]


def pins(shim: Shim) -> list[str]:
    """Network namespaces that are held."""
    return shim.lab.run(["sh", "-c", f"ls {shim.root}/netns 2>/dev/null || true"]).stdout.split()


def configure(shim: Shim, text: str = json.dumps(CONFIGURATION)) -> None:
    shim.lab.run(["sh", "-c", WRITE], text_input=text)
    shim.wait_ready()


def test_without_a_configuration_the_network_is_not_ready(shim: Shim) -> None:
    """Status has the reason, pods are refused and leave nothing; a configuration makes it ready."""
    conditions = shim.runtime.Status(cri.StatusRequest()).status.conditions
    assert (conditions[1].type, conditions[1].status) == ("NetworkReady", False)
    assert conditions[1].message
    assert code_of(lambda: shim.run_sandbox())[0] is not grpc.StatusCode.OK
    assert shim.docker_ids() == []
    configure(shim)


def test_a_pod_has_its_address_and_gives_it_back(shim: Shim) -> None:
    """The status shows the address of the plugin, which is the one inside; removing frees it."""
    configure(shim)
    sandbox = shim.run_sandbox()
    address = shim.sandbox_status(sandbox[0]).network.ip
    assert address.startswith("10.201.")
    container_id = shim.run(sandbox, "exec sleep 1000")
    assert address in shim.exec(container_id, "ip", "addr").stdout.decode()
    assert leases(shim) == [address]
    shim.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox[0]))
    assert leases(shim) == []
    shim.remove_sandbox(sandbox[0])


def test_a_pod_has_files_that_docker_does_not_make(shim: Shim) -> None:
    """Its name servers, its name at its address, one file for all containers, in no status; gone with the pod.

    Also after Docker and dockershim were started anew, and not over a file that the container brings.
    """
    configure(shim)
    wanted = cri.DNSConfig(servers=["10.9.8.7"], searches=["pods.lab"])
    sandbox = shim.run_sandbox(shim.sandbox_config(hostname="web-0", dns_config=wanted))
    address = shim.sandbox_status(sandbox[0]).network.ip
    first = shim.run(sandbox, "echo mine >> /etc/hosts; exec sleep 1000")
    eventually(lambda: shim.exec(first, "tail", "-n", "1", "/etc/hosts").stdout == b"mine\n")
    assert f"{address}\tweb-0\n" in shim.exec(first, "cat", "/etc/hosts").stdout.decode()
    assert shim.exec(first, "hostname").stdout == b"web-0\n"
    assert list(shim.status(first).mounts) == []
    dockerd = shim.lab.docker.dockerd
    assert dockerd is not None
    dockerd.kill()
    dockerd.wait(10)
    shim.kill()
    shim.lab.docker.start()
    shim.start()
    own = shim.lab.root / "own-hosts"
    own.write_text("brought along\n")
    mount = cri.Mount(container_path="/etc/hosts", host_path=str(own), readonly=True)
    second = shim.run(sandbox, "exec sleep 1000", metadata=cri.ContainerMetadata(name="second"), mounts=[mount])
    third = shim.run(sandbox, "exec sleep 1000", metadata=cri.ContainerMetadata(name="third"))
    for container_id in (first, second, third):
        answer = shim.exec(container_id, "cat", "/etc/resolv.conf").stdout
        assert answer == b"nameserver 10.9.8.7\nsearch pods.lab\n"
    assert shim.exec(second, "cat", "/etc/hosts").stdout == b"brought along\n"
    assert shim.exec(third, "cat", "/etc/hosts").stdout.endswith(b"mine\n")
    assert [each.container_path for each in shim.status(second).mounts] == ["/etc/hosts"]
    assert shim.lab.run(["ls", f"{shim.root}/etc"]).stdout.split() == [sandbox[0]]
    shim.remove_sandbox(sandbox[0])
    assert shim.lab.run(["ls", f"{shim.root}/etc"]).stdout == ""


def test_a_pod_goes_also_without_a_configuration_and_after_kill_9(shim: Shim) -> None:
    """What was recorded at the set-up is enough to give back what it holds."""
    configure(shim)
    sandbox_id, _ = shim.run_sandbox()
    shim.kill()
    shim.lab.run(["rm", "/etc/cni/net.d/10-pods.conflist"])
    shim.lab.docker.client("rm", "-f", sandbox_id)
    shim.start(wait_ready=False)
    eventually(lambda: shim.sandbox_status(sandbox_id).state == cri.PodSandboxState.SANDBOX_NOTREADY)
    assert len(leases(shim)) == 1
    shim.remove_sandbox(sandbox_id)
    assert leases(shim) == []
    configure(shim)


def test_what_vanished_while_it_was_away_is_given_back_at_the_start(shim: Shim) -> None:
    """A sandbox of which nothing is left but its attachment gets its DEL; one that is there keeps its address."""
    configure(shim)
    kept, gone = shim.run_sandbox()[0], shim.run_sandbox()[0]
    address = shim.sandbox_status(kept).network.ip
    assert len(leases(shim)) == 2
    foreign = shim.lab.run(["sh", "-c", "mkdir -p /var/lib/cni/cache/results && ls /var/lib/cni/cache"]).stdout.split()
    assert {"results", gone} <= set(foreign)
    shim.kill()
    shim.lab.docker.client("rm", "-f", gone)
    (shim.root / "sandbox" / gone).unlink()
    shim.start()
    eventually(lambda: leases(shim) == [address])
    assert "results" in shim.lab.run(["ls", "/var/lib/cni/cache"]).stdout.split()
    assert shim.sandbox_status(kept).network.ip == address
    shim.remove_sandbox(kept)
    assert leases(shim) == pins(shim) == []


def test_a_failing_plugin_leaves_nothing(shim: Shim) -> None:
    """The second plugin fails after the first gave an address; both are undone."""
    broken = {**CONFIGURATION, "plugins": [*CONFIGURATION["plugins"], {"type": "tuning", "sysctl": {"no.such": "1"}}]}
    configure(shim, json.dumps(broken))
    code, message = code_of(lambda: shim.run_sandbox())
    assert code is grpc.StatusCode.UNKNOWN
    assert "tuning" in message
    assert leases(shim) == pins(shim) == []
    assert shim.docker_ids() == []
    configure(shim)


def test_kill_9_between_the_steps_frees_every_address(shim: Shim) -> None:
    """Whatever was half done is shown as not ready and is given back when it is removed."""
    configure(shim)
    calls = [
        shim.runtime.RunPodSandbox.future(cri.RunPodSandboxRequest(config=shim.sandbox_config())) for _ in range(5)
    ]
    code_of(lambda: calls[0].result(timeout=60))
    shim.kill()
    for call in calls[1:]:
        code_of(partial(call.result, timeout=60))
    shim.start()

    def all_is_removed() -> bool:
        """What Docker was still making when it was listed comes a moment later."""
        shim.remove_all()
        return shim.docker_ids() == []

    eventually(all_is_removed)
    assert leases(shim) == pins(shim) == []


def test_a_pod_keeps_its_network_when_pause_dies_until_it_is_stopped(shim: Shim) -> None:
    """The containers go on with the address they have; the sandbox is not ready, and stopping it gives all back."""
    configure(shim)
    sandbox = shim.run_sandbox()
    address = shim.sandbox_status(sandbox[0]).network.ip
    linux = cri.LinuxContainerConfig()
    linux.security_context.namespace_options.pid = cri.NamespaceMode.CONTAINER  # else it is pause's child and goes too
    container_id = shim.run(sandbox, "exec sleep 1000", linux=linux)
    shim.lab.docker.client("kill", sandbox[0])
    eventually(lambda: shim.sandbox_status(sandbox[0]).state == cri.PodSandboxState.SANDBOX_NOTREADY)
    assert shim.sandbox_status(sandbox[0]).network.ip == address
    assert address in shim.exec(container_id, "ip", "addr").stdout.decode()
    assert pins(shim) == [sandbox[0]]
    shim.kill()
    shim.start()
    assert address in shim.exec(container_id, "ip", "addr").stdout.decode()
    shim.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox[0]))
    assert leases(shim) == []
    assert pins(shim) == []
    shim.remove_sandbox(sandbox[0])


def test_a_verbose_status_says_what_the_plugins_find(shim: Shim) -> None:
    """Nothing, as long as the network is as they made it."""
    configure(shim)
    sandbox = shim.run_sandbox()

    def trouble() -> str:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox[0], verbose=True)
        return str(json.loads(shim.runtime.PodSandboxStatus(request).info["info"])["networkTrouble"])

    eventually(lambda: trouble() == "")
    container_id = shim.run(sandbox, "exec sleep 1000")
    [pid] = shim.lab.docker.client("inspect", "--format", "{{.State.Pid}}", container_id).split()
    shim.lab.run(["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "address", "flush", "dev", "eth0"])
    eventually(lambda: "plugin bridge (CHECK)" in trouble())
    shim.remove_sandbox(sandbox[0])


def shaped(shim: Shim) -> list[tuple[str, int]]:
    """Links with a token bucket, by their kind, and its bits per second."""
    found = json.loads(shim.lab.run(["tc", "-j", "qdisc", "show"]).stdout)
    kinds = {"veth": "veth", "bwp": "ifb"}
    return sorted(
        (next(kind for prefix, kind in kinds.items() if one["dev"].startswith(prefix)), 8 * one["options"]["rate"])
        for one in found
        if one["kind"] == "tbf"
    )


def test_every_wish_of_a_pod_reaches_the_plugins_that_serve_it(shim: Shim) -> None:
    """Ranges, a host port, limits in both directions, DNS and annotations; all is given back at the end."""
    shim.lab.run(
        ["sh", "-c", "mkdir -p /opt/cni/bin && cat > $0 && chmod 755 $0", "/opt/cni/bin/listener"], text_input=LISTENER
    )
    bridge = {"type": "bridge", "bridge": "cni7", "isGateway": True, "capabilities": {"ipRanges": True}}
    plugins: list[dict[str, Any]] = [
        {**bridge, "ipam": {"type": "host-local", "dataDir": "/run/ipam"}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        {"type": "listener", "capabilities": {"dns": True, "io.kubernetes.cri.pod-annotations": True}},
    ]
    configure(shim, json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}))
    cidrs = cri.NetworkConfig(pod_cidr="10.201.7.0/24,fd77::/64")
    shim.runtime.UpdateRuntimeConfig(
        cri.UpdateRuntimeConfigRequest(runtime_config=cri.RuntimeConfig(network_config=cidrs))
    )
    config = shim.sandbox_config(
        annotations={INGRESS: "8M", EGRESS: "1Mi"},
        port_mappings=[cri.PortMapping(container_port=80, host_port=8081)],
        dns_config=cri.DNSConfig(servers=["10.0.0.10"], searches=["svc.test"], options=["ndots:5"]),
    )
    sandbox_id, _ = shim.run_sandbox(config)
    network = shim.sandbox_status(sandbox_id).network
    assert network.ip.startswith("10.201.7.")
    assert [each.ip[:6] for each in network.additional_ips] == ["fd77::"]
    assert shaped(shim) == [("ifb", 1 << 20), ("veth", 8 * 10**6)]
    assert f"--to-destination {network.ip}:80" in shim.lab.run(["iptables-save", "-t", "nat"]).stdout
    told = json.loads(shim.lab.run(["cat", "/run/told.ADD"]).stdout)
    assert told["runtimeConfig"] == {
        "dns": {"servers": ["10.0.0.10"], "searches": ["svc.test"], "options": ["ndots:5"]},
        "io.kubernetes.cri.pod-annotations": dict(config.annotations),
    }
    shim.remove_sandbox(sandbox_id)
    assert shaped(shim) == []
    assert leases(shim) == pins(shim) == []
    assert "8081" not in shim.lab.run(["iptables-save", "-t", "nat"]).stdout
    assert "ifb" not in shim.lab.run(["ip", "-d", "-o", "link"]).stdout
    told = json.loads(shim.lab.run(["cat", "/run/told.DEL"]).stdout)
    assert told["runtimeConfig"]["dns"]["servers"] == ["10.0.0.10"]
    configure(shim)


def test_a_bandwidth_that_is_none_is_refused_by_its_annotation(shim: Shim) -> None:
    configure(shim)
    code, message = code_of(lambda: shim.run_sandbox(shim.sandbox_config(annotations={INGRESS: "fast"})))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"annotation {INGRESS} is 'fast'" in message
    assert shim.docker_ids() == leases(shim) == pins(shim) == []
