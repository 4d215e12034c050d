"""`python -m tests.lab`: a lab for a person at a terminal.

Owns the command line. `up` (the default) shows what it does while it does it, prints what to try next, and ends
everything on Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.lab import debian, gokubelet, gotools, node, sandbox
from tests.lab.cluster import Cluster
from tests.lab.engines import containerd, docker
from tests.lab.images import catalog
from tests.lab.janitor import STATE_NAME
from tests.lab.lab import BUSYBOX, Lab
from tests.lab.paths import labs_dir
from tests.lab.process import LabError
from tests.lab.progress import say, step

DEBIAN_PACKAGES = dict.fromkeys(
    (*docker.DEBIAN_PACKAGES, *containerd.DEBIAN_PACKAGES, "docker-registry", "gcc", "libc6-dev")
)
NODE = "node-1"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description="Real engines and clusters in seconds.")
    commands = parser.add_subparsers(dest="command")
    up = commands.add_parser("up", help="a cluster with one node, until Ctrl-C (the default)")
    up.add_argument("--node", choices=("kubelet-py", "go", "none"), default="kubelet-py")
    up.add_argument("--runtime", choices=("docker", "containerd"), default="docker")
    up.add_argument("--docker", choices=docker.VERSIONS, default="20.10")
    up.add_argument("--containerd", choices=containerd.VERSIONS, default="1.6")
    up.add_argument("--port", type=int, default=0, help="the API server's port on the machine's loopback")
    build = commands.add_parser("build", help="install and build what tests use, or just these tools")
    build.add_argument("tools", nargs="*", metavar="TOOL", help=", ".join(gotools.GO_TOOLS))
    commands.add_parser("prepare", help="all that `make test` uses: Debian packages, tools, images")
    images = commands.add_parser("images", help="make test images")
    images.add_argument("references", nargs="*", metavar="IMAGE")
    shell = commands.add_parser("shell", help="a shell in a running lab (the only one, or the one with this id)")
    shell.add_argument("id", nargs="?")
    commands.add_parser("list", help="the labs that run")
    commands.add_parser("sweep", help="remove what crashed labs left")
    return parser


def running() -> dict[str, dict[str, object]]:
    """The state of every lab whose first process lives, by id."""
    found = {}
    for file in sorted(labs_dir().glob(f"*/{STATE_NAME}")):
        state = json.loads(file.read_text())
        if Path(f"/proc/{state.get('first', 0)}").exists():
            found[file.parent.name] = state
    return found


def _up(arguments: argparse.Namespace) -> None:
    uses_docker = arguments.runtime == "docker" and arguments.node != "none"
    with step("starting the engines and the registry"):
        lab = Lab.start(
            docker=arguments.docker if uses_docker else None,
            containerd=None if uses_docker or arguments.node == "none" else arguments.containerd,
            registry=[reference for reference in catalog.IMAGES if "agnhost" not in reference],
        )
    with lab:
        with step("starting etcd, kube-apiserver, kube-controller-manager and kube-scheduler"):
            cluster = Cluster.start(lab)
        if arguments.node != "none":
            with step(f"starting the node {NODE} ({arguments.node} on {arguments.runtime})"):
                endpoint = node.start_dockershim(lab).socket if uses_docker else lab.containerd_socket
                start = gokubelet.start if arguments.node == "go" else node.start_kubelet_py
                start(cluster, endpoint, node=NODE)
        _tell(lab, cluster, arguments.port)
        ends = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # not earlier: what is started inherits the mask
        signal.sigwait(ends)
        say("stopping")
    say("stopped; nothing is left")


def _tell(lab: Lab, cluster: Cluster, port: int) -> None:
    kubectl = gotools.tool_path("kubectl")
    print(cluster.kubectl("get", "nodes", "--output=wide"))
    print(f"A cluster runs. Ctrl-C ends it and all that is in it; logs are in {lab.logs}. Try, in another terminal:")
    print(f"  export KUBECONFIG={cluster.outside_kubeconfig(port)} PATH=$PATH:{kubectl.parent}")
    print(f"  kubectl run hello --image={BUSYBOX} -- sh -c 'while date; do sleep 1; done'")
    print("  kubectl logs --follow hello")
    print(f"  {sys.executable} -m tests.lab shell {lab.id}")


def _build(tools: Sequence[str]) -> None:
    if not tools:
        debian.ensure(*DEBIAN_PACKAGES)
    for name in tools or gotools.USED_BY_TESTS:
        print(gotools.ensure(name))


def _images(references: Sequence[str]) -> None:
    for reference in references or catalog.IMAGES:
        catalog.manifest(reference)
        print(reference)


def _shell(wanted: str | None) -> None:
    labs = running()
    if wanted is None and len(labs) != 1:
        raise LabError(f"{len(labs)} labs run{': ' if labs else ''}{', '.join(labs)}; name the one you mean")
    state = labs.get(wanted or next(iter(labs)))
    if state is None:
        raise LabError(f"no lab {wanted!r} runs; there are: {', '.join(labs) or 'none'}")
    tools = [str(gotools.tool_path(name).parent) for name in ("kubectl", "crictl")]
    os.environ["PATH"] = ":".join([sandbox.BASE_PATH, *tools])
    os.environ["PS1"] = r"lab \w # "
    command = sandbox.enter_command(int(str(state["first"])), ["bash", "--norc"])
    os.execvp(command[0], command)


def main() -> int:
    """Run one command; a lab's trouble is one message and exit code 1."""
    arguments = _parser().parse_args(sys.argv[1:] or ["up"])
    try:
        if arguments.command == "up":
            _up(arguments)
        elif arguments.command == "build":
            _build(arguments.tools)
        elif arguments.command == "prepare":
            _build(())
            _images(())
        elif arguments.command == "images":
            _images(arguments.references)
        elif arguments.command == "shell":
            _shell(arguments.id)
        elif arguments.command == "list":
            for name, state in running().items():
                print(f"{name}  first process {state['first']}, owner {state['owner']}, files {labs_dir() / name}")
        else:
            print("\n".join(sandbox.sweep()) or "nothing to sweep")
    except (LabError, gotools.BuildError, debian.PackageError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
