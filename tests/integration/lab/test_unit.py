"""The stand-in for systemctl stops and starts what it stands for."""

from collections.abc import Callable, Iterator

import pytest

from tests.lab.sandbox import Sandbox
from tests.lab.unit import Unit

pytestmark = pytest.mark.lab
LISTED = "kubelet-lab.service loaded active running the agent of this lab\n"


@pytest.fixture(scope="module")
def systemctl() -> Iterator[Callable[..., str]]:
    with Sandbox() as lab:
        unit = Unit(lab)

        def call(*words: str) -> str:
            return lab.run(["sudo", "systemctl", *words], environment={"PATH": unit.path}).stdout

        lab.popen([*unit.command, "sh", "-c", "echo begun >> /var/log/program; exec sleep 1000"], log="unit")
        call("start", "kubelet-lab")
        yield lambda *words: call(*words) if words else lab.run(["cat", "/var/log/program"]).stdout


def test_a_program_is_stopped_and_started(systemctl: Callable[..., str]) -> None:
    """It does not come back by itself; it is listed while it runs, or whenever nobody asks for that."""
    assert systemctl("list-units", "*kubelet*", "--state=running") == LISTED
    systemctl("stop", "kubelet-lab")
    assert systemctl("list-units", "*kubelet*", "--state=running") == ""
    assert systemctl("list-units", "*kubelet*") == LISTED
    systemctl("restart", "kubelet-lab")
    systemctl("reset-failed", "kubelet-lab")
    systemctl("restart", "kubelet-lab")
    assert systemctl("list-units", "*kubelet*", "--state=running") == LISTED
    assert systemctl().splitlines() == ["begun"] * 3


def test_a_killed_program_stays_down(systemctl: Callable[..., str]) -> None:
    systemctl("kill", "kubelet-lab")
    systemctl("stop", "kubelet-lab")  # which waits for its end
    assert systemctl("list-units", "*kubelet*", "--state=running") == ""
    systemctl("start", "kubelet-lab")
    assert systemctl("list-units", "*kubelet*", "--state=running") == LISTED
