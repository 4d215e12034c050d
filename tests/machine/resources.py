"""What pods and daemons may use, on cgroup v2 with systemd's cgroups: resize in place, swap, kept memory, reservations.

For a machine of its own with a control plane beside it only (`make boot`): it turns swap on, makes a slice and starts
both runtimes. It is no test_*.py, so that nobody runs it elsewhere. Each test is for Docker with dockershim and for
containerd, and each looks twice, before and after systemd was reloaded: then it writes what it knows of each unit.
"""

from __future__ import annotations

import functools
import http.client
import json
import math
import shutil
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from deploy.standalone import images
from tests.machine.dockershim import PROGRAMS, load_images
from tests.machine.units import prepare_containerd, run, write_cni
from tests.machine.waiting import CALL_SECONDS, until

CLUSTER = Path("/root/cluster")
NODE = "machine"
STATE = Path("/var/lib/resources-test")
KUBEPODS = Path("/sys/fs/cgroup/kubepods.slice")
KUBE_SLICE, SYSTEM_SLICE = "kubereserved.slice", "system.slice"
SWAP_FILE = Path("/resources-test.swap")
CONTAINERD_SOCKET, SHIM_SOCKET = "/run/containerd/containerd.sock", f"{STATE}/dockershim.sock"
MI = 1024 * 1024
PAGE = 4096
THROTTLING = 0.5
SWAP_BYTES = 256 * MI
KUBE_RESERVED = {"cpu": "100m", "memory": "256Mi", "pid": "1000"}
SYSTEM_RESERVED = {"cpu": "500m", "memory": "2Gi", "pid": "3000"}
SETTINGS: Mapping[str, Any] = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "cgroupDriver": "systemd",
    "failSwapOn": False,
    "memorySwap": {"swapBehavior": "LimitedSwap"},
    "memoryThrottlingFactor": THROTTLING,
    "memoryReservationPolicy": "TieredReservation",
    "enforceNodeAllocatable": ["pods", "system-reserved", "kube-reserved"],
    "kubeReserved": KUBE_RESERVED,
    "systemReserved": SYSTEM_RESERVED,
    "kubeReservedCgroup": f"/{KUBE_SLICE}",
    "systemReservedCgroup": "/system",
    "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
}

until_seen = functools.partial(until, every_seconds=2.0)  # each look is a TLS handshake on an emulated processor


