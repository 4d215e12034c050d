"""Pods in networks made by the real CNI plugins of Debian, each test in network namespaces of its own."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from dockershim import mounting, namespaces
from dockershim.network import NetworkFailed, NetworkRequest
from dockershim.network.cni import CniNetwork
from tests.integration.dockershim_network.namespace import pod_network, run_in_new_network, run_in_pod

PLUGINS = Path("/usr/lib/cni")
ID = "a1" * 32

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
    pytest.mark.skipif(not (PLUGINS / "bridge").exists(), reason="needs Debian's containernetworking-plugins"),
]


class Host:
    """Directories of one node and the network on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.configuration = root / "net.d"
        self.own_plugins = root / "bin"
        self.leases = root / "leases"
        self.plugin_seconds = 120.0
        self.configuration.mkdir()
        self.own_plugins.mkdir()

    def network(self) -> CniNetwork:
        """A dockershim's network; as after a restart when there was one before."""
        return CniNetwork(
            self.configuration,
            [PLUGINS, self.own_plugins],
            self.root / "state",
            self.root / "netns",
            plugin_seconds=self.plugin_seconds,
        )

    def configure(self, *more: Mapping[str, Any], version: str = "1.0.0", **fields: Any) -> None:
        """A dual-stack bridge, and what is chained to it."""
        ranges = [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]
        ipam = {"type": "host-local", "dataDir": str(self.leases), "ranges": ranges}
        bridge = {"type": "bridge", "bridge": "cni7", "isGateway": True, "ipMasq": False, "ipam": ipam}
        content = {"cniVersion": version, "name": "pods", "plugins": [bridge, *more], **fields}
        (self.configuration / "10-pods.conflist").write_text(json.dumps(content))

    def let_go(self) -> None:
        """Unmount the network namespaces that are still pinned."""
        pinned = self.root / "netns"
        for path in pinned.iterdir() if pinned.is_dir() else ():
            mounting.unmount(path)

    def install(self, name: str, script: str) -> None:
        """A plugin of the test's own."""
        path = self.own_plugins / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def leased(self) -> set[str]:
        """The addresses that the IPAM plugin holds for somebody."""
        directory = self.leases / "pods"
        if not directory.is_dir():
            return set()
        return {path.name for path in directory.iterdir() if not path.name.startswith(("last_reserved", "lock"))}


def request_for(netns: Path, *ports: cri.PortMapping, **more: Any) -> NetworkRequest:
    """What the sandbox RPCs ask for."""
    fields: dict[str, Any] = {"annotations": {}, "dns": None, **more}
    return NetworkRequest(ID, "pod", "default", "uid-1", str(netns), ports, **fields)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """An empty node. What a test leaves pinned is let go: a mount would keep its directory for ever."""
    host = Host(tmp_path)
    yield host
    host.let_go()


PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_a_pod_gets_both_addresses_a_loopback_and_its_host_port_and_gives_all_back(host: Host, version: str) -> None:
    async def body() -> None:
        host.configure(PORTMAP, version=version)
        network = host.network()
        await network.start()
        assert network.condition().ready
        with pod_network() as netns:
            port = cri.PortMapping(protocol=cri.TCP, container_port=80, host_port=8080)
            request = request_for(netns, port)
            result = await network.set_up(request)
            assert result.ips == ("10.77.0.2", "fd77::2")
            assert json.loads(json.dumps(result.raw)) == result.raw
            links = run_in_pod(netns, "ip", "-o", "address")
            assert "127.0.0.1/8" in links
            assert "10.77.0.2/24" in links
            assert "fd77::2/64" in links
            with await asyncio.to_thread(namespaces.in_network_namespace, str(netns), serve_once):
                assert await answer_of("10.77.0.1", 8080) == b"hello"
            await network.tear_down(request, result.raw)
            assert host.leased() == set()
            assert "eth0" not in run_in_pod(netns, "ip", "-o", "link")
            assert "8080" not in iptables_rules()
            await network.tear_down(request, result.raw)
            await network.tear_down(request, {})
        await network.close()

    run_in_new_network(body)


def iptables_rules() -> str:
    """The NAT rules of this namespace."""
    return subprocess.run(["iptables-save", "-t", "nat"], check=True, capture_output=True, text=True).stdout


