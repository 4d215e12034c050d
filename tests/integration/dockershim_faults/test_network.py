"""CNI plugins that fail at each step, in each way: the pod does not run, and nothing is held for it."""

from __future__ import annotations

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import code_of, eventually
from tests.integration.dockershim_faults.stage import FIRST, LAST, READY, Stage, refused

pytestmark = pytest.mark.lab

PLACES = pytest.mark.parametrize("place", [FIRST, LAST])


@PLACES
@pytest.mark.parametrize("fault", ["fail", "crash", "garbage", "empty"])
def test_at_add(stage: Stage, place: str, fault: str) -> None:
    """The error names the plugin, everything is undone, and the next pod runs."""
    before, config = stage.holdings(), stage.config()
    stage.obey(place, "ADD", fault)
    _, message = refused(lambda: stage.shim.run_sandbox(config))
    assert f"faulty-{place} (ADD)" in message
    assert stage.pods(config) == []
    stage.same(before)
    stage.obey("", "", "")
    stage.works()


@PLACES
def test_one_that_hangs_at_add_is_ended_with_its_caller(stage: Stage, place: str) -> None:
    """Nobody waits for it when the one who asked has gone."""
    before, config = stage.holdings(), stage.config()
    stage.obey(place, "ADD", "hang")
    request = cri.RunPodSandboxRequest(config=config)
    code, _ = code_of(lambda: stage.shim.runtime.RunPodSandbox(request, timeout=2))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    stage.obey("", "", "")
    stage.same(before)
    assert "faulty" not in stage.lab.run(["ps", "-ef"]).stdout
    stage.works()


@PLACES
@pytest.mark.parametrize("fault", ["fail", "crash", "garbage"])
def test_at_del(stage: Stage, place: str, fault: str) -> None:
    """The stop says so and can be repeated; the other plugins give back at once; then nothing is left."""
    before, config = stage.holdings(), stage.config()
    sandbox, _ = stage.run_pod(config)
    stop = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox[0])
    stage.obey(place, "DEL", fault)
    for _ in range(2):
        _, message = refused(lambda: stage.shim.runtime.StopPodSandbox(stop, timeout=30))
        assert f"faulty-{place} (DEL)" in message
    assert stage.holdings()["addresses"] == before["addresses"]
    assert [pod.id for pod in stage.pods(config)] == [sandbox[0]]
    stage.obey("", "", "")
    stage.clear(config)
    stage.same(before)


def test_at_add_and_again_at_the_undo(stage: Stage) -> None:
    """The pod does not run, and is shown as not ready: its stop asks the plugins again, and then nothing is left."""
    before, config = stage.holdings(), stage.config()
    plugin, path = stage.directory / "bin" / "obstinate", stage.directory / "net.d" / "10-pods.conflist"
    whole = path.read_text()
    plugin.symlink_to("/bin/false")
    path.write_text(whole.replace('"faulty-last"', '"obstinate"'))
    eventually(lambda: stage.condition("NetworkReady").status)
    _, message = refused(lambda: stage.shim.run_sandbox(config))
    assert "obstinate (ADD)" in message
    [pod] = stage.pods(config)
    assert pod.state != READY
    _, message = refused(lambda: stage.clear(config))
    assert "obstinate (DEL)" in message
    plugin.unlink()
    plugin.symlink_to("/bin/true")
    path.write_text(whole)
    stage.clear(config)
    stage.same(before)
    stage.works()
