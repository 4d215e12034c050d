"""A node to break: Docker, a CNI network with a plugin that fails on demand, dockershim behind a proxy.

`holdings` lists all that pods can hold on it, so that a test can say that nothing is left of one.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.counting_proxy import CountingProxy
from tests.integration.dockershim.harness import Shim, code_of, eventually
from tests.lab.lab import Lab

FIRST, LAST = "first", "last"
LEASES = "/run/ipam"
READY = cri.PodSandboxState.SANDBOX_READY
PLUGIN = "faulty_plugin.py"
HOLDINGS = """
echo "# containers"; docker --host unix://$1 ps --all --quiet --no-trunc
echo "# addresses"; ls /run/ipam/pods 2>/dev/null | grep '^[0-9]'
echo "# attachments"; ls /var/lib/cni/cache 2>/dev/null | grep -v '^results$'
echo "# links"; ip -o link | grep -o 'veth[0-9a-f]*'
echo "# rules"; iptables-save -t nat | grep -o 'CNI-[DS]N-[0-9a-f]*' | sort -u
echo "# network namespaces"; find /proc/[0-9]*/ns/net -maxdepth 0 -exec readlink {} + 2>/dev/null | sort -u
echo "# mounts"; cut -d' ' -f5 /proc/self/mountinfo
echo "# records"; find $2 -path '*/log' -prune -o -type f -print
"""


class Stage:
    """The node. `shim` is its dockershim; `proxy` stands between it and Docker."""

    def __init__(self, lab: Lab, *flags: str, name: str = "shim", root: str = "") -> None:
        self.lab = lab
        self.directory = lab.root / f"{name}-cni"
        for part in ("net.d", "bin"):
            (self.directory / part).mkdir(parents=True)
        self._install_plugin()
        self.obey("", "", "")
        (self.directory / "net.d" / "10-pods.conflist").write_text(json.dumps(self._configuration()))
        path = lab.root / "run" / f"{name}-docker.sock"
        self.proxy = CountingProxy(path, lab.docker_socket)
        cni = (f"--cni-conf-dir={self.directory / 'net.d'}", f"--cni-bin-dir={self.directory / 'bin'},/usr/lib/cni")
        self.root = root or str(lab.root / f"{name}-root")
        self.shim = Shim(lab, name, path, "--network-plugin=cni", f"--root-directory={self.root}", *cni, *flags)

    def _install_plugin(self) -> None:
        for place in (FIRST, LAST):
            file = self.directory / "bin" / f"faulty-{place}"
            source = (Path(__file__).parent / PLUGIN).read_text()
            file.write_text(f"#!{sys.executable} -S\n{source}")
            file.chmod(0o755)

    def _configuration(self) -> dict[str, object]:
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.201.0.0/16"}]], "dataDir": LEASES},
        }
        faulty = [{"type": f"faulty-{place}", "orders": str(self.directory / "orders")} for place in (FIRST, LAST)]
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "1.0.0", "name": "pods", "plugins": [faulty[0], bridge, portmap, faulty[1]]}

    def obey(self, place: str, verb: str, fault: str) -> None:
        """From now on this plugin has this fault at this verb; see faulty_plugin.py. Empty: all is well."""
        pid = self.shim.process.inner_pid if hasattr(self, "shim") and self.shim.process else 0
        (self.directory / "orders").write_text(f"{place} {verb} {fault} {pid}")

    def close(self) -> None:
        """No pods, no dockershim."""
        self.obey("", "", "")
        self.proxy.stop_interfering()
        self.shim.remove_all()
        self.shim.stop()
        self.proxy.close()

    def holdings(self) -> dict[str, list[str]]:
        """All that pods hold of this node, by kind."""
        script = ["sh", "-c", HOLDINGS, "sh", str(self.lab.docker_socket), self.root]
        found: dict[str, list[str]] = {}
        for line in self.lab.run(script).stdout.splitlines():
            if line.startswith("# "):
                kind = line.removeprefix("# ")
                found[kind] = []
            else:
                found[kind].append(line)
        return {kind: sorted(lines) for kind, lines in found.items()}

    def config(self) -> cri.PodSandboxConfig:
        """A pod with a host port, so that it holds packet filter rules too."""
        return self.shim.sandbox_config(port_mappings=[cri.PortMapping(container_port=80, host_port=free_port())])

    def pods(self, config: cri.PodSandboxConfig) -> list[cri.PodSandbox]:
        """The sandboxes of a pod that dockershim shows."""
        listed = self.shim.runtime.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=10).items
        return [item for item in listed if item.metadata.uid == config.metadata.uid]

    def run_pod(self, config: cri.PodSandboxConfig) -> tuple[tuple[str, cri.PodSandboxConfig], str]:
        """A sandbox with one running container; both."""
        sandbox = self.shim.run_sandbox(config)
        return sandbox, self.shim.run(sandbox, "exec sleep 1000")

    def shown(self, sandbox_id: str, container_id: str) -> tuple[cri.PodSandboxStatus, cri.ContainerStatus]:
        """All that is shown of a pod and its container."""
        return self.shim.sandbox_status(sandbox_id), self.shim.status(container_id)

    @contextmanager
    def passing_pod(self) -> Iterator[cri.PodSandboxConfig]:
        """A pod to do something with, of which nothing is left at the end."""
        before, config = self.holdings(), self.config()
        yield config
        self.clear(config)
        self.same(before)

    def clear(self, config: cri.PodSandboxConfig) -> None:
        """What the kubelet does with a pod that has gone: everything that is shown of it is stopped and removed."""
        for item in self.pods(config):
            self.shim.remove_sandbox(item.id)

    def kill_at(self, at: Callable[[str], bool], *, answered: bool) -> threading.Event:
        """Kill dockershim at the first request of a kind: before Docker sees it, or after Docker has done it."""
        killed = threading.Event()

        def hook(request: str) -> bool:
            if killed.is_set() or not at(request):
                return not killed.is_set()
            killed.set()
            self.shim.kill()
            return False

        if answered:
            self.proxy.on_answer = hook
        else:
            self.proxy.on_request = hook
        return killed

    def restart(self) -> None:
        """A new dockershim, with nothing in its way."""
        self.obey("", "", "")
        self.proxy.stop_interfering()
        self.shim.start()

    def condition(self, kind: str = "RuntimeReady") -> cri.RuntimeCondition:
        """One condition of Status."""
        conditions = self.shim.runtime.Status(cri.StatusRequest(), timeout=5).status.conditions
        found: cri.RuntimeCondition = next(each for each in conditions if each.type == kind)
        return found

    def works(self) -> None:
        """A pod runs, answers and goes without a trace."""
        eventually(lambda: self.condition().status)
        before = self.holdings()
        sandbox = self.shim.run_sandbox(self.config())
        container_id = self.shim.run(sandbox, "exec sleep 1000")
        assert self.shim.exec(container_id, "echo", "well").stdout == b"well\n"
        self.shim.remove_sandbox(sandbox[0])
        self.same(before)

    def same(self, before: dict[str, list[str]]) -> None:
        """Nothing is held but what was; Docker gives some things back a moment later."""
        deadline = time.monotonic() + 10
        while (now := self.holdings()) != before and time.monotonic() < deadline:
            time.sleep(0.1)
        changes = {
            kind: {"more": sorted(set(now[kind]) - set(lines)), "less": sorted(set(lines) - set(now[kind]))}
            for kind, lines in before.items()
            if lines != now[kind]
        }
        assert not changes, changes


_ports = iter(range(30000, 40000))


def free_port() -> int:
    """A host port that no other pod of these tests has."""
    return next(_ports)


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """A call that fails with a code that has a meaning; the code and the message."""
    code, message = code_of(call)
    assert code not in (grpc.StatusCode.OK, grpc.StatusCode.INTERNAL), message
    assert message
    return code, message