def serve_once() -> socket.socket:
    """A server in the namespace of the calling thread, on port 80, that greets the first who connects."""
    server = socket.create_server(("0.0.0.0", 80))
    server.settimeout(20)

    def greet() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"hello")

    threading.Thread(target=greet, name="test-server").start()
    return server


async def answer_of(address: str, port: int) -> bytes:
    """What a server of this namespace's network says."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(address, port)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer


def test_tear_down_works_without_configuration_without_the_namespace_and_after_a_restart(host: Host) -> None:
    async def body() -> None:
        host.configure(PORTMAP)
        network = host.network()
        await network.start()
        with pod_network() as netns:
            request = request_for(netns)
            result = await network.set_up(request)
        await network.close()
        assert host.leased() == {"10.77.0.2", "fd77::2"}
        (host.configuration / "10-pods.conflist").unlink()
        restarted = host.network()
        await restarted.start()
        assert not restarted.condition().ready
        await restarted.tear_down(request, json.loads(json.dumps(result.raw)))
        assert host.leased() == set()
        await restarted.close()

    run_in_new_network(body)


def test_a_crash_before_the_caller_kept_the_result_leaks_nothing(host: Host) -> None:
    async def body() -> None:
        host.configure()
        network = host.network()
        await network.start()
        with pod_network() as netns:
            await network.set_up(request_for(netns))
        await network.close()
        (host.configuration / "10-pods.conflist").unlink()
        await host.network().tear_down(request_for(netns), {})
        assert host.leased() == set()
        assert list((host.root / "state").iterdir()) == []

    run_in_new_network(body)


def test_a_namespace_of_somebody_else_under_the_same_path_is_left_alone(host: Host) -> None:
    async def body() -> None:
        host.configure()
        network = host.network()
        await network.start()
        with pod_network() as netns, pod_network() as other:
            result = await network.set_up(request_for(netns))
            again = NetworkRequest("b2" * 32, "other", "default", "uid-2", str(other), (), {}, None)
            await network.set_up(again)
            await network.tear_down(request_for(other), result.raw)
            assert "eth0" in run_in_pod(other, "ip", "-o", "link")
            assert host.leased() == {"10.77.0.3", "fd77::3"}
        await network.close()

    run_in_new_network(body)


def test_a_failure_in_the_middle_of_the_chain_is_undone_and_told(host: Host) -> None:
    async def body() -> None:
        host.install(
            "broken",
            'cat > /dev/null; [ "$CNI_COMMAND" = DEL ] && exit 0\n'
            'echo \'{"cniVersion":"1.0.0","code":7,"msg":"no luck","details":"today"}\'; exit 1',
        )
        host.configure({"type": "broken"})
        network = host.network()
        await network.start()
        with pod_network() as netns:
            with pytest.raises(NetworkFailed) as failure:
                await network.set_up(request_for(netns))
            assert str(failure.value) == "network pods: plugin broken (ADD): no luck: today (code 7)"
            assert host.leased() == set()
            assert "eth0" not in run_in_pod(netns, "ip", "-o", "link")
        assert list((host.root / "state").iterdir()) == []
        await network.close()

    run_in_new_network(body)


def test_a_plugin_that_hangs_is_ended_with_its_children_and_undone(host: Host) -> None:
    host.plugin_seconds = 10.0

    async def body() -> None:
        pid_file = host.root / "pid"
        host.install("hangs", f'[ "$CNI_COMMAND" = DEL ] && exit 0\nsleep 600 & echo $! > {pid_file}; wait')
        host.configure({"type": "hangs"})
        network = host.network()
        await network.start()
        with (
            pod_network() as netns,
            pytest.raises(NetworkFailed, match=r"plugin hangs \(ADD\): no answer within 10 s"),
        ):
            await network.set_up(request_for(netns))
        child = int(pid_file.read_text())
        assert await gone(child)
        assert host.leased() == set()
        await network.close()

    run_in_new_network(body)


async def gone(pid: int) -> bool:
    """Whether a process that was killed is no more (its reaper may take a moment)."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        await asyncio.sleep(0.01)
    return False


def test_a_caller_that_gives_up_leaves_nothing_behind(host: Host) -> None:
    async def body() -> None:
        started = host.root / "started"
        os.mkfifo(started)
        host.install("hangs", f'[ "$CNI_COMMAND" = DEL ] && exit 0\necho > {started}; exec sleep 600')
        host.configure({"type": "hangs"})
        network = host.network()
        await network.start()
        with pod_network() as netns:
            async with asyncio.TaskGroup() as group:
                setting_up = group.create_task(network.set_up(request_for(netns)), name="set-up")
                await asyncio.to_thread(started.read_text)
                setting_up.cancel()
        assert host.leased() == set()
        await network.close()

    run_in_new_network(body)


