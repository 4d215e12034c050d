"""What a stop needs to know of a pod whose manifest is gone."""

from typing import Any

from kubelet_py.api import codec, core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.observed import ObservedPod
from kubelet_py.core.restored_pod import restore_pod
from tests.sim.pods import make_observed, make_run, make_sandbox

HANDLER = core_v1.LifecycleHandler(httpGet=core_v1.HTTPGetAction(port="web", path="/bye"))
PORTS = [core_v1.ContainerPort(containerPort=80, name="web")]


def observed(**fields: Any) -> ObservedPod:
    return make_observed(make_run("app", restart_count=1, **fields), make_run("app", pre_stop_json="{}"))


def test_the_newest_run_says_what_the_container_was() -> None:
    pod = restore_pod(
        observed(
            pre_stop_json=codec.encode(HANDLER).decode(),
            ports_json=codec.encode(PORTS).decode(),
            grace_period_seconds=7,
        )
    )
    (container,) = pods.containers_of(pod)
    assert (pods.uid_of(pod), pods.full_name(pod)) == ("u-1", "web_shop")
    assert (container.name, container.image) == ("app", "app:1")
    assert container.lifecycle is not None
    assert container.lifecycle.preStop == HANDLER
    assert container.ports == PORTS
    assert pods.spec_of(pod).terminationGracePeriodSeconds == 7
    assert pod.status is not None
    assert pod.status.podIPs == [core_v1.PodIP(ip="10.0.0.9")]


def test_what_nobody_can_read_is_as_if_it_were_not_there() -> None:
    pod = restore_pod(observed(pre_stop_json="{", ports_json=""))
    (container,) = pods.containers_of(pod)
    assert (container.lifecycle, container.ports) == (None, None)
    assert pods.spec_of(pod).terminationGracePeriodSeconds is None


def test_a_pod_of_nothing_is_a_pod() -> None:
    pod = restore_pod(ObservedPod("u-1"))
    assert pods.containers_of(pod) == []
    assert not pods.is_host_network(pod)


def test_any_container_that_knows_it_tells_the_grace_period_and_the_sandbox_the_network() -> None:
    seen = make_observed(
        make_run("a"), make_run("b", grace_period_seconds=7), sandboxes=[make_sandbox(host_network=True)]
    )
    pod = restore_pod(seen)
    assert pods.spec_of(pod).terminationGracePeriodSeconds == 7
    assert pods.is_host_network(pod)
