"""What a pod was given, as values and as the checkpoint files that both kubelets read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import codec, core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.pod_allocation import (
    Amounts,
    PodResources,
    actuated_amounts,
    allocated_amounts,
    amounts_of,
    checksum_of,
    decode_checkpoint,
    differs,
    encode_checkpoint,
    requirements_of,
    resources_of,
    running_in,
    same_requirements,
    with_larger_requests,
    with_pod_limits,
    with_resources,
)
from tests.sim.pods import make_container, make_pod

REQUIREMENTS = core_v1.ResourceRequirements


def sized(cpu: str, memory: str = "64Mi") -> dict[str, Any]:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}


POD = make_pod(
    make_container("app", resources=sized("1")),
    make_container("plain"),
    init=[make_container("setup", resources=sized("2"))],
    resources={"limits": {"cpu": "3"}},
)


class TestValues:
    def test_a_pod_with_its_own_resources_is_itself(self) -> None:
        """However the amounts are spelled; what is not known of a container changes nothing."""
        spelled = REQUIREMENTS(requests={"cpu": "1000m", "memory": "65536Ki"}, limits={"cpu": "1", "memory": "64Mi"})
        own = resources_of(POD)
        assert with_resources(POD, own) is POD
        assert with_resources(POD, PodResources({"app": spelled}, own.pod_level)) is POD
        assert with_resources(POD, PodResources({}, own.pod_level)) is POD

    def test_other_resources_make_another_pod_that_shares_the_rest(self) -> None:
        given = PodResources({"app": REQUIREMENTS(**sized("5")), "setup": REQUIREMENTS(**sized("6"))}, None)
        changed = with_resources(POD, given)
        assert resources_of(changed).containers["app"] == given.containers["app"]
        assert resources_of(changed).containers["setup"] == given.containers["setup"]
        assert pods.spec_of(changed).resources is None
        assert pods.containers_of(changed)[1] is pods.containers_of(POD)[1]
        assert changed.metadata is POD.metadata
        assert resources_of(POD).containers["app"] == REQUIREMENTS(**sized("1")), "the pod itself is as it was"

    def test_the_resources_of_the_pod_as_a_whole_are_taken_and_given(self) -> None:
        pod = make_pod("app", resources={"limits": {"cpu": "3"}})
        assert resources_of(pod).pod_level == REQUIREMENTS(limits={"cpu": "3"})
        changed = with_resources(pod, PodResources({}, REQUIREMENTS(limits={"cpu": "4"})))
        assert pods.spec_of(changed).resources == REQUIREMENTS(limits={"cpu": "4"})

    def test_a_pod_with_the_larger_requests_of_two(self) -> None:
        """Resource by resource, of each container and of the pod; what is equal or smaller changes nothing."""
        had = PodResources(
            {"app": REQUIREMENTS(requests={"cpu": "5", "memory": "1Mi"}), "setup": REQUIREMENTS(requests={"cpu": "2"})},
            REQUIREMENTS(requests={"memory": "1Gi"}),
        )
        larger = resources_of(with_larger_requests(POD, had))
        assert larger.containers["app"].requests == {"cpu": "5", "memory": "64Mi"}
        assert larger.containers["app"].limits == sized("1")["limits"]
        assert larger.containers["setup"] == resources_of(POD).containers["setup"]
        assert larger.pod_level == REQUIREMENTS(requests={"memory": "1Gi"}, limits={"cpu": "3"})
        assert with_larger_requests(POD, resources_of(POD)) is POD
        assert with_larger_requests(POD, PodResources()) is POD

    def test_a_pod_without_init_containers(self) -> None:
        pod = make_pod("app")
        pods.spec_of(pod).initContainers = None
        changed = with_resources(pod, PodResources({"app": REQUIREMENTS(**sized("1"))}))
        assert pods.spec_of(changed).initContainers is None
        assert differs(pod, resources_of(changed))

    def test_nothing_is_the_same_as_nothing(self) -> None:
        assert same_requirements(None, REQUIREMENTS())
        assert not same_requirements(None, REQUIREMENTS(limits={"cpu": "1"}))

    def test_limits_of_the_pod_stand_in(self) -> None:
        """Where the container has none of its own, and only CPU and memory."""
        own = REQUIREMENTS(limits={"memory": "1Mi"}, requests={"cpu": "1"})
        pod_level = REQUIREMENTS(limits={"cpu": "3", "memory": "9Mi", "hugepages-2Mi": "2Mi"})
        assert with_pod_limits(own, pod_level).limits == {"cpu": "3", "memory": "1Mi"}
        assert with_pod_limits(own, None) is own
        assert with_pod_limits(REQUIREMENTS(), REQUIREMENTS(limits={"cpu": "3"})).limits == {"cpu": "3"}

    def test_amounts_and_requirements(self) -> None:
        amounts = Amounts(500, 1000, 1024, 2048)
        assert amounts_of(None) == Amounts()
        assert (amounts.of("cpu"), amounts.of("memory")) == ((500, 1000), (1024, 2048))
        besides = REQUIREMENTS(limits={"cpu": "9", "example.com/gpu": "1"})
        assert requirements_of(amounts, besides) == REQUIREMENTS(
            limits={"example.com/gpu": "1", "cpu": "1", "memory": "2Ki"}, requests={"cpu": "500m", "memory": "1Ki"}
        )
        assert requirements_of(Amounts()) == REQUIREMENTS()
        assert amounts.with_memory_of(Amounts(1, 2, 3, 4)) == Amounts(500, 1000, 3, 4)

    def test_an_explicit_nothing_stays(self) -> None:
        """Without a request the limit would be the request."""
        besides = REQUIREMENTS(limits={"cpu": "1", "memory": "1Mi"}, requests={"cpu": "0", "memory": "0"})
        assert requirements_of(amounts_of(besides), besides) == besides
        grown = requirements_of(Amounts(cpu_limit_milli=2000, memory_limit_bytes=1024**2), besides)
        assert grown == REQUIREMENTS(limits={"cpu": "2", "memory": "1Mi"}, requests=besides.requests)
        assert requirements_of(Amounts(), REQUIREMENTS(requests={"cpu": "1"})) == REQUIREMENTS()

    def test_what_a_container_has_and_is_to_have(self) -> None:
        """Its own, and the pod's limits where it has none; nothing where it was never made."""
        pod = make_pod("app", resources={"limits": {"cpu": "3"}})
        app = pods.containers_of(pod)[0]
        assert allocated_amounts(pod, app) == actuated_amounts(resources_of(pod), "app") == Amounts(0, 3000)
        noted = PodResources({"app": REQUIREMENTS(limits={"cpu": "2"})}, REQUIREMENTS(limits={"cpu": "3"}))
        assert actuated_amounts(noted, "app") == Amounts(0, 2000)
        assert actuated_amounts(noted, "other") == Amounts()

    @given(st.tuples(*[st.integers(0, 2**40)] * 4))
    def test_requirements_say_what_the_amounts_were(self, numbers: tuple[int, int, int, int]) -> None:
        assert amounts_of(requirements_of(Amounts(*numbers))) == Amounts(*numbers)