def test_pod_ranges_and_labels_reach_the_plugins_that_want_them(host: Host) -> None:
    async def body() -> None:
        ipam = {"type": "host-local", "dataDir": str(host.leases)}
        bridge = {"type": "bridge", "bridge": "cni7", "ipam": ipam, "capabilities": {"ipRanges": True}}
        content = {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}
        (host.configuration / "10-pods.conflist").write_text(json.dumps(content))
        network = host.network()
        await network.start()
        await network.set_pod_cidr("10.88.3.0/24,fd88::/64")
        with pod_network() as netns:
            result = await network.set_up(request_for(netns))
            assert result.ips == ("10.88.3.2", "fd88::2")
            await network.tear_down(request_for(netns), result.raw)
            await network.close()
            restarted = host.network()  # the kubelet tells a runtime once
            await restarted.start()
            again = await restarted.set_up(request_for(netns))
            assert again.ips[0].startswith("10.88.3.")
            await restarted.tear_down(request_for(netns), again.raw)
            await restarted.close()

    run_in_new_network(body)


def test_what_sandboxes_hold_that_went_while_nobody_looked_is_given_back(host: Host) -> None:
    async def body() -> None:
        host.configure(PORTMAP)
        network = host.network()
        await network.start()
        with pod_network() as gone, pod_network() as there:
            stays = NetworkRequest("c3" * 32, "stays", "default", "uid-3", str(there), (), {}, None)
            await network.set_up(request_for(gone))
            kept = await network.set_up(stays)
            await network.retain([])  # what this process has set up itself may not be known to the caller yet
            assert len(host.leased()) == 4
            restarted = host.network()
            await restarted.start()
            await restarted.retain([stays.sandbox_id])
            await restarted.close()
            assert host.leased() == set(kept.ips)
            assert [path.name for path in (host.root / "state").iterdir()] == [stays.sandbox_id]
            await network.tear_down(stays, kept.raw)
        await network.close()

    run_in_new_network(body)


def test_a_pods_network_outlives_its_pause_process_until_it_is_given_back(host: Host) -> None:
    async def body() -> None:
        host.configure(PORTMAP)
        network = host.network()
        await network.start()
        port = cri.PortMapping(protocol=cri.TCP, container_port=80, host_port=8080)
        with pod_network() as netns:
            request = request_for(netns, port)
            result = await network.set_up(request)
        [pinned] = (host.root / "netns").iterdir()
        assert "10.77.0.2/24" in run_in_pod(pinned, "ip", "-o", "address")
        with await asyncio.to_thread(namespaces.in_network_namespace, str(pinned), serve_once):
            assert await answer_of("10.77.0.1", 8080) == b"hello"
        restarted = host.network()
        await restarted.start()
        await restarted.retain([request.sandbox_id])
        await restarted.tear_down(request, result.raw)
        assert list((host.root / "netns").iterdir()) == []
        assert host.leased() == set()
        await restarted.close()
        await network.close()

    run_in_new_network(body)


def test_a_network_that_was_changed_behind_our_back_is_found_by_check(host: Host) -> None:
    async def body() -> None:
        host.configure(PORTMAP)
        network = host.network()
        await network.start()
        with pod_network() as netns:
            result = await network.set_up(request_for(netns))
            assert await network.check(request_for(netns), result.raw) == ""
            run_in_pod(netns, "ip", "address", "flush", "dev", "eth0")
            trouble = await network.check(request_for(netns), result.raw)
            assert trouble.startswith("network pods: plugin bridge (CHECK): ")
            await network.tear_down(request_for(netns), result.raw)
        await network.close()

    run_in_new_network(body)


@pytest.mark.parametrize("version", ["0.3.1", "1.0.0"])
def test_check_is_left_out_where_the_configuration_does_not_have_it(host: Host, version: str) -> None:
    async def body() -> None:
        pass_on = "import json, sys; print(json.dumps(json.load(sys.stdin)['prevResult']))"
        host.install("strict", f'[ "$CNI_COMMAND" = CHECK ] && exit 1\nexec {sys.executable} -c "{pass_on}"')
        host.configure({"type": "strict"}, version=version, disableCheck=version == "1.0.0")
        network = host.network()
        await network.start()
        with pod_network() as netns:
            result = await network.set_up(request_for(netns))
            assert await network.check(request_for(netns), result.raw) == ""
            await network.tear_down(request_for(netns), result.raw)
        await network.close()

    run_in_new_network(body)


