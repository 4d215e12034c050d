"""Docker's own network with both families and host ports, and what a restarted engine must not change."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import Shim, code_of, eventually
from tests.lab.lab import Lab
from tests.lab.process import LabError

pytestmark = pytest.mark.lab

READY = cri.PodSandboxState.SANDBOX_READY
SERVER = "mkdir /srv; hostname > /srv/name; exec httpd -f -p 80 -h /srv"
GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode(), end='')"


@pytest.fixture(scope="module", params=["20.10", "29"])
def shim(request: pytest.FixtureRequest) -> Iterator[Shim]:
    with Lab.start(docker=request.param, docker_settings={"live-restore": True}) as lab:
        started = Shim(lab, "shim-net", None, "--pod-cidr=10.202.0.0/16,fd02::/64", "--network-plugin-mtu=1400")
        yield started
        started.stop()


@pytest.fixture(autouse=True)
def no_pods(shim: Shim) -> Iterator[None]:
    yield
    shim.remove_all()


def get(shim: Shim, url: str) -> str:
    """What a web server says to somebody on the node; nothing when there is none."""
    try:
        return shim.lab.run([sys.executable, "-c", GET, url]).stdout.strip()
    except LabError:
        return ""


def test_a_pod_has_an_address_of_each_family_and_its_host_port_is_reached_by_both(shim: Shim) -> None:
    """They are in the status, work between pods, and the ports go with the pod."""
    ports = [cri.PortMapping(container_port=80, host_port=8085)]
    sandbox = shim.run_sandbox(shim.sandbox_config(port_mappings=ports))
    container_id = shim.run(sandbox, SERVER)
    network = shim.sandbox_status(sandbox[0]).network
    assert network.ip.startswith("10.202.")
    [second] = [address.ip for address in network.additional_ips]
    assert second.startswith("fd02:")
    inside = shim.exec(container_id, "ip", "address", "show", "dev", "eth0").stdout.decode()
    assert f"{network.ip}/16" in inside
    assert f"{second}/64" in inside
    assert "mtu 1400" in inside
    name = sandbox[1].hostname
    hosts = (f"{network.ip}", f"[{second}]", "127.0.0.1:8085", "[::1]:8085")
    for host in hosts:  # an address of IPv6 is in doubt for a second after it was set
        eventually(lambda host=host: get(shim, f"http://{host}/name") == name)  # type: ignore[misc]  # mypy#15459
    client = shim.run(shim.run_sandbox(), "exec sleep 1000")
    answer = shim.exec(client, "wget", "-q", "-O", "-", f"http://{network.ip}/name")
    assert answer.stdout.decode().strip() == name
    shim.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox[0]))
    assert get(shim, "http://127.0.0.1:8085/name") == ""


def test_a_host_network_pod_has_no_address_of_its_own(shim: Shim) -> None:
    """It sees the node's interfaces, and its resolv.conf is its own all the same."""
    config = shim.sandbox_config(dns_config=cri.DNSConfig(servers=["10.9.8.7"]))
    config.linux.security_context.namespace_options.network = cri.NamespaceMode.NODE
    sandbox = shim.run_sandbox(config)
    assert shim.sandbox_status(sandbox[0]).network.ip == ""
    container_id = shim.run(sandbox, "exec sleep 1000")
    assert b"lab0" in shim.exec(container_id, "ip", "link").stdout
    assert shim.exec(container_id, "cat", "/etc/resolv.conf").stdout == b"nameserver 10.9.8.7\n"


def test_a_restarted_engine_leaves_pods_with_their_resolv_conf(shim: Shim) -> None:
    """The pod lives on (live-restore); what is not as it was asked for is put right when Docker is back."""
    sandbox = shim.run_sandbox(shim.sandbox_config(dns_config=cri.DNSConfig(servers=["10.9.8.7"])))
    container_id = shim.run(sandbox, "exec sleep 1000")
    [path] = shim.lab.docker.client("inspect", "--format", "{{.ResolvConfPath}}", sandbox[0]).split()
    before = shim.sandbox_status(sandbox[0])
    dockerd = shim.lab.docker.dockerd
    assert dockerd is not None
    dockerd.kill()
    dockerd.wait(10)
    shim.lab.run(["sh", "-c", f"echo nameserver 127.0.0.11 > {path}"])  # as an engine that writes it anew
    eventually(lambda: not shim.runtime.Status(cri.StatusRequest()).status.conditions[0].status)
    shim.lab.docker.start()
    shim.wait_ready()
    eventually(lambda: shim.lab.run(["cat", path]).stdout == "nameserver 10.9.8.7\n")
    assert shim.exec(container_id, "cat", "/etc/resolv.conf").stdout == b"nameserver 10.9.8.7\n"
    assert shim.sandbox_status(sandbox[0]) == before


def test_other_pod_ranges_are_told_and_not_taken(shim: Shim) -> None:
    """Docker cannot change a network's ranges; what is no range is refused."""

    def update(text: str) -> None:
        network = cri.NetworkConfig(pod_cidr=text)
        shim.runtime.UpdateRuntimeConfig(
            cri.UpdateRuntimeConfigRequest(runtime_config=cri.RuntimeConfig(network_config=network))
        )

    update("10.203.0.0/16")
    code, message = code_of(lambda: update("10.203.0.0/99"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "pod_cidr" in message
    assert shim.sandbox_status(shim.run_sandbox()[0]).network.ip.startswith("10.202.")
    other = Shim(shim.lab, "shim-other", None, "--pod-cidr=10.204.0.0/16", wait_ready=False)

    def said() -> str:
        return str(other.runtime.Status(cri.StatusRequest()).status.conditions[1].message)

    eventually(lambda: "docker network rm dockershim" in said())
    other.stop()
