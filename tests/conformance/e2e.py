"""`make conformance RUNTIME=docker|containerd`: the e2e suite of Kubernetes against a cluster whose only node is ours.

Without further choice these are the specs of test/e2e/common with [NodeConformance] that are not [Serial], [Slow] or
[Disruptive]. SPECS=slow and SPECS=serial are those of test/e2e/common/node that take long or want the node for
themselves, without those whose features are alpha and off; SPECS=auth those of test/e2e/auth about certificates that
the cluster gives to pods; SPECS=node and SPECS=node-serial those of the node suite, test/e2e_node: the second restart
the agent. Makes a lab with the registry of test images, tells each spec that ends, and compares with e2e.toml or
e2e_node.toml. Writes report.json, junit.xml, summary.md and the logs of all programs below tests/conformance/out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.conformance import ginkgo, verdict
from tests.lab import gokubelet, gotools, node
from tests.lab.cluster import Cluster
from tests.lab.engines import containerd, docker
from tests.lab.images import catalog
from tests.lab.lab import Lab
from tests.lab.process import LabError, LabProcess
from tests.lab.progress import say, step
from tests.lab.unit import Unit

HERE = Path(__file__).resolve().parent
LIST, NODE_LIST = HERE / "e2e.toml", HERE / "e2e_node.toml"
OUT = HERE / "out"
NODE = "node-1"
AGENTS = ("kubelet-py", "go")
SPECS = {
    "conformance": ginkgo.Choice("NodeConformance && !Serial && !Slow && !Disruptive", "test/e2e/common/"),
    "slow": ginkgo.Choice("Slow && !Disruptive && !Alpha", "test/e2e/common/node/"),
    "serial": ginkgo.Choice("Serial && !Disruptive && !Alpha", "test/e2e/common/node/"),
    "auth": ginkgo.Choice("Conformance", "test/e2e/auth/(projected_|podcert)"),
    "node": ginkgo.Choice(
        "NodeConformance && !Serial && !Slow && !Disruptive && !Alpha", "test/e2e_node/", skip="ContainerMetrics"
    ),
    "node-serial": ginkgo.Choice(
        "NodeConformance && Serial && !Disruptive && !Alpha && Feature: isEmpty", "test/e2e_node/"
    ),
}
"""ContainerMetrics never ends where /metrics/cadvisor is not served, and README says that it is not."""
NODE_SUITE = ("node", "node-serial")
"""The specs of e2e_node.test, which knows no kubeconfig; the others are e2e.test's."""
NODE_SUITE_CONFIGURATION = "kubelet-config"
"""Where the node suite writes another configuration for the agent, in the directory that its program is in."""
HANDLER = "test-handler"
"""A handler beside the default that suites expect of a node."""
SETTINGS = {"readOnlyPort": 10255}
"""Of the agent; the node suite asks this port."""
TIMEOUT = "6h"
LOOK_AGAIN_SECONDS = 0.2


def main() -> int:
    """The command line; 0 when every spec ended as it should."""
    options = _parser().parse_args()
    version = options.docker if options.runtime == "docker" else options.containerd
    title = f"{options.kubelet}/{options.runtime}-{version}"
    out = OUT / "-".join(("e2e", *title.split("/"), *([] if options.specs == "conformance" else [options.specs])))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    try:
        run(options, out)
    except (LabError, gotools.BuildError) as error:
        say(str(error))
        return 1
    exemptions = NODE_LIST if options.specs in NODE_SUITE else LIST
    return report(title, out, json.loads((out / ginkgo.REPORT).read_text()), exemptions)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.e2e", description=__doc__)
    parser.add_argument("runtime", choices=("docker", "containerd"))
    parser.add_argument("--kubelet", choices=AGENTS, default=AGENTS[0], help="go: the Go kubelet, to compare with")
    parser.add_argument("--docker", choices=docker.VERSIONS, default="20.10")
    parser.add_argument("--containerd", choices=containerd.VERSIONS, default="1.6")
    parser.add_argument("--focus", default="", help="only specs whose name matches this regular expression")
    parser.add_argument("--skip", default="", help="none whose name matches this one")
    parser.add_argument("--specs", choices=SPECS, default="conformance", help="which (default: %(default)s)")
    parser.add_argument("--labels", default="", help="another label filter of Ginkgo's than that of --specs")
    parser.add_argument("--files", default="", help="other source files than those of --specs")
    parser.add_argument("--processes", type=int, default=2, help="specs at a time (default: %(default)s)")
    return parser