def test_readiness_is_what_the_plugins_say_of_themselves(host: Host) -> None:
    async def body() -> None:
        trouble = host.root / "trouble"
        trouble.write_text('{"cniVersion":"1.1.0","code":50,"msg":"no address left"}')
        host.install(
            "asks", f'[ "$CNI_COMMAND" = STATUS ] || exit 0; [ -e {trouble} ] || exit 0; cat {trouble}; exit 1'
        )
        plugins: list[dict[str, Any]] = [{"type": "asks"}]
        content = {"cniVersion": "1.1.0", "name": "pods", "plugins": plugins}
        (host.configuration / "10-pods.conflist").write_text(json.dumps(content))
        network = host.network()
        await network.start()
        assert not network.condition().ready
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(network.run(), name="network")
            await until(lambda: "no address left (code 50)" in network.condition().message)
            assert not network.condition().ready
            trouble.unlink()
            plugins.append({"type": "asks", "more": 1})  # a changed network is asked at once
            (host.configuration / "10-pods.conflist").write_text(json.dumps(content))
            await until(lambda: network.condition().ready)
            watching.cancel()
        await network.close()

    run_in_new_network(body)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 # it is read, not announced
            await asyncio.sleep(0.01)


def test_what_another_runtime_was_given_by_libcni_is_given_back(host: Host) -> None:
    async def body() -> None:
        host.configure(PORTMAP)
        network = host.network()
        await network.start()
        with pod_network() as netns:
            port = cri.PortMapping(protocol=cri.TCP, container_port=80, host_port=8080)
            result = await network.set_up(request_for(netns, port))
            before = result.raw
            [record] = [path for path in (host.root / "state").iterdir() if path.name == ID]
            record.unlink()
            cached = {
                "kind": "cniCacheV1",
                "containerId": ID,
                "config": base64.b64encode(json.dumps(before["network"]).encode()).decode(),
                "ifName": "eth0",
                "networkName": "pods",
                "cniArgs": [["IgnoreUnknown", "1"]],
                "capabilityArgs": before["runtime_config"],
                "result": before["result"],
            }
            results = host.root / "state" / "results"
            results.mkdir()
            (results / f"pods-{ID}-eth0").write_text(json.dumps(cached))
            (host.configuration / "10-pods.conflist").unlink()
            assert "8080" in iptables_rules()
            await host.network().tear_down(request_for(netns), {})
            assert host.leased() == set()
            assert "8080" not in iptables_rules()
            assert list(results.iterdir()) == []
        await network.close()

    run_in_new_network(body)


def test_plugins_that_know_gc_are_told_what_is_still_there(host: Host) -> None:
    async def body() -> None:
        told = host.root / "told"
        host.install("collects", f'echo "$CNI_COMMAND [$CNI_CONTAINERID]" > {told}; cat >> {told}')
        content = {"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "collects"}]}
        (host.configuration / "10-pods.conflist").write_text(json.dumps(content))
        network = host.network()
        await network.start()
        await network.retain({ID})
        verb, _, given = told.read_text().partition("\n")
        assert verb == "GC []"
        assert json.loads(given) == {
            "cniVersion": "1.1.0",
            "name": "pods",
            "type": "collects",
            "cni.dev/valid-attachments": [{"containerID": ID, "ifname": "eth0"}],
        }
        await network.close()

    run_in_new_network(body)


def test_thirty_pods_at_once_get_addresses_of_their_own(host: Host) -> None:
    async def body() -> None:
        host.configure(PORTMAP)
        network = host.network()
        await network.start()
        with ExitStack() as pods:
            requests = [
                NetworkRequest(f"{at:064x}", "p", "d", f"u{at}", str(pods.enter_context(pod_network())), (), {}, None)
                for at in range(30)
            ]
            results = await asyncio.gather(*(network.set_up(request) for request in requests))
            assert len({result.ips[0] for result in results}) == 30
            await asyncio.gather(
                *(network.tear_down(request, result.raw) for request, result in zip(requests, results, strict=True))
            )
            assert host.leased() == set()
        await network.close()

    run_in_new_network(body)