class TestCheckpoint:
    def test_a_checkpoint_reads_back(self) -> None:
        known = {"u-1": resources_of(POD), "u-2": PodResources()}
        assert decode_checkpoint(encode_checkpoint(known)) == known
        assert decode_checkpoint(encode_checkpoint({})) == {}

    def test_what_the_go_kubelet_writes_is_read(self) -> None:
        """Its checksums are held to ours by tests/integration/cluster/test_resize.py."""
        data = (
            '{"entries":{"u-1":{"ContainerResources":{"app":{"limits":{"cpu":"1"}}},'
            '"PodLevelResources":null,"EmptyDirVolumeLimits":null},"u-2":{"ContainerResources":null}}}'
        )
        content = json.dumps({"data": data, "checksum": checksum_of(data)}).encode()
        assert decode_checkpoint(content) == {
            "u-1": PodResources({"app": REQUIREMENTS(limits={"cpu": "1"})}),
            "u-2": PodResources(),
        }

    @pytest.mark.parametrize("content", [b"", b"{}", b'{"data":"{}","checksum":1}', b'{"data":1,"checksum":1}'])
    def test_what_is_no_checkpoint_is_said(self, content: bytes) -> None:
        with pytest.raises(codec.InvalidObject):
            decode_checkpoint(content)


def test_what_runs_by_the_status() -> None:
    """Sidecars and main containers; not what waits, has ended, or was never heard of, nor an ephemeral container."""

    def entry(name: str, **state: Any) -> dict[str, Any]:
        return {"name": name, "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": state or None}

    lists = {
        "initContainerStatuses": [entry("setup", terminated={"exitCode": 0}), entry("proxy", running={})],
        "containerStatuses": [entry("app", running={}), entry("late", waiting={}), entry("unheard")],
        "ephemeralContainerStatuses": [entry("debugger", running={})],
    }
    assert running_in(codec.from_builtins(core_v1.PodStatus, lists)) == {"proxy", "app"}
    assert running_in(core_v1.PodStatus()) == set()