class Api:
    """The API server, as its administrator."""

    def __init__(self) -> None:
        config = json.loads((CLUSTER / "admin.kubeconfig").read_text())
        self._server = urlsplit(config["clusters"][0]["cluster"]["server"])
        self._context = ssl.create_default_context(cafile=str(CLUSTER / "ca.crt"))
        self._context.load_cert_chain(CLUSTER / "admin.crt", CLUSTER / "admin.key")

    def request(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> tuple[int, Any]:
        """Status and decoded answer."""
        connection = http.client.HTTPSConnection(
            str(self._server.hostname), self._server.port, context=self._context, timeout=CALL_SECONDS
        )
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def done(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> Any:
        """The answer of a request that must not be refused."""
        status, answer = self.request(method, path, body, kind=kind)
        assert status < 300, answer
        return answer


class Node:
    """kubelet-py on one of the runtimes, and the pods that it is given."""

    def __init__(self, runtime: str) -> None:
        self.runtime = runtime
        self.api = Api()
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Returns when the node is Ready."""
        STATE.mkdir()
        release_reservations()
        endpoint = CONTAINERD_SOCKET
        if self.runtime == "docker":
            endpoint = SHIM_SOCKET
            self._popen(
                "dockershim", f"--container-runtime-endpoint=unix://{endpoint}", f"--root-directory={STATE}/shim",
                f"--pod-infra-container-image={images.PAUSE}", "--network-plugin=cni",
            )  # fmt: skip
        config = STATE / "config.yaml"
        config.write_text(json.dumps({**SETTINGS, "containerRuntimeEndpoint": f"unix://{endpoint}"}))
        self._popen(
            "kubelet-py", f"--config={config}", f"--kubeconfig={CLUSTER}/node.kubeconfig",
            f"--hostname-override={NODE}", f"--root-dir={STATE}/kubelet",
        )  # fmt: skip
        until_seen(self._is_ready)

    def _popen(self, program: str, *flags: str) -> None:
        log = (STATE / f"{program}.log").open("wb")
        with log:
            self.processes.append(subprocess.Popen([PROGRAMS / program, *flags], stdout=log, stderr=log))

    def _is_ready(self) -> bool:
        for process in self.processes:
            assert process.poll() is None, "it has ended"
        conditions = self.node().get("status", {}).get("conditions", ())
        return any((each["type"], each["status"]) == ("Ready", "True") for each in conditions)

    def node(self) -> dict[str, Any]:
        """As the API server has it; empty when it does not."""
        status, found = self.api.request("GET", f"/api/v1/nodes/{NODE}")
        return found if status == 200 else {}

    def stop(self) -> None:
        """Pods first."""
        for pod in self.api.done("GET", "/api/v1/namespaces/default/pods")["items"]:
            self.api.done("DELETE", f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}")
        until_seen(lambda: not self.api.done("GET", "/api/v1/namespaces/default/pods")["items"])
        for process in reversed(self.processes):
            process.terminate()
            process.wait(CALL_SECONDS)
        self.api.done("DELETE", f"/api/v1/nodes/{NODE}")
        self.api.done("DELETE", "/api/v1/namespaces/default/events")  # the next node has the same name

    def pod(self, name: str, resources: Mapping[str, Any], policy: Sequence[Mapping[str, str]] = ()) -> Pod:
        """One that is Ready."""
        pod = self.create(name, resources, policy)
        until_seen(pod.is_ready)
        return pod

    def create(self, name: str, resources: Mapping[str, Any], policy: Sequence[Mapping[str, str]] = ()) -> Pod:
        """One that is not waited for."""
        container = {
            "name": "c", "image": images.HELLO, "imagePullPolicy": "Never", "resources": resources,
            "resizePolicy": list(policy),
        }  # fmt: skip
        spec = {
            "nodeName": NODE, "containers": [container], "terminationGracePeriodSeconds": 1, "dnsPolicy": "Default",
            "automountServiceAccountToken": False, "tolerations": [{"operator": "Exists"}],
        }  # fmt: skip
        body = {"metadata": {"name": f"{name}-{self.runtime}"}, "spec": spec}
        self.api.done("POST", "/api/v1/namespaces/default/pods", body)
        return Pod(self, f"{name}-{self.runtime}")


class Pod:
    """A pod of the node's, with one container."""

    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.path = f"/api/v1/namespaces/default/pods/{name}"

    def get(self) -> dict[str, Any]:
        """As the API server has it."""
        found: dict[str, Any] = self.node.api.done("GET", self.path)
        return found

    def is_ready(self) -> bool:
        """It has started and serves."""
        conditions = self.get()["status"].get("conditions", ())
        return any((each["type"], each["status"]) == ("Ready", "True") for each in conditions)

    def container(self) -> tuple[str, int]:
        """The id of its container and how often that was restarted."""
        status = self.get()["status"]["containerStatuses"][0]
        return status["containerID"].rpartition("/")[2], status["restartCount"]

    def cgroup(self) -> Path:
        """Its slice."""
        found = self.get()
        qos, uid = found["status"]["qosClass"].lower(), found["metadata"]["uid"].replace("-", "_")
        if qos == "guaranteed":
            return KUBEPODS / f"kubepods-pod{uid}.slice"
        return KUBEPODS / f"kubepods-{qos}.slice" / f"kubepods-{qos}-pod{uid}.slice"

    def container_cgroup(self) -> Path:
        """Its container's scope."""
        identifier = self.container()[0]
        (found,) = (each for each in self.cgroup().glob("*.scope") if identifier in each.name)
        return found

    def resize(self, resources: Mapping[str, Any]) -> None:
        """And wait until its status says that it has been done."""
        patch = {"spec": {"containers": [{"name": "c", "resources": resources}]}}
        kind = "application/strategic-merge-patch+json"
        generation = self.node.api.done("PATCH", f"{self.path}/resize", patch, kind=kind)["metadata"]["generation"]
        until_seen(lambda: self._is_resized(generation, resources))

    def _is_resized(self, generation: int, resources: Mapping[str, Any]) -> bool:
        status = self.get()["status"]
        resizing = [each for each in status["conditions"] if each["type"].startswith("PodResize")]
        assert not [each for each in resizing if each.get("reason") in ("Error", "Infeasible")], resizing
        return (
            status.get("observedGeneration", 0) >= generation
            and not resizing
            and status["containerStatuses"][0].get("resources") == resources
        )


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """Images for both runtimes, swap, and a slice for the daemons of Kubernetes."""
    assert Path("/proc/1/comm").read_text().strip() == "systemd"
    for unit in ("kubelet-py.service", "dockershim.socket", "dockershim.service"):
        subprocess.run(["systemctl", "stop", unit], check=False, capture_output=True)  # where another test left them
    write_cni()
    prepare_containerd()
    run("systemctl", "start", "docker")
    load_images()
    run("fallocate", "--length", str(SWAP_BYTES), str(SWAP_FILE))
    SWAP_FILE.chmod(0o600)
    run("mkswap", str(SWAP_FILE))
    run("swapon", str(SWAP_FILE))
    run("systemd-run", "--slice", KUBE_SLICE, "--unit", "kubereserved-holder", "sleep", "infinity")
    yield
    run("systemctl", "stop", "kubereserved-holder")
    run("swapoff", str(SWAP_FILE))
    SWAP_FILE.unlink()


@pytest.fixture(scope="module", params=["docker", "containerd"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node for all tests of a runtime."""
    started = Node(request.param)
    try:
        started.start()
        yield started
    finally:
        for file in sorted(STATE.glob("*.log")):
            print(f"{file.name} of {started.runtime}:", *file.read_text().splitlines()[-60:], sep="\n")
        started.stop()
        shutil.rmtree(STATE)


# Resize in place


def test_a_guaranteed_pod_is_resized_up_and_down(node: Node) -> None:
    """Both of its cgroups have the new limits at once and keep them; its container runs on."""
    pod = node.pod("guaranteed", both(100, 64))
    before = pod.container()
    for milli_cpu, memory_mi in ((100, 64), (250, 96), (150, 48)):
        if milli_cpu != 100:
            pod.resize(both(milli_cpu, memory_mi))
        shares = milli_cpu * 1024 // 1000
        limits = {
            "memory.max": str(memory_mi * MI),
            "cpu.max": f"{milli_cpu * 100} 100000",
            "cpu.weight": str(1 + (shares - 2) * 9999 // 262142),
            "memory.min": str(memory_mi * MI),
        }
        assert_holds({pod.cgroup(): limits, pod.container_cgroup(): {**limits, "memory.swap.max": "0"}})
        assert pod.container() == before


def test_a_container_that_wants_a_restart_for_memory_has_one(node: Node) -> None:
    """And none for its CPU time. Burstable, with the rest that comes with it: throttling and a part of the swap."""
    policy = [
        {"resourceName": "cpu", "restartPolicy": "NotRequired"},
        {"resourceName": "memory", "restartPolicy": "RestartContainer"},
    ]
    pod = node.pod("restarts", burstable(100, 200, 64, 128), policy)
    (first, _) = pod.container()
    assert_holds(burstable_limits(pod, 100, 200, 64, 128))
    pod.resize(burstable(200, 300, 64, 128))
    assert pod.container() == (first, 0)
    assert_holds(burstable_limits(pod, 200, 300, 64, 128))
    pod.resize(burstable(200, 300, 96, 192))
    (second, restarts) = pod.container()
    assert (second != first, restarts) == (True, 1)
    assert_holds(burstable_limits(pod, 200, 300, 96, 192))


# Swap and kept memory


def test_each_class_has_its_part_of_the_swap_and_its_memory_kept(node: Node) -> None:
    """LimitedSwap, the throttling factor and TieredReservation, of containers, pods and classes."""
    guaranteed = node.create("kept", both(100, 32))
    burstable_pod = node.create("kept-low", burstable(100, 200, 48, 80))
    best_effort = node.create("best-effort", {})
    open_ended = node.create("open-ended", {"requests": {"memory": f"{16 * MI}"}})
    for pod in (guaranteed, burstable_pod, best_effort, open_ended):
        until_seen(pod.is_ready)
    allocatable = quantity(node.node()["status"]["allocatable"]["memory"])
    assert_holds(
        {
            guaranteed.container_cgroup(): {
                "memory.min": str(32 * MI), "memory.low": "0", "memory.high": "max", "memory.swap.max": "0",
            },
            guaranteed.cgroup(): {"memory.min": str(32 * MI), "memory.low": "0", "memory.high": "max"},
            **burstable_limits(burstable_pod, 100, 200, 48, 80),
            best_effort.container_cgroup(): {
                "memory.min": "0", "memory.low": "0", "memory.swap.max": "0", "memory.max": "max",
                "memory.high": throttled(0, allocatable),
            },
            best_effort.cgroup(): {"memory.max": "max", "memory.min": "0", "memory.low": "0", "cpu.weight": "1"},
            open_ended.container_cgroup(): {
                "memory.low": str(16 * MI), "memory.max": "max", "memory.high": throttled(16 * MI, allocatable),
                "memory.swap.max": swap_share(16 * MI),
            },
        }
    )  # fmt: skip
    low, least = requested(node, "Burstable"), requested(node, "Guaranteed")
    assert low >= 64 * MI
    assert least >= 32 * MI
    assert_holds(
        {
            KUBEPODS: {"memory.min": str(least + low), "memory.low": str(low)},
            KUBEPODS / "kubepods-burstable.slice": {"memory.min": "0", "memory.low": str(low)},
            KUBEPODS / "kubepods-besteffort.slice": {"memory.min": "0", "memory.low": "0"},
        }
    )


def test_a_container_swaps_no_more_than_its_part(node: Node) -> None:
    """The kernel moves its memory out when it reaches the throttling, and no more than that."""
    pod = node.pod("swaps", burstable(100, 1000, 32, 64))
    share = int(swap_share(32 * MI))
    assert PAGE < share < 16 * MI
    scope = pod.container_cgroup()
    pid = (scope / "cgroup.procs").read_text().split()[0]
    script = "mkdir /held; busybox mount -t tmpfs none /held; busybox dd if=/dev/zero of=/held/x bs=1M count=56"
    # in the container's cgroup and mounts, with the rights of the node: a tmpfs counts as memory that can be swapped
    held = ["sh", "-c", 'echo $$ >"$0"/cgroup.procs && exec nsenter --target "$1" --mount /bin/busybox sh -c "$2"']
    process = subprocess.Popen([*held, str(scope), pid, script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until_seen(lambda: int((scope / "memory.swap.current").read_text()) > 0)
        assert int((scope / "memory.swap.current").read_text()) <= share
    finally:
        process.kill()
        process.wait()


# Reserved cgroups


def release_reservations() -> None:
    """What an earlier node has set, or systemd by itself, so that only this one can have set what is found later."""
    # it is the agent's, which makes it anew; what is set here would be a drop-in that outranks the agent's own unit
    subprocess.run(["systemctl", "stop", KUBEPODS.name], check=False, capture_output=True)
    free = {"MemoryMax": "infinity", "MemoryMin": "0", "TasksMax": "infinity", "CPUWeight": "100"}
    for unit in (KUBE_SLICE, SYSTEM_SLICE):
        run("systemctl", "set-property", "--runtime", unit, *(f"{name}={value}" for name, value in free.items()))
    for unit in (KUBE_SLICE, SYSTEM_SLICE):
        assert read(Path("/sys/fs/cgroup", unit, "memory.max")) == "max"


def test_pods_and_daemons_are_held_to_what_is_reserved(node: Node) -> None:
    """The cgroup of all pods has the rest; the daemons' have theirs, which is kept for them too."""
    capacity = quantity(node.node()["status"]["capacity"]["memory"])
    milli_cpu = quantity(node.node()["status"]["capacity"]["cpu"]) * 1000 - 600
    assert_holds(
        {
            KUBEPODS: {
                "memory.max": str((capacity - 2304 * MI) // PAGE * PAGE),
                "cpu.weight": weight(milli_cpu),
                "pids.max": str(max_pids() - 4000),
            },
            Path("/sys/fs/cgroup", KUBE_SLICE): {
                "memory.max": str(256 * MI), "memory.min": str(256 * MI), "cpu.weight": weight(100),
                "pids.max": "1000",
            },
            Path("/sys/fs/cgroup", SYSTEM_SLICE): {
                "memory.max": str(2048 * MI), "memory.min": str(2048 * MI), "cpu.weight": weight(500),
                "pids.max": "3000",
            },
        }
    )  # fmt: skip
    events = node.api.done("GET", "/api/v1/namespaces/default/events")["items"]
    said = {each["message"] for each in events if each["reason"] == "NodeAllocatableEnforced"}
    assert said >= {
        "Updated Node Allocatable limit across pods",
        f"Updated limits on kube reserved cgroup /{KUBE_SLICE}",
        "Updated limits on system reserved cgroup /system",
    }


# What is expected


def both(milli_cpu: int, memory_mi: int) -> dict[str, Any]:
    """Requests and limits alike, as the API server writes them."""
    amounts = {"cpu": f"{milli_cpu}m", "memory": f"{memory_mi}Mi"}
    return {"limits": amounts, "requests": amounts}


def burstable(milli_cpu: int, most_milli_cpu: int, memory_mi: int, most_memory_mi: int) -> dict[str, Any]:
    """Requests, and limits above them."""
    most_cpu = f"{most_milli_cpu}m" if most_milli_cpu % 1000 else str(most_milli_cpu // 1000)
    return {
        "limits": {"cpu": most_cpu, "memory": f"{most_memory_mi}Mi"},
        "requests": {"cpu": f"{milli_cpu}m", "memory": f"{memory_mi}Mi"},
    }


def burstable_limits(
    pod: Pod, milli_cpu: int, most_milli_cpu: int, memory_mi: int, most_memory_mi: int
) -> dict[Path, dict[str, str]]:
    """The files of such a pod and its container."""
    limits = {
        "memory.max": str(most_memory_mi * MI),
        "cpu.max": f"{most_milli_cpu * 100} 100000",
        "cpu.weight": weight(milli_cpu),
        "memory.min": "0",
        "memory.low": str(memory_mi * MI),
    }
    throttling = throttled(memory_mi * MI, most_memory_mi * MI)
    swap = swap_share(memory_mi * MI)
    return {
        pod.cgroup(): {**limits, "memory.high": "max"},
        pod.container_cgroup(): {**limits, "memory.high": throttling, "memory.swap.max": swap},
    }


def weight(milli_cpu: int) -> str:
    """cpu.weight."""
    return str(1 + (milli_cpu * 1024 // 1000 - 2) * 9999 // 262142)


def throttled(request_bytes: int, limit_bytes: int) -> str:
    """memory.high."""
    return str(math.floor(request_bytes + (limit_bytes - request_bytes) * THROTTLING) // PAGE * PAGE)


def swap_share(request_bytes: int) -> str:
    """memory.swap.max: of the node's swap as much as the container requests of its memory."""
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines()}
    share = int(request_bytes / found["MemTotal"] * found["SwapTotal"])
    return str(share // PAGE * PAGE)


def requested(node: Node, qos_class: str) -> int:
    """What the pods of a class request in all, bytes of memory."""
    pods = node.api.done("GET", "/api/v1/namespaces/default/pods")["items"]
    asked = [pod["spec"]["containers"][0]["resources"] for pod in pods if pod["status"]["qosClass"] == qos_class]
    return sum(quantity(each.get("requests", {}).get("memory", "0")) for each in asked)


def max_pids() -> int:
    """How many processes the machine can have."""
    files = ("/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max")
    return min(int(Path(file).read_text()) for file in files)


def quantity(text: str) -> int:
    """Of those that are used here."""
    units = {"Ki": 1024, "Mi": MI, "Gi": 1024 * MI}
    return int(text[:-2]) * units[text[-2:]] if text[-2:] in units else int(text)


def assert_holds(wanted: Mapping[Path, Mapping[str, str]]) -> None:
    """The files say so, and still do when systemd has been reloaded."""
    for moment in ("now", "after a reload"):
        found = {place: {name: read(place / name) for name in files} for place, files in wanted.items()}
        assert found == wanted, moment
        if moment == "now":
            run("systemctl", "daemon-reload")


def read(file: Path) -> str:
    return file.read_text().strip()
