"""A node whose pods were made by cri-dockerd, or by the kubelet's own dockershim that it is a copy of, changes hands.

The peers are the real programs, cri-dockerd's newest release and that of Kubernetes 1.23, on a real Docker. What they
made is looked at through them, then through ours: nothing may differ that is not a deliberate difference, and nothing
may have been touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import Shim, eventually
from tests.integration.dockershim.peers import CriDockerd, KubeletDockershim, Peer
from tests.lab.engines.containerd import cni_configuration
from tests.lab.engines.docker import OOM_FLOOR, SETTINGS_FOR_PEERS
from tests.lab.lab import BUSYBOX, Lab

pytestmark = pytest.mark.lab

FORMER_ROOT = Path("/var/lib/cri-dockerd")
READY, NOTREADY = cri.PodSandboxState.SANDBOX_READY, cri.PodSandboxState.SANDBOX_NOTREADY
RUNNING, EXITED, CREATED = (
    cri.ContainerState.CONTAINER_RUNNING,
    cri.ContainerState.CONTAINER_EXITED,
    cri.ContainerState.CONTAINER_CREATED,
)
HOST_PORT = 8081
HANDLER = "other"
DOCKER_SETTINGS = {
    **SETTINGS_FOR_PEERS,
    "runtimes": {**SETTINGS_FOR_PEERS["runtimes"], HANDLER: {"path": str(OOM_FLOOR)}},
}
WRITE = "mkdir -p /etc/cni/net.d && cat > /etc/cni/net.d/10-lab.conflist"
LEFT = """
find "$@" /var/lib/cni/cache/results /var/lib/cni/networks -type f ! -name 'last_reserved_ip.*' ! -name lock || true
"""
OWN_LABELS = "io.kubernetes.dockershim."
ODD = {
    "example.com/text": 'quotes " and \\ and\nlines and ünïcode',
    "example.com/json": '{"a": ["b", {}]}',
    "empty": "",
    "annotation.inner": "looks encoded",
    "io.kubernetes.docker.kind": "looks internal",
}


@dataclass
class Pods:
    """What the peer made: pods and containers by what they are for."""

    sandboxes: dict[str, tuple[str, cri.PodSandboxConfig]] = field(default_factory=dict)
    containers: dict[str, str] = field(default_factory=dict)
    requests: dict[str, cri.ContainerConfig] = field(default_factory=dict)
    handlers: dict[str, str] = field(default_factory=dict)


@dataclass
class Seen:
    """What a runtime says of all there is, by id."""

    sandboxes: dict[str, cri.PodSandbox]
    sandbox_statuses: dict[str, cri.PodSandboxStatus]
    containers: dict[str, cri.Container]
    statuses: dict[str, cri.ContainerStatus]


@dataclass
class Node:
    """The node after it changed hands, and what was known of it before."""

    shim: Shim
    pods: Pods
    before: Seen
    inspected: dict[str, dict[str, Any]]


def configure(lab: Lab, peer: type[Peer]) -> None:
    """A network in the newest version that the peer reads."""
    text = json.loads(cni_configuration(lab.pod_network)) | {"cniVersion": peer.cni_version}
    lab.run(["sh", "-c", WRITE], text_input=json.dumps(text))


def see(shim: Shim) -> Seen:
    """All lists and statuses."""
    sandboxes = {item.id: item for item in shim.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items}
    containers = {item.id: item for item in shim.runtime.ListContainers(cri.ListContainersRequest()).containers}
    return Seen(
        sandboxes,
        {identifier: shim.sandbox_status(identifier) for identifier in sandboxes},
        containers,
        {identifier: shim.status(identifier) for identifier in containers},
    )


def comparable(messages: Mapping[str, Any]) -> dict[str, Any]:
    """Without what v1alpha2 has no field for, and without what is told otherwise on purpose.

    That is: labels of our own and of pause's image, which are not CRI's; the image reference, which has the peer's own
    form; the parts of a second in lists; an end before the start, as Docker tells it of containers that end at once;
    the runtime handler, which cri-dockerd gives a name where none was asked for; what has not happened, for which it
    has a time in 1754.
    """
    result = {}
    for identifier, message in messages.items():
        known = type(message)()
        known.CopyFrom(message)
        fields = known.DESCRIPTOR.fields_by_name
        for name in ("image_ref", "image_id", "resources", "user", "stop_signal", "runtime_handler"):
            if name in fields:
                known.ClearField(name)
        if "finished_at" in fields:
            known.started_at = max(known.started_at, 0)
            known.finished_at = max(known.finished_at, known.started_at) if known.finished_at > 0 else 0
        elif "network" not in fields:
            known.created_at -= known.created_at % 10**9
        for label in [key for key in known.labels if key == "version" or key.startswith(OWN_LABELS)]:
            del known.labels[label]
        result[identifier] = known
    return result


def log_ends_with(path: Path, line: str) -> bool:
    """Whether a log in CRI's format has this as its last line, after the time."""
    return not path.is_symlink() and path.exists() and path.read_text().endswith(f" {line}\n")


