"""With --spool-logs no line is lost or doubled whoever is killed: dockerd, dockershim, both at once, or the spooler."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from cri_proto.wire.log_line import LogLine, parse_line
from dockershim.oci import instructions as words
from tests.integration.dockershim.harness import Shim, eventually
from tests.integration.dockershim.test_user_namespaces import LINUX as USERNS_LINUX
from tests.integration.dockershim.test_user_namespaces import pod_with_user_namespace
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

LINES = int(os.environ.get("KUBELET_PY_LOG_LINES", "100000"))
"""`make long` has a million."""
EXITED = cri.ContainerState.CONTAINER_EXITED
COUNTING = """
i=0
while [ $i -lt {lines} ] || [ ! -e /tmp/enough ]; do
    seq $((i + 1)) $((i + 10000))
    i=$((i + 10000))
    usleep 50000
done
echo $i >&2
"""
"""Bursts that dockerd cannot write as fast as they come. The other stream says in the end how far it came; with a
terminal it is the last line."""


@pytest.fixture(scope="module", params=["20.10", "29"])
def shim(request: pytest.FixtureRequest) -> Iterator[Shim]:
    with Lab.start(docker=request.param, docker_settings={"live-restore": True}) as lab:
        made = Shim(lab, "dockershim", None, "--spool-logs")
        yield made
        made.remove_all()
        assert sorted(path.name for path in (made.root / "log-spool").iterdir()) == ["spooler.lock", "spooler.sock"]
        made.stop()


def start_docker(shim: Shim) -> None:
    shim.lab.docker.start()
    eventually(lambda: shim.runtime.Status(cri.StatusRequest()).status.conditions[0].status)


def kill_docker(shim: Shim) -> None:
    dockerd = shim.lab.docker.dockerd
    assert dockerd is not None
    dockerd.kill()
    dockerd.wait(10)


def dockerd_dies(shim: Shim) -> None:
    kill_docker(shim)
    start_docker(shim)


def dockershim_dies(shim: Shim) -> None:
    shim.kill()
    shim.start()


def both_die(shim: Shim) -> None:
    shim.kill()
    kill_docker(shim)
    shim.start(wait_ready=False)
    start_docker(shim)


def spooler_dies(shim: Shim) -> None:
    before = spooler_pid(shim)
    shim.lab.run(["kill", "-9", before])
    eventually(lambda: spooler_pid(shim) not in ("", before))


def spooler_pid(shim: Shim) -> str:
    """Inside the lab."""
    return shim.lab.run(["pgrep", "-f", f"{words.SPOOLER_VERB} {shim.root}"], check=False).stdout.strip()


def lines_of(paths: list[Path], stream: bytes) -> list[LogLine]:
    lines = []
    for path in paths:
        with path.open("rb") as file:
            lines += [line for line in map(parse_line, file) if line.stream == stream]
    return lines


def pid_of(shim: Shim, container_id: str) -> int:
    [inspected] = json.loads(shim.lab.docker.client("inspect", container_id))
    return int(inspected["State"]["Pid"])


def touch(shim: Shim, pid: int, path: str) -> None:
    """Make a file in a container, whoever is dead."""
    shim.lab.run(["touch", f"/proc/{pid}/root{path}"])


def count_through(
    shim: Shim, deaths: Sequence[Callable[[Shim], None]], between: Callable[[str, Path], None], *, tty: bool = False
) -> list[Path]:
    """A container counts while these die; its log's files, once they hold every line once."""
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, COUNTING.format(lines=LINES), tty=tty)
    log = Path(shim.status(container_id).log_path)
    pid = pid_of(shim, container_id)
    assert (shim.root / "log-spool" / container_id).exists()
    for number, death in enumerate(deaths, start=1):
        goal_bytes = log.stat().st_size + LINES * 40 // (len(deaths) + 1)
        eventually(lambda: log.stat().st_size >= goal_bytes, 120)  # noqa: B023 # called at once
        death(shim)
        assert shim.status(container_id).state != EXITED, f"death {number} came after the end"
        between(container_id, log)
    touch(shim, pid, "/tmp/enough")
    eventually(lambda: shim.status(container_id).state == EXITED, 120)
    paths = [*sorted(log.parent.glob(f"{log.name}.*")), log]
    numbers = [int(line.text) for line in lines_of(paths, b"stdout")]
    last = numbers.pop() if tty else int(lines_of(paths, b"stderr")[0].text)
    print(f"{len(numbers)} lines, {len(deaths)} kills")
    assert len(numbers) >= LINES
    assert numbers == list(range(1, last + 1))
    shim.remove_sandbox(sandbox[0])
    return paths


def nothing(container_id: str, log: Path) -> None:
    """Between two deaths."""


def test_five_kills_of_dockerd_lose_and_double_no_line(shim: Shim) -> None:
    count_through(shim, [dockerd_dies] * 5, nothing)


def test_five_kills_of_dockershim_lose_and_double_no_line(shim: Shim) -> None:
    count_through(shim, [dockershim_dies] * 5, nothing)


