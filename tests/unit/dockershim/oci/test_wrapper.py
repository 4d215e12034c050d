"""dockershim-oci as a program: its command line, what it hands on, and what it says when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dockershim import oci
from dockershim.oci import instructions as words
from dockershim.oci.wrapper import find_verb, take_runtime, value_of

PROGRAM = Path(oci.__file__).with_name("__main__.py")
CHECKOUT_PROGRAM = PROGRAM.parents[2] / "deploy" / words.PROGRAM
HEAVY = ("typing", "re", "dataclasses", "pathlib", "json", "ctypes", "grpc")


@pytest.mark.parametrize(
    ("arguments", "verb", "log"),
    [
        (["create", "x"], "create", ""),
        (["--root", "/run/create", "--log", "/l", "--log-format", "json", "start", "x"], "start", "/l"),
        (["--root=/r", "--log=/l", "--systemd-cgroup", "delete", "--force", "x"], "delete", "/l"),
        (["--version"], "", ""),
        (["--log"], "", ""),
        ([], "", ""),
    ],
)
def test_the_verb_comes_after_the_runtimes_own_options(arguments: list[str], verb: str, log: str) -> None:
    index, found = find_verb(arguments)
    assert (arguments[index] if index >= 0 else "", found) == (verb, log)


def test_options_of_the_verb() -> None:
    assert value_of(["--bundle", "/b", "x"], "--bundle", "-b") == "/b"
    assert value_of(["-b=/b", "x"], "--bundle", "-b") == "/b"
    assert value_of(["x", "--bundle"], "--bundle", "-b") == ""
    assert value_of(["x"], "--bundle", "-b") == ""


def test_the_real_runtime_is_runc_unless_it_is_said() -> None:
    assert take_runtime(["create"]) == (["create"], "runc")
    assert take_runtime(["--oci-runtime=/usr/bin/crun", "create"]) == (["create"], "/usr/bin/crun")


class Bench:
    """A bundle, a log, and a runtime that prints what it was given."""

    def __init__(self, directory: Path, program: list[str]) -> None:
        self.program = program
        self.bundle, self.log, self.runtime = directory / "bundle", directory / "log.json", directory / "runtime"
        self.bundle.mkdir()
        self.runtime.write_text('#!/bin/sh\necho "$@"\n')
        self.runtime.chmod(0o755)
        self.configuration = self.bundle / "config.json"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*self.program, f"--oci-runtime={self.runtime}", *arguments]
        return subprocess.run(command, text=True, capture_output=True, check=False)

    def create(self) -> subprocess.CompletedProcess[str]:
        return self.run("--log", str(self.log), "create", "--bundle", str(self.bundle), "id")


@pytest.fixture(params=[[sys.executable, "-I", "-S", str(PROGRAM)], [str(CHECKOUT_PROGRAM)]], ids=["python", "sh"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return Bench(tmp_path, request.param)


def test_other_verbs_reach_the_runtime_as_they_are(bench: Bench) -> None:
    done = bench.run("--root", "/r", "kill", "id", "9")
    assert (done.returncode, done.stdout) == (0, "--root /r kill id 9\n")


def test_a_container_without_an_instruction_is_not_touched(bench: Bench) -> None:
    """Not even its formatting."""
    bench.configuration.write_text('{ "linux": {} }')
    assert bench.create().stdout.endswith("create --bundle " + str(bench.bundle) + " id\n")
    assert bench.configuration.read_text() == '{ "linux": {} }'


def test_an_instruction_is_carried_out(bench: Bench) -> None:
    said = json.dumps({words.VERSION: words.CURRENT_VERSION, words.STRICT_GROUPS: [7]})
    spec = {"process": {"user": {"gid": 3, "additionalGids": [9]}}, "linux": {"sysctl": {words.KEY: said}}}
    bench.configuration.write_text(json.dumps(spec))
    assert bench.create().returncode == 0
    user = {"gid": 3, "additionalGids": [3, 7]}
    assert json.loads(bench.configuration.read_text()) == {"process": {"user": user}, "linux": {}}
    assert [path.name for path in bench.bundle.iterdir()] == ["config.json"]


def test_what_is_wrong_is_said_where_the_engine_looks(bench: Bench) -> None:
    """In the runtime's log and on stderr; the runtime is not started."""
    for text, problem in (
        (json.dumps({"linux": {"sysctl": {words.KEY: "?"}}}), "no JSON"),
        (f'"{words.KEY}" {{', "Extra data"),
        (None, "No such file"),
    ):
        bench.log.unlink(missing_ok=True)
        bench.configuration.unlink(missing_ok=True)
        if text is not None:
            bench.configuration.write_text(text)
        done = bench.create()
        assert (done.returncode, done.stdout) == (1, "")
        line = json.loads(bench.log.read_text())
        assert line["level"] == "error"
        assert problem in line["msg"]
        assert done.stderr.strip() == line["msg"]


def test_a_runtime_that_is_not_there(bench: Bench) -> None:
    bench.runtime.unlink()
    bench.configuration.write_text("{}")
    done = bench.create()
    assert done.returncode == 1
    assert str(bench.runtime) in json.loads(bench.log.read_text())["msg"]


def test_a_process_that_is_added_reaches_the_runtime_too(bench: Bench) -> None:
    process = bench.bundle / "process.json"
    process.write_text(json.dumps({"capabilities": {"bounding": ["CAP_KILL"]}}))
    done = bench.run("exec", "--process", str(process), "id")
    assert (done.returncode, done.stdout) == (0, f"exec --process {process} id\n")


@pytest.mark.parametrize("verb", ["start", "kill", "delete", "state"])
def test_in_a_checkout_most_calls_need_no_python(tmp_path: Path, verb: str) -> None:
    (tmp_path / "runc").symlink_to("/bin/echo")
    command = [str(CHECKOUT_PROGRAM), "--root", "/r", verb, "id"]
    done = subprocess.run(command, text=True, capture_output=True, check=False, env={"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (0, f"--root /r {verb} id\n", "")


def test_a_call_that_has_nothing_to_do_imports_next_to_nothing() -> None:
    """Docker runs it for every step in the life of a container."""
    root = str(PROGRAM.parents[2])
    script = f"import sys; sys.path.insert(0, {root!r}); import dockershim.oci.wrapper; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], text=True, capture_output=True, check=True)
    assert set(done.stdout.split()).isdisjoint(HEAVY)