def inspect_all(shim: Shim) -> dict[str, dict[str, Any]]:
    """What Docker says, by id."""
    return {one["Id"]: one for one in json.loads(shim.lab.docker.client("inspect", *shim.docker_ids()))}


def run_sandbox(shim: Shim, config: cri.PodSandboxConfig, handler: str) -> str:
    """A running sandbox; its id."""
    request = cri.RunPodSandboxRequest(config=config, runtime_handler=handler)
    return str(shim.runtime.RunPodSandbox(request, timeout=60).pod_sandbox_id)


def make_pods(old: Peer) -> Pods:
    """A pod of each kind, as a kubelet would have them made: it always fills in the part on Linux."""
    pods = Pods()

    def sandbox(
        name: str, network: cri.NamespaceMode = cri.NamespaceMode.POD, handler: str = "", **fields: Any
    ) -> None:
        linux = cri.LinuxPodSandboxConfig()
        linux.security_context.namespace_options.network = network
        config = old.sandbox_config(linux=linux, **fields)
        for part in ("main", "side", "once", "later"):
            Path(config.log_directory, part).mkdir(parents=True)
        pods.handlers[name] = handler
        pods.sandboxes[name] = run_sandbox(old, config, handler), config

    def container(pod: str, name: str, script: str, attempt: int = 0, **fields: Any) -> str:
        sandbox_id, config = pods.sandboxes[pod]
        linux = fields.pop("linux", cri.LinuxContainerConfig())
        linux.security_context.namespace_options.CopyFrom(config.linux.security_context.namespace_options)
        labels = {"io.kubernetes.container.name": name, **config.labels, **fields.pop("labels", {})}
        fields |= {"labels": labels, "linux": linux, "log_path": f"{name}/{attempt}.log"}
        fields["metadata"] = cri.ContainerMetadata(name=name, attempt=attempt)
        request = cri.ContainerConfig(image=cri.ImageSpec(image=BUSYBOX), command=["sh", "-c", script], **fields)
        create = cri.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=request, sandbox_config=config)
        identifier = str(old.runtime.CreateContainer(create, timeout=60).container_id)
        pods.containers[f"{pod}/{name}"], pods.requests[f"{pod}/{name}"] = identifier, request
        return identifier

    ports = [cri.PortMapping(container_port=80, host_port=HOST_PORT)]
    sandbox("web", port_mappings=ports, dns_config=cri.DNSConfig(servers=["10.9.8.7"], searches=["pods.lab"]))
    serve = "echo before; mkdir /www; echo hello > /www/index.html; httpd -p 80 -h /www; while :; do sleep 1; done"
    old.start_container(container("web", "main", serve, annotations={"io.kubernetes.container.hash": "abc"}))
    data = old.lab.root / "pod-data"
    data.mkdir()
    mounts = [cri.Mount(container_path="/data", host_path=str(data), readonly=True)]
    limits = cri.LinuxContainerResources(cpu_shares=102, memory_limit_in_bytes=64 << 20)
    linux = cri.LinuxContainerConfig(resources=limits)
    old.start_container(container("web", "side", "exec sleep 1000", mounts=mounts, linux=linux))
    once = container("web", "once", "echo failed >&2; exit 3", attempt=1)
    old.start_container(once)
    old.wait_state(once, EXITED)
    container("web", "later", "echo now; exec sleep 1000")
    sandbox("odd", labels={"example.com/tier": "back"}, annotations=ODD)
    old.start_container(container("odd", "main", "exec sleep 1000", annotations=ODD, labels={"a.b/c": "d"}))
    sandbox("host", network=cri.NamespaceMode.NODE)
    old.start_container(container("host", "main", "exec sleep 1000"))
    if old.handlers:
        sandbox("handled", handler=HANDLER)
        old.start_container(container("handled", "main", "exec sleep 1000"))
    sandbox("stopped")
    old.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pods.sandboxes["stopped"][0]), timeout=60)
    return pods


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((CriDockerd, "29", "cni"), id="cri-dockerd-29-cni"),
        pytest.param((CriDockerd, "29", "bridge"), id="cri-dockerd-29-bridge"),
        pytest.param((KubeletDockershim, "20.10", "cni"), id="1.23-20.10-cni"),
        pytest.param((KubeletDockershim, "20.10", "bridge"), id="1.23-20.10-bridge"),
        pytest.param((KubeletDockershim, "29", "cni"), id="1.23-29-cni"),
    ],
)
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    peer, version, network = request.param
    with Lab.start(docker=version, docker_settings=DOCKER_SETTINGS) as lab:
        configure(lab, peer)
        old = peer(lab, "old", FORMER_ROOT, f"--network-plugin={'cni' if network == 'cni' else ''}")
        pods = make_pods(old)
        before = see(old)
        inspected = inspect_all(old)
        old.stop()
        shim = Shim(lab, "shim", None, f"--network-plugin={network}")
        yield Node(shim, pods, before, inspected)
        shim.stop()


