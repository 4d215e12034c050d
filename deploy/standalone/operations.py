"""The steps of `up` and of `down`, each of which can be taken again without harm."""

import json
import os
import shutil
import socket
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any

import grpc

from deploy.standalone import agents, daemons, engines, machine, pods
from deploy.standalone.console import StandaloneError, say, step
from deploy.standalone.node import COMMAND, DATA, LOGS, MANIFESTS, RUN, Record, load_record
from kubelet_py.cli.table import pod_table
from tests.lab import debian

READY_SECONDS = 120.0
AGAIN_SECONDS = 15.0


def up(runtime: str) -> None:
    """A node with one pod, in the order in which its parts need each other."""
    _check_root()
    record = load_record() or Record(runtime)
    if record.runtime != runtime:
        raise StandaloneError(f"a node on {record.runtime} is there already: type `make down` first")
    say(f"Bringing up a node on {runtime}: no API server, no registry, state in {DATA} and {RUN}.")
    missing = debian.missing(*engines.packages(runtime))
    if runtime == "docker" and engines.host_docker_answers():
        missing = debian.missing("busybox-static")
    if missing:
        debian.ensure(*missing)
    _prepare(record)
    _start_runtime(record)
    with step("making the images pause and hello from busybox"):
        engines.load_images(record)
    agents.write_example()
    agents.write_command()
    with step("starting kubelet-py"):
        agents.start_kubelet(record)
    with step("waiting until the pod is Ready"):
        _wait_until_ready(record)
    _show()


def down() -> None:
    """The way back, from whatever point `up` came to."""
    _check_root()
    record = load_record()
    if record is None:
        say("Nothing is up: there is nothing to take down.")
        _remove_leftovers()
        return
    say(f"Taking down the node on {record.runtime}.")
    with step("stopping kubelet-py"):
        daemons.stop(record, "kubelet-py")
    _remove_pods(record)
    if record.runtime == "docker" and not record.own_docker:
        with step("removing what was put into the Docker of this machine"):
            engines.remove_images(record)
            engines.remove_networks(record)
    for name in ("dockershim", "dockerd", "containerd"):
        if daemons.find(record, name):
            with step(f"stopping {name}"):
                daemons.stop(record, name)
    with step("removing mounts, cgroups, links, packet filter rules and files"):
        machine.restore(record.before)
    say("Nothing is left of it. Debian packages and the cache stay.")


def _check_root() -> None:
    if os.geteuid() != 0:
        raise StandaloneError("a node needs root: type it with sudo")


def _prepare(record: Record) -> None:
    """Look at the machine before anything is changed, once."""
    if not record.before:
        for port in (agents.PORT, agents.READ_ONLY_PORT, agents.HEALTHZ_PORT):
            if _port_in_use(port):
                raise StandaloneError(f"port {port} is in use, perhaps by another kubelet: stop it first")
        record.own_docker = record.runtime == "docker" and not engines.host_docker_answers()
        record.before = machine.snapshot() | {"docker_networks": engines.networks(record)}
        record.save()
    for directory in (RUN, DATA, LOGS):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)


def _start_runtime(record: Record) -> None:
    if record.runtime == "containerd":
        with step("starting containerd"):
            engines.start_containerd(record)
    elif record.own_docker:
        with step("starting Docker"):
            engines.start_docker(record)
    else:
        say("  using the Docker that runs on this machine")
    if record.runtime == "docker":
        with step("starting dockershim"):
            agents.start_dockershim(record)
    with step("waiting for the runtime"):
        agents.wait_for_runtime(record)
    if not daemons.find(record, "kubelet-py"):
        _refuse_foreign_pods(record)


def _refuse_foreign_pods(record: Record) -> None:
    """A node agent removes pods it does not know, so a runtime that somebody else uses is not touched."""
    ours = {path.stem for path in MANIFESTS.glob("[!.]*")}
    foreign = [
        name for name in pods.names(record.endpoint) if not any(name.startswith(f"default/{our}") for our in ours)
    ]
    if foreign and not record.own_docker and record.runtime == "docker":
        raise StandaloneError(
            f"this Docker runs pods of another node agent, which would be removed: {', '.join(foreign)}"
        )


def _port_in_use(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _wait_until_ready(record: Record) -> None:
    def ready() -> bool:
        listed = list_pods()
        return bool(listed) and all(_is_ready(pod) for pod in listed)

    daemons.wait_for(record, "kubelet-py", "a Ready pod", ready, READY_SECONDS)


def list_pods() -> list[dict[str, Any]]:
    """The pods as kubelet-py shows them on its read-only port; none while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{agents.READ_ONLY_PORT}/pods", timeout=5) as reply:
            items: list[dict[str, Any]] = json.load(reply).get("items") or []
    except (urllib.error.URLError, OSError, ValueError):
        return []
    return items


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _show() -> None:
    listed = list_pods()
    say()
    say(pod_table(listed, datetime.now(UTC)))
    address = next((pod["status"]["podIP"] for pod in listed if pod.get("status", {}).get("podIP")), "POD_IP")
    say()
    say("Three things to try next")
    say("  talk to the pod:")
    say(f"    busybox wget -qO- http://{address}:{agents.POD_PORT}")
    say("  read what it says, and look into it:")
    say(f"    {COMMAND} logs hello; {COMMAND} exec hello -- ps")
    say("  run a second pod (a file in that directory is a pod):")
    say(f"    sed s/hello$/second/ {MANIFESTS}/hello.yaml > {MANIFESTS}/second.yaml; sleep 3; {COMMAND} get pods")
    say()
    say("`make down` removes all of it.")


def _remove_pods(record: Record) -> None:
    """Through the CRI, so that the runtime undoes networks and mounts itself; where it cannot, by the engine."""
    engine = record.docker_socket if record.runtime == "docker" else record.endpoint
    if not engines.accepts(engine):
        return  # what the engine left running is found by its cgroups and directories
    if record.runtime == "docker" and not pods.answers(record.endpoint):
        with step("starting dockershim again, to remove the pods"):
            agents.start_dockershim(record)
            runtime_answers(record, AGAIN_SECONDS)
    try:
        with step("removing the pods"):
            pods.remove_all(record.endpoint)
    except grpc.RpcError as error:
        say(f"  the runtime cannot ({error.code().name}); asking the engine instead")
        with step("removing the containers"):
            engines.remove_containers(record)


def runtime_answers(record: Record, timeout_seconds: float) -> bool:
    """Whether the CRI endpoint is ready within the time."""
    try:
        daemons.wait_for(
            record, "dockershim", "a ready runtime", lambda: pods.answers(record.endpoint), timeout_seconds
        )
    except StandaloneError:
        return False
    return True


def _remove_leftovers() -> None:
    """Directories of an `up` that was interrupted before it wrote anything down."""
    for directory in (RUN, DATA):
        shutil.rmtree(directory, ignore_errors=True)