def run(options: argparse.Namespace, out: Path) -> None:
    """One run of the suite in a lab of its own; its report is in `out`."""
    is_node_suite = options.specs in NODE_SUITE
    runner, suite_program = gotools.ensure("ginkgo"), gotools.ensure("e2e_node.test" if is_node_suite else "e2e.test")
    if is_node_suite:
        suite_program = Path(shutil.copy(suite_program, out))
    on_docker = options.runtime == "docker"
    with step("starting the engine and the registry"):
        lab = Lab.start(
            docker=options.docker if on_docker else None,
            containerd=None if on_docker else options.containerd,
            handlers=[HANDLER],
            registry=[reference for reference in catalog.IMAGES if not reference.startswith(catalog.CRI_TOOLS)],
        )
    with lab:
        try:
            with step(f"starting the control plane and the node ({options.kubelet} on {options.runtime})"):
                cluster = Cluster.start(lab)
                endpoint = node.start_dockershim(lab).socket if on_docker else lab.containerd_socket
                unit = Unit(lab)
                start = gokubelet.start if options.kubelet == "go" else node.start_kubelet_py
                file = out / NODE_SUITE_CONFIGURATION
                agent = start(
                    cluster, endpoint, node=NODE, settings=SETTINGS, flags=["-v=4"], file=file, under=unit.command
                )
            named = SPECS[options.specs]
            choice = ginkgo.Choice(
                options.labels or named.labels,
                options.files or named.files,
                options.focus,
                options.skip or named.skip,
            )
            flags = _node_suite_flags(cluster) if is_node_suite else _suite_flags(cluster)
            flags += [f"--container-runtime-endpoint=unix://{endpoint}"]
            command = ginkgo.command(
                runner, suite_program, choice, out, flags, processes=options.processes, timeout=TIMEOUT
            )
            suite = lab.popen(command, log="e2e", directory=out, environment={"PATH": unit.path})
            _tell(suite, lab.logs / "e2e.log")
            if agent.poll() is not None:
                raise LabError(f"the agent ended with {agent.returncode}:\n{agent.log_tail()}")
            if not (out / ginkgo.REPORT).exists():
                raise LabError(f"the suite ended with {suite.returncode} and left no report:\n{suite.log_tail()}")
        finally:
            shutil.copytree(lab.logs, out / "logs", dirs_exist_ok=True)
            (out / "e2e_node.test").unlink(missing_ok=True)


def _suite_flags(cluster: Cluster) -> list[str]:
    return [
        f"--kubeconfig={cluster.kubeconfig}",
        "--provider=skeleton",
        f"--kubectl-path={cluster.programs['kubectl']}",
        "--disable-log-dump",
    ]


def _node_suite_flags(cluster: Cluster) -> list[str]:
    """The node suite uses what runs already, and comes with a token instead of a kubeconfig."""
    return [
        f"--host={cluster.server}",
        f"--bearer-token={cluster.admin_token()}",
        f"--node-name={NODE}",
        "--dns-domain=cluster.local",
        "--start-services=false",
        "--stop-services=false",
        "--prepull-images=false",
    ]


def _tell(suite: LabProcess, log: Path) -> None:
    """One line for each spec that ends, until the suite does."""
    chosen = ended = 0
    for news in ginkgo.progress(_followed(suite, log)):
        if isinstance(news, int):
            chosen = news
            say(f"{chosen} specs will run")
        else:
            ended += 1
            say(f"{ended:4} of {chosen}  {news.outcome:7}  {news.seconds:6.1f} s  {news.name}")


def _followed(writer: LabProcess, log: Path) -> Iterator[str]:
    """The lines of a growing file, until its writer has ended."""
    rest, is_over = "", False
    with log.open(encoding="utf-8", errors="replace") as file:
        while True:
            text = file.read()
            *lines, rest = (rest + text).split("\n")
            yield from lines
            if is_over and not text:
                return
            try:
                writer.wait(LOOK_AGAIN_SECONDS)
                is_over = True
            except subprocess.TimeoutExpired:
                continue


def report(title: str, out: Path, written: list[Mapping[str, Any]], exempted: Path) -> int:
    """Tell what came of a run; the exit code."""
    results = ginkgo.results_of_chosen(written)
    exemptions = verdict.read_exemptions(tomllib.loads(exempted.read_text()))
    found = verdict.judge(results, ginkgo.exemptions_of_chosen(exemptions, written, results), title)
    text = verdict.summary({title: verdict.counts(results)})
    trouble = verdict.explain(found) if results else "no spec was chosen"
    (out / "summary.md").write_text(f"{text}\n\n{trouble}\n" if trouble else f"{text}\n")
    print(f"{text}\n{trouble}" if trouble else text)
    say(f"e2e with {title}: {'NOT ' if trouble else ''}as it should be; details are in {out}")
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