def test_every_pod_is_shown_as_before(node: Node) -> None:
    """Id, name, uid, attempt, state, time, labels, annotations, address, namespaces; in the list and in the status."""
    now = see(node.shim)
    assert comparable(now.sandboxes) == comparable(node.before.sandboxes)
    assert comparable(now.sandbox_statuses) == comparable(node.before.sandbox_statuses)
    states = {name: now.sandboxes[identifier].state for name, (identifier, _) in node.pods.sandboxes.items()}
    assert states == {name: NOTREADY if name == "stopped" else READY for name in node.pods.sandboxes}
    for seen in (now.sandboxes, now.sandbox_statuses):
        handlers = {name: seen[identifier].runtime_handler for name, (identifier, _) in node.pods.sandboxes.items()}
        assert handlers == node.pods.handlers
    assert now.sandbox_statuses[node.pods.sandboxes["web"][0]].network.ip
    identifier, config = node.pods.sandboxes["odd"]
    assert dict(now.sandboxes[identifier].annotations) == dict(config.annotations)
    assert config.labels.items() <= now.sandboxes[identifier].labels.items()  # Docker adds those of pause's image


def test_every_container_is_shown_as_before(node: Node) -> None:
    """All but what the peer does not say or says otherwise on purpose; the image is one id everywhere."""
    now = see(node.shim)
    assert comparable(now.containers) == comparable(node.before.containers)
    assert comparable(now.statuses) == comparable(node.before.statuses)
    states = {name: now.statuses[identifier].state for name, identifier in node.pods.containers.items()}
    ended = {"web/once": EXITED, "web/later": CREATED}
    assert states == {name: ended.get(name, RUNNING) for name in states}
    once = now.statuses[node.pods.containers["web/once"]]
    assert (once.exit_code, once.metadata.attempt) == (3, 1)
    assert {one.image_id for one in now.statuses.values()} == {
        inspected["Image"] for key, inspected in node.inspected.items() if key in now.statuses
    }


def test_nothing_was_touched(node: Node) -> None:
    """The same processes since the same moment, and nothing beside them."""
    now = inspect_all(node.shim)
    assert {key: one["State"] for key, one in now.items()} == {key: one["State"] for key, one in node.inspected.items()}
    assert {key: one["RestartCount"] for key, one in now.items()} == dict.fromkeys(node.inspected, 0)


def test_a_log_is_whole_and_in_the_format_of_cri(node: Node) -> None:
    """What was a link to Docker's own file has all that was written before, of running and of ended containers."""
    for name, stream, text in (("web/main", "stdout", "before"), ("web/once", "stderr", "failed")):
        path = Path(node.shim.status(node.pods.containers[name]).log_path)
        eventually(partial(log_ends_with, path, f"{stream} F {text}"))
        assert [line.split(" ", 1)[1] for line in path.read_text().splitlines()] == [f"{stream} F {text}"]


def test_one_can_go_on_with_what_was_taken_over(node: Node) -> None:
    """Run a command in a container, start one that was only made, add one, see its log, reach the host port."""
    shim, pods = node.shim, node.pods
    address = shim.sandbox_status(pods.sandboxes["web"][0]).network.ip
    main = pods.containers["web/main"]
    assert f"inet {address}/" in shim.exec(main, "ip", "address").stdout.decode()
    assert "nameserver 10.9.8.7" in shim.exec(main, "cat", "/etc/resolv.conf").stdout.decode()
    assert shim.exec(main, "sh", "-c", "exit 4").exit_code == 4
    later = pods.containers["web/later"]
    shim.start_container(later)
    again = shim.run(pods.sandboxes["web"], "echo again; exec sleep 1000", metadata=cri.ContainerMetadata(name="again"))
    for identifier, text in ((later, "now"), (again, "again")):
        path = Path(shim.wait_state(identifier, RUNNING).log_path)
        eventually(partial(log_ends_with, path, f"stdout F {text}"))
    assert f"inet {address}/" in shim.exec(again, "ip", "address").stdout.decode()
    assert "nameserver 10.9.8.7" in shim.exec(again, "cat", "/etc/resolv.conf").stdout.decode()
    reached = shim.lab.run(["wget", "-q", "-O", "-", f"http://{shim.lab.node_address}:{HOST_PORT}/"])
    assert reached.stdout == "hello\n"


