"""`make critest ENGINE=20.10|29|containerd-1.6|containerd-2.4`: critest on dockershim, or on containerd as the peer.

Makes a lab with the registry of test images, runs every spec of critest, tells how far it is, and compares with
critest.toml. Writes report.json, junit.xml, summary.md and the logs of all programs into tests/conformance/out/ENGINE.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import grpc

from cri_proto import runtime_v1 as cri
from cri_proto.runtime_v1 import api_pb2_grpc
from tests.conformance import verdict
from tests.lab import gotools
from tests.lab.images import catalog
from tests.lab.lab import Lab
from tests.lab.node import start_dockershim
from tests.lab.process import LabError, LabProcess
from tests.lab.progress import say, step

HERE = Path(__file__).resolve().parent
LIST = HERE / "critest.toml"
OUT = HERE / "out"
ENGINES = ("20.10", "29", "containerd-1.6", "containerd-2.4")
PROGRESS_EVERY_SECONDS = 20.0
LONGEST_SECONDS = 3600.0


def main() -> int:
    """The command line; 0 when every spec ended as it should."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.critest", description=__doc__)
    parser.add_argument("engine", choices=ENGINES, help="a Docker under dockershim, or a containerd")
    parser.add_argument("--focus", default="", help="only the specs whose name matches; nothing is compared then")
    options = parser.parse_args()
    runtime = options.engine if options.engine.startswith("containerd") else f"docker-{options.engine}"
    out = OUT / runtime
    try:
        run(options.engine, out, options.focus)
    except (LabError, gotools.BuildError) as error:
        say(str(error))
        return 1
    return report(runtime, out, partial=bool(options.focus))


def run(engine: str, out: Path, focus: str) -> None:
    """One run of critest in a lab of its own; its report is in `out`."""
    critest = gotools.ensure("critest")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    peer = engine.removeprefix("containerd-") if engine.startswith("containerd-") else None
    with step(f"starting {engine} and the registry"):
        lab = Lab.start(containerd=peer, docker=None if peer else engine, registry=list(catalog.IMAGES))
    with lab:
        try:
            socket = lab.containerd_socket if peer else start_dockershim(lab).socket
            lab.wait_until("the runtime", lambda: is_ready(socket))
            process = lab.popen(
                [
                    critest, f"--runtime-endpoint=unix://{socket}", f"--image-endpoint=unix://{socket}",
                    "--ginkgo.v", "--ginkgo.no-color", "--ginkgo.seed=1", f"--ginkgo.focus={focus}",
                    f"--ginkgo.timeout={LONGEST_SECONDS:.0f}s",
                    f"--ginkgo.json-report={out / 'report.json'}", f"--ginkgo.junit-report={out / 'junit.xml'}",
                ],
                log="critest",
                directory=str(out),
            )  # fmt: skip
            _follow(process, lab.logs / "critest.log")
        finally:
            shutil.copytree(lab.logs, out / "logs", dirs_exist_ok=True)


def is_ready(socket: Path) -> bool:
    """Whether the runtime behind this socket takes pods. (containerd has conditions that are mere advice.)"""
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        stub: Any = api_pb2_grpc.RuntimeServiceStub(channel)
        try:
            conditions = stub.Status(cri.StatusRequest(), timeout=5).status.conditions
            return all(each.status for each in conditions if each.type in ("RuntimeReady", "NetworkReady"))
        except grpc.RpcError:
            return False


def _follow(process: LabProcess, log: Path) -> None:
    """Until the end, saying now and then how far it is."""
    begun = said = time.monotonic()
    while process.poll() is None:
        time.sleep(0.5)
        if time.monotonic() - said >= PROGRESS_EVERY_SECONDS:
            said = time.monotonic()
            lines = log.read_text(errors="replace").splitlines()
            ended = [line for line in lines if line.startswith("• ")]
            failed = sum("[FAILED]" in line for line in ended)
            say(f"critest: {len(ended)} specs have ended, {failed} of them failed, after {said - begun:.0f} s")


def report(runtime: str, out: Path, *, partial: bool) -> int:
    """Tell what came of a run; the exit code."""
    file = out / "report.json"
    if not file.exists():
        say(f"critest wrote no report; see {out / 'logs' / 'critest.log'}")
        return 1
    results = verdict.read_report(json.loads(file.read_text()))
    table = tomllib.loads(LIST.read_text())
    found = verdict.judge(results, verdict.read_exemptions(table), runtime)
    rows = {runtime: verdict.counts(results), **table["measured"]}
    text = verdict.summary(rows)
    if partial:
        found = verdict.Verdict(tuple(result for result in results if result.outcome == verdict.FAILED), ())
    trouble = verdict.explain(found)
    (out / "summary.md").write_text(f"{text}\n\n{trouble}\n" if trouble else f"{text}\n")
    print(f"{text}\n{trouble}" if trouble else text)
    say(f"critest on {runtime}: {'as it should be' if found.good else 'NOT as it should be'}; details are in {out}")
    return 0 if found.good else 1


if __name__ == "__main__":
    sys.exit(main())