def test_kills_of_everything_between_rotations_lose_and_double_no_line(shim: Shim) -> None:
    def rotate(container_id: str, log: Path) -> None:
        log.rename(f"{log}.{len(list(log.parent.iterdir())):03d}")
        shim.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=container_id))

    deaths = [both_die, spooler_dies, dockerd_dies, dockershim_dies, both_die]
    assert len(count_through(shim, deaths, rotate)) == 6


def test_a_container_that_ends_while_all_are_dead_has_its_last_words_in_the_log(shim: Shim) -> None:
    sandbox = shim.run_sandbox()
    container_id = shim.run(
        sandbox, "echo first; while [ ! -e /tmp/go ]; do usleep 10000; done; seq 1 20000; printf end"
    )
    log = Path(shim.status(container_id).log_path)
    pid = pid_of(shim, container_id)
    eventually(lambda: b"first" in log.read_bytes())
    shim.kill()
    kill_docker(shim)
    touch(shim, pid, "/tmp/go")
    eventually(lambda: not Path(f"/proc/{shim.lab.pid}/root/proc/{pid}/root").exists())
    shim.start(wait_ready=False)
    start_docker(shim)
    eventually(lambda: shim.status(container_id).state == EXITED)
    eventually(lambda: shim.has_whole_log(container_id))
    texts = [line.text for line in lines_of([log], b"stdout")]
    assert texts == [b"first", *(b"%d" % number for number in range(1, 20001)), b"end"]
    shim.remove_sandbox(sandbox[0])


def test_docker_has_a_copy_for_its_own_logs_and_for_attach(shim: Shim) -> None:
    sandbox = shim.run_sandbox()
    script = "while [ ! -e /tmp/go ]; do echo wait; usleep 50000; done; seq 1 50000; echo err >&2"
    container_id = shim.run(sandbox, script)
    attached = shim.lab.popen(
        ["docker", "--host", f"unix://{shim.lab.docker.socket}", "attach", "--no-stdin", container_id], log="attached"
    )
    heard = shim.lab.logs / "attached.log"
    eventually(lambda: "wait" in heard.read_text())
    heard.write_text("")
    touch(shim, pid_of(shim, container_id), "/tmp/go")
    shim.wait_state(container_id, EXITED)
    attached.wait(20)
    numbers = [str(number) for number in range(1, 50001)]
    assert without_waiting(shim.lab.docker.client("logs", container_id)) == numbers
    log = Path(shim.status(container_id).log_path)
    assert without_waiting(b"\n".join(line.text for line in lines_of([log], b"stdout")).decode()) == numbers
    attached_text = heard.read_text()
    assert attached_text.count("err\n") == 1  # anywhere: the streams come side by side, and a chunk may end in a line
    assert without_waiting(attached_text.replace("err\n", "")) == numbers
    shim.remove_sandbox(sandbox[0])


def without_waiting(text: str) -> list[str]:
    """What came after the go."""
    return [word for word in text.split() if word != "wait"]


def test_the_end_of_dockershim_is_not_the_end_of_the_spooler(shim: Shim) -> None:
    before = spooler_pid(shim)
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, "exec sleep 1000")
    assert shim.process is not None
    shim.process.stop()
    assert spooler_pid(shim) == before
    shim.start()
    assert shim.status(container_id).state == cri.ContainerState.CONTAINER_RUNNING
    shim.remove_sandbox(sandbox[0])


def test_processes_of_any_user_open_their_output_by_its_name(shim: Shim) -> None:
    """As with Docker's own pipes; and `>` does not truncate what was written before."""
    sandbox = shim.run_sandbox()
    secure = cri.LinuxContainerSecurityContext(run_as_user=cri.Int64Value(value=1000))
    script = "echo one > /dev/stdout; echo two > /dev/stdout; echo err > /dev/stderr"
    container_id = shim.run(sandbox, script, linux=cri.LinuxContainerConfig(security_context=secure))
    log = Path(shim.wait_state(container_id, EXITED).log_path)
    assert [line.text for line in lines_of([log], b"stdout")] == [b"one", b"two"]
    assert [line.text for line in lines_of([log], b"stderr")] == [b"err"]
    shim.remove_sandbox(sandbox[0])


def test_output_of_a_user_namespace(shim: Shim) -> None:
    """A user in there opens it by its name too."""
    sandbox = pod_with_user_namespace(shim)
    linux = cri.LinuxContainerConfig()
    linux.CopyFrom(USERNS_LINUX)
    linux.security_context.run_as_user.value = 1000
    container_id = shim.run(sandbox, "echo one > /dev/stdout; echo err >&2", linux=linux)
    log = Path(shim.wait_state(container_id, EXITED).log_path)
    assert [line.text for line in lines_of([log], b"stdout")] == [b"one"]
    assert [line.text for line in lines_of([log], b"stderr")] == [b"err"]
    assert (shim.root / "log-spool" / container_id).exists()
    shim.remove_sandbox(sandbox[0])


def test_status_says_where_logs_come_from(shim: Shim) -> None:
    info = shim.runtime.Status(cri.StatusRequest(verbose=True)).info
    assert json.loads(info["engine"])["logs"] == "spool"
