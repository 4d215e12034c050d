"""`make up` gives a running pod on either runtime, `make down` leaves the machine as it was; both may be typed twice.

They run in a lab host, which is a machine of its own as far as they can see.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.standalone import engines, node
from tests.lab import debian
from tests.lab.lab import Lab
from tests.lab.sandbox import REPOSITORY

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

LOOK = """
cd /
ps -eo args= --no-headers | grep -v -e '^ps ' -e '^sh ' -e '^grep ' -e '^sort' -e defunct | sort
awk '{print $5}' /proc/self/mountinfo | sort
ls /sys/class/net
iptables-save | grep -v -e '^#' -e '^[*]' -e '^COMMIT' -e '^:[A-Z]* ACCEPT'
for hierarchy in $(awk '$0 ~ / - cgroup/ {print $5}' /proc/self/mountinfo); do ls -d $hierarchy/*/ 2>/dev/null; done
find /run /etc /opt /var/lib /var/log -xdev -not -path '/var/lib/apt/*' -not -path '/var/lib/dpkg/*' | sort
sysctl -n net.ipv4.ip_forward
"""


@dataclass
class Machine:
    """A lab host on which a person types."""

    lab: Lab

    def make(self, target: str, runtime: str = "docker") -> str:
        """Type `make TARGET`; what it said."""
        command = ["make", "--no-print-directory", "-C", str(REPOSITORY), target, f"RUNTIME={runtime}"]
        done = self.lab.run(command, check=False, timeout_seconds=240)
        assert done.returncode == 0, done.stdout + done.stderr + self._logs()
        return done.stdout

    def look(self) -> list[str]:
        """Processes, mounts, links, rules, cgroups and files."""
        return self.lab.run(["sh", "-c", LOOK], check=False).stdout.splitlines()

    def say(self, *words: str) -> str:
        """The short command that `make up` leaves for the person."""
        return self.lab.run([str(node.COMMAND), *words]).stdout

    def pods(self) -> dict[str, dict[str, object]]:
        """The pods' objects by name."""
        items = json.loads(self.say("get", "pods", "-o", "json"))["items"]
        return {item["metadata"]["name"]: item for item in items}

    def processes(self) -> str:
        """The daemons that `up` wrote down."""
        return self.lab.run(["cat", str(node.DATA / "record.json")]).stdout

    def _logs(self) -> str:
        return self.lab.run(["sh", "-c", f"tail -n 40 {node.LOGS}/*.log"], check=False).stdout


def difference(before: list[str], after: list[str]) -> list[str]:
    """What came and what went; empty built-in tables of the packet filter do not count."""
    came = [f"+ {line}" for line in after if line not in before]
    return came + [f"- {line}" for line in before if line not in after]


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A host without any engine."""
    debian.ensure(*engines.PACKAGES["docker"], *engines.PACKAGES["containerd"], "make", "wget", "procps")
    with Lab.start() as lab:
        yield Machine(lab)


@pytest.mark.parametrize("runtime", ["docker", "containerd"])
def test_up_runs_a_pod_and_down_leaves_nothing(machine: Machine, runtime: str) -> None:
    """The README's first command, twice, and its opposite, twice."""
    before = machine.look()
    said = machine.make("up", runtime)
    assert "hello" in said
    assert "1/1     Running" in said
    first = machine.processes()
    assert "1/1     Running" in machine.make("up", runtime)
    assert machine.processes() == first, "the second `up` finds everything there"

    (pod,) = machine.pods().values()
    status = pod["status"]
    assert isinstance(status, dict)
    assert "Hello from a pod" in machine.lab.run(["wget", "-qO-", f"http://{status['podIP']}:8080"]).stdout
    assert "serving on port 8080" in machine.say("logs", "hello")
    assert "busybox" in machine.say("exec", "hello", "--", "ls", "/bin")
    assert "Ready: True" in machine.say("describe", "hello")

    machine.make("down")
    assert difference(before, machine.look()) == []
    assert "nothing to take down" in machine.make("down")


@pytest.mark.parametrize("runtime", ["docker", "containerd"])
def test_down_also_ends_a_node_whose_engine_was_killed(machine: Machine, runtime: str) -> None:
    """Shims, mounts and rules are found without the engine that made them."""
    before = machine.look()
    machine.make("up", runtime)
    for daemon in json.loads(machine.processes())["daemons"]:
        machine.lab.run(["kill", "-9", str(daemon["pid"])])
    machine.make("down")
    assert difference(before, machine.look()) == []


def test_a_running_docker_is_used_and_left_as_it_was() -> None:
    """Its containers keep running; our images, network and pods are taken out of it."""
    debian.ensure(*engines.PACKAGES["docker"], "make", "wget", "procps")
    with Lab.start(docker="20.10") as lab:
        machine = Machine(lab)
        lab.docker.client(
            "run", "--detach", "--name", "mine", "registry.k8s.io/e2e-test-images/busybox:1.29-2", "sleep", "1000"
        )
        inventory = [("ps", "--all", "--quiet"), ("images",), ("network", "ls"), ("volume", "ls")]
        # sorted: Docker lists images of the same age in no fixed order
        before = [sorted(lab.docker.client(*command).splitlines()) for command in inventory]
        said = machine.make("up")
        assert "using the Docker that runs on this machine" in said
        assert "1/1     Running" in said
        machine.make("down")
        assert [sorted(lab.docker.client(*command).splitlines()) for command in inventory] == before


def test_make_lists_what_it_can_do() -> None:
    """Without a target nothing is done."""
    done = subprocess.run(["make", "-C", str(Path(REPOSITORY))], text=True, capture_output=True, check=True)
    assert "make up" in done.stdout
    assert "make test" in done.stdout
