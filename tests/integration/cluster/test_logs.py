"""Logs that grow: kept short by the agent, whole for who reads them. KUBELET=go shows what the Go kubelet does."""

from __future__ import annotations

import pytest

from tests.integration.cluster.objects import container, pod
from tests.integration.cluster.stage import PLAYS_GO, Stage
from tests.integration.cluster.waiting import holds

pytestmark = pytest.mark.lab

FLOOD_LINES = 150_000
# Beyond 10 Mi in one go, then a line at a time while the log is rotated.
SCRIPT = f"""
seq 1 {FLOOD_LINES} | sed 's/.*/line & {"." * 60}/'
n={FLOOD_LINES}
while :; do n=$((n + 1)); echo "line $n"; sleep 0.05; done
"""


def test_a_long_log_is_rotated_and_no_line_is_lost(stage: Stage) -> None:
    """The runtime goes on in a new file; the one before it is still shown."""
    name = stage.unique("flood")
    stage.create_pod(pod(name, container(SCRIPT)))
    uid = stage.wait_ready(name)["metadata"]["uid"]
    directory = f"/var/log/pods/default_{name}_{uid}/main"

    def rotated() -> None:
        names = stage.lab.run(["ls", directory]).stdout.split()
        assert "0.log" in names
        assert any(found.startswith("0.log.") for found in names), names
        newest = stage.lab.run(["cat", f"{directory}/0.log"]).stdout
        assert "line" in newest, "nothing in the new file yet"
        assert len(newest) < 10 * 1024 * 1024

    holds(rotated, within_seconds=60)
    numbers = [int(line.split()[1]) for line in stage.logs(name).splitlines()]
    first = numbers[0] if PLAYS_GO else 1  # the Go kubelet shows the newest file alone
    assert numbers == list(range(first, first + len(numbers)))
    assert numbers[-1] > FLOOD_LINES
    stage.delete_pod(name, grace_seconds=0)
    stage.wait_gone(name)