def test_a_new_container_runs_on_the_handler_that_its_pod_was_made_with(node: Node) -> None:
    """Without the pod's annotations: such a runtime learned of no pod when the sandbox was made, and joins none now."""
    for name, handler in node.pods.handlers.items():
        if name == "stopped":
            continue
        more = node.shim.run(node.pods.sandboxes[name], "exec sleep 1000", metadata=cri.ContainerMetadata(name="more"))
        [described] = json.loads(node.shim.lab.docker.client("inspect", more))
        assert described["HostConfig"]["Runtime"] == (handler or DOCKER_SETTINGS["default-runtime"])
        assert not described["HostConfig"].get("Annotations")


def test_it_is_removed_without_a_trace(node: Node) -> None:
    """Containers, addresses, the host port, checkpoints, results of plugins, logs' links."""
    shim = node.shim
    shim.remove_all()
    assert shim.docker_ids() == []
    assert str(HOST_PORT) not in shim.lab.run(["iptables-save", "-t", "nat"]).stdout
    left = shim.lab.run(["sh", "-c", LEFT, "sh", str(FORMER_ROOT / "sandbox"), str(shim.root / "sandbox")]).stdout
    assert left == ""


@pytest.mark.parametrize(
    ("peer", "version"), [(CriDockerd, "29"), (KubeletDockershim, "20.10"), (KubeletDockershim, "29")]
)
def test_both_write_the_same_names_and_labels(peer: type[Peer], version: str) -> None:
    """One request to both, byte for byte; ours may have labels of its own. The peer shows our pods as we do."""
    with Lab.start(docker=version, docker_settings=DOCKER_SETTINGS) as lab:
        configure(lab, peer)
        old = peer(lab, "old", FORMER_ROOT, "--network-plugin=cni")
        pods = make_pods(old)
        theirs = {one["Name"]: one["Config"]["Labels"] for one in inspect_all(old).values()}
        for identifier, _ in pods.sandboxes.values():
            old.remove_sandbox(identifier)
        assert old.docker_ids() == []
        shim = Shim(lab, "shim", None, "--network-plugin=cni")
        again = Pods()
        for name, (_, config) in pods.sandboxes.items():
            again.sandboxes[name] = run_sandbox(shim, config, pods.handlers[name]), config
        for name, request in pods.requests.items():
            sandbox = again.sandboxes[name.partition("/")[0]]
            shim.runtime.CreateContainer(
                cri.CreateContainerRequest(pod_sandbox_id=sandbox[0], config=request, sandbox_config=sandbox[1]),
                timeout=60,
            )
        ours = {one["Name"]: one["Config"]["Labels"] for one in inspect_all(shim).values()}
        sandbox_ids = {again.sandboxes[name][0]: identifier for name, (identifier, _) in pods.sandboxes.items()}
        for labels in ours.values():
            for key in [key for key in labels if key.startswith(OWN_LABELS)]:
                del labels[key]
            if "io.kubernetes.sandbox.id" in labels:
                labels["io.kubernetes.sandbox.id"] = sandbox_ids[labels["io.kubernetes.sandbox.id"]]
        assert ours == theirs
        mine, others = see(shim), see(old)
        assert comparable(others.sandboxes) == comparable(mine.sandboxes)
        assert [one.network for one in others.sandbox_statuses.values()] == [
            mine.sandbox_statuses[identifier].network for identifier in others.sandbox_statuses
        ]
        for identifier, container in others.containers.items():
            # nobody has looked at ours since they were asked for, which was just before Docker made them
            assert 0 < mine.containers[identifier].created_at < container.created_at + 10**9
        for seen in (mine, others):
            for container in seen.containers.values():
                container.ClearField("created_at")
                container.ClearField("image")  # by its id for the peer: that is what ours are made with
        assert comparable(others.containers) == comparable(mine.containers)
        shim.remove_all()
        shim.stop()
        old.stop()
