"""Resizes in place: whether, when, in which steps, and what status and events say."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.core.actions import ContainerKind, ContainerResize, KillContainer, ResizePod, StartContainer
from kubelet_py.core.cgroup_rules import CgroupLimits, CgroupSettings, SwapBehavior, compute_pod_limits
from kubelet_py.core.pod_actions import PodContext, compute_pod_actions
from kubelet_py.core.pod_allocation import Amounts, PodResources, amounts_of, resources_of
from kubelet_py.core.pod_status import StatusContext, compute_pod_status
from kubelet_py.core.resize_plan import (
    PodSteps,
    in_order,
    merged,
    pod_steps,
    to_cri_pod_resources,
    usage_problems,
    without_overhead,
)
from kubelet_py.core.resize_rules import (
    NO_CONDITIONS,
    ResizeConditions,
    condition,
    conditions_of,
    event_message,
    increases_requests,
    infeasibility,
    is_in_progress,
    progress_condition,
    queue_position,
    restarts_for,
)
from kubelet_py.core.resource_status import allocated_pod_resources, container_resources, pod_resources
from tests.sim.pods import EXITED, NOW_NS, RUNNING, make_container, make_observed, make_pod, make_run, make_sidecar

NOW = datetime(2024, 1, 1, tzinfo=UTC)
REQUIREMENTS = core_v1.ResourceRequirements
MI = 1024 * 1024
RESTART_FOR_MEMORY = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]


def sized(cpu: str = "100m", memory: str = "64Mi") -> dict[str, Any]:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}


def a_pod(cpu: str = "100m", memory: str = "64Mi", **fields: Any) -> core_v1.Pod:
    return make_pod(make_container("app", resources=sized(cpu, memory), **fields))


SWAP = CgroupSettings(
    unified=True,
    swap_controller=True,
    swap_behavior=SwapBehavior.LIMITED_SWAP,
    node_memory_bytes=2**32,
    node_swap_bytes=2**30,
)


class TestFeasibility:
    def test_an_ordinary_resize_is_feasible(self) -> None:
        assert infeasibility(a_pod("2", "1Gi"), a_pod(), CgroupSettings()) == ""

    def test_a_container_with_swap_keeps_its_memory_request(self) -> None:
        """Unless it is started anew, or is another container."""

        def burstable(memory: str, name: str = "app", **fields: Any) -> core_v1.Pod:
            return make_pod(make_container(name, resources={"requests": {"memory": memory}}, **fields))

        assert infeasibility(burstable("1Mi"), burstable("2Mi"), SWAP) != ""
        assert infeasibility(burstable("1Mi"), burstable("1Mi"), SWAP) == ""
        assert infeasibility(burstable("1Mi"), burstable("2Mi"), CgroupSettings()) == ""
        no_controller = replace(SWAP, swap_controller=False)
        assert infeasibility(burstable("1Mi"), burstable("2Mi"), no_controller) == "", "the kernel counts no swap"
        assert infeasibility(burstable("1Mi"), burstable("2Mi", resizePolicy=RESTART_FOR_MEMORY), SWAP) == ""
        assert infeasibility(burstable("1Mi", "other"), burstable("2Mi"), SWAP) == ""

    def test_it_is_enough_that_it_may_swap_before_or_after(self) -> None:
        """A container whose memory request is its limit swaps nothing. The first container is not the only one."""

        def pod(request: str) -> core_v1.Pod:
            resources = {"requests": {"memory": request}, "limits": {"memory": "4Mi"}}
            return make_pod("new", make_container("app", resources=resources))

        refusal = "In-place resize of containers with swap is not supported."
        assert infeasibility(pod("4Mi"), pod("2Mi"), SWAP) == refusal
        assert infeasibility(pod("2Mi"), pod("4Mi"), SWAP) == refusal
        (app,) = [c for c in pod("2Mi").spec.containers if c.name == "app"]  # type: ignore[union-attr] # pod() sets it
        alone = core_v1.Pod(metadata=pod("2Mi").metadata, spec=core_v1.PodSpec(containers=[app]))
        assert infeasibility(pod("4Mi"), alone, SWAP) == refusal, "a container that is new hides none after it"

    def test_a_policy_is_for_one_resource(self) -> None:
        container = core_v1.Container(
            name="app", resizePolicy=[core_v1.ContainerResizePolicy("memory", "RestartContainer")]
        )
        assert restarts_for(container, "memory")
        assert not restarts_for(container, "cpu")
        assert not restarts_for(core_v1.Container(name="app"), "memory")


class TestQueue:
    def test_what_takes_no_more_comes_first(self) -> None:
        assert increases_requests(a_pod("200m"), a_pod())
        assert increases_requests(a_pod("50m", "65Mi"), a_pod())
        assert not increases_requests(a_pod("50m"), a_pod())
        assert increases_requests(a_pod(), make_pod("app")), "nothing asked is nothing taken"
        assert not increases_requests(make_pod("app"), a_pod())

    def test_then_priority_class_and_time_of_waiting(self) -> None:
        def pending(seconds: int) -> core_v1.PodCondition:
            return condition("PodResizePending", None, "Deferred", "", 1, NOW + timedelta(seconds=seconds))

        grown = a_pod("200m")
        burstable = make_pod(make_container("app", resources={"requests": {"cpu": "200m"}}))
        small = make_pod(make_container("app", resources={"requests": {"cpu": "100m"}}))
        important = make_pod(make_container("app", resources=sized("200m")), priority=5)
        in_turn = [
            queue_position(a_pod("50m"), a_pod(), None),
            queue_position(important, a_pod(), None),
            queue_position(grown, a_pod(), pending(1)),
            queue_position(grown, a_pod(), pending(2)),
            queue_position(grown, a_pod(), None),
            queue_position(burstable, small, pending(0)),
        ]
        assert sorted(in_turn) == in_turn
        assert len(set(in_turn)) == len(in_turn), "no two wait at the same place"
        ordinary = make_pod(make_container("app", resources=sized("200m")), priority=0)
        assert queue_position(ordinary, a_pod(), None) == queue_position(grown, a_pod(), None)


class TestProgress:
    def test_a_running_container_with_another_size(self) -> None:
        observed = make_observed(make_run("app"))
        assert is_in_progress(a_pod("200m"), resources_of(a_pod()), observed)
        assert not is_in_progress(a_pod(), resources_of(a_pod("0.1")), observed)
        assert not is_in_progress(a_pod("200m"), None, observed)

    def test_one_that_does_not_run_hides_none_that_does(self) -> None:
        pod = make_pod("done", make_container("app", resources=sized("200m")))
        before = resources_of(make_pod("done", make_container("app", resources=sized())))
        assert is_in_progress(pod, before, make_observed(make_run("done", EXITED), make_run("app")))

    def test_a_container_without_limits_has_those_of_the_pod(self) -> None:
        pod = make_pod("app", resources={"limits": {"cpu": "2"}})
        observed = make_observed(make_run("app"))
        assert not is_in_progress(pod, PodResources({"app": REQUIREMENTS(limits={"cpu": "2"})}), observed)
        assert is_in_progress(pod, PodResources({"app": REQUIREMENTS(limits={"cpu": "1"})}), observed)

    def test_a_checkpoint_of_the_containers_own_resources_is_read_with_those_of_the_pod(self) -> None:
        """So it begins, and so the Go kubelet writes it."""
        small, large = {"limits": {"cpu": "1"}}, {"limits": {"cpu": "2"}}
        observed = make_observed(make_run("app"))
        pod = make_pod("app", resources=small)
        assert not is_in_progress(pod, resources_of(pod), observed)
        larger = PodResources(resources_of(pod).containers, resources_of(make_pod("app", resources=large)).pod_level)
        assert is_in_progress(pod, larger, observed)

    def test_what_does_not_run_gets_its_size_when_it_starts(self) -> None:
        actuated = resources_of(a_pod())
        assert not is_in_progress(a_pod("200m"), actuated, make_observed())
        assert not is_in_progress(a_pod("200m"), actuated, make_observed(make_run("app", EXITED)))

    def test_the_pod_as_a_whole(self) -> None:
        pod = make_pod("app", resources={"limits": {"cpu": "2"}})
        before = PodResources({}, REQUIREMENTS(limits={"cpu": "1"}))
        assert is_in_progress(pod, before, make_observed())
        assert not is_in_progress(pod, PodResources({}, REQUIREMENTS(limits={"cpu": "2000m"})), make_observed())
        assert not is_in_progress(pod, PodResources(), make_observed())
        assert not is_in_progress(make_pod("app"), before, make_observed())


class TestConditions:
    def test_nothing_new_is_the_same_object(self) -> None:
        """So that a look at a pending resize writes no status."""
        first = condition("PodResizePending", None, "Deferred", "no room", 2, NOW)
        later = NOW + timedelta(seconds=9)
        assert condition("PodResizePending", first, "Deferred", "no room", 2, later) is first
        moved = condition("PodResizePending", first, "Deferred", "less room", 2, later)
        assert (moved.lastTransitionTime, moved.lastProbeTime, moved.message) == (NOW, later, "less room")
        other = condition("PodResizePending", first, "Infeasible", "never", 2, later)
        assert other.lastTransitionTime == later

    def test_progress_keeps_its_generation_and_its_error(self) -> None:
        begun = progress_condition(None, "", "", 2, NOW)
        assert begun == core_v1.PodCondition(
            type="PodResizeInProgress", status="True", observedGeneration=2, lastProbeTime=NOW, lastTransitionTime=NOW
        )
        at_once = progress_condition(None, "Error", "it broke", 2, NOW)
        assert (at_once.reason, at_once.message) == ("Error", "it broke")
        later = NOW + timedelta(seconds=9)
        failed = progress_condition(begun, "Error", "it broke", 3, later)
        assert failed == core_v1.PodCondition(
            type="PodResizeInProgress",
            status="True",
            reason="Error",
            message="it broke",
            observedGeneration=2,
            lastProbeTime=later,
            lastTransitionTime=later,
        )
        assert progress_condition(failed, "Error", "", 4, later).message is None, "another error replaces it whole"
        assert progress_condition(failed, "", "", 4, NOW) is failed
        assert progress_condition(begun, "", "", 4, NOW) is begun

    def test_what_the_api_server_knows_is_taken_over(self) -> None:
        pending = condition("PodResizePending", None, "Deferred", "", 1, NOW)
        begun = condition("PodResizeInProgress", None, "", "", 1, NOW)
        known = conditions_of(core_v1.PodStatus(conditions=[pending, begun]))
        assert known == ResizeConditions(pending, begun)
        assert known.listed() == [pending, begun]
        assert conditions_of(None) == conditions_of(core_v1.PodStatus()) == NO_CONDITIONS
        assert NO_CONDITIONS.listed() == []

    def test_events_are_those_of_the_go_kubelet(self) -> None:
        pod = make_pod(
            make_container("c1", resources={"requests": {"memory": "100", "cpu": "1"}, "limits": {}}),
            "c2",
            init=[make_sidecar("c0", resources={"limits": {"cpu": "200m"}, "requests": {"cpu": "100m"}})],
        )
        assert event_message("started", pod, 2) == (
            'Pod resize started: {"initContainers":[{"name":"c0","resources":{"limits":{"cpu":"200m"},'
            '"requests":{"cpu":"100m"}}}],"containers":[{"name":"c1","resources":{"requests":{"cpu":"1",'
            '"memory":"100"}}},{"name":"c2","resources":{}}],"generation":2}'
        )
        assert event_message("error", make_pod("c0"), None, "it broke") == (
            'Pod resize error: {"containers":[{"name":"c0","resources":{}}],"generation":0,"error":"it broke"}'
        )
        assert event_message("error", make_pod("c0"), 1, "zu groß").endswith('"error":"zu groß"}')


class TestPlan:
    def plan(self, pod: core_v1.Pod, actuated: PodResources | None, *runs: Any) -> list[Any]:
        return list(compute_pod_actions(pod, make_observed(*runs), PodContext(NOW_NS, actuated=actuated)))

    def test_a_running_container_is_changed(self) -> None:
        pod, before = a_pod("200m"), resources_of(a_pod())
        update = ContainerResize(
            "app-0", "app", amounts_of(before.containers["app"]), Amounts(200, 200, 64 * MI, 64 * MI)
        )
        assert self.plan(pod, before, make_run("app")) == [ResizePod("the allocated resources changed", (update,))]
        assert self.plan(pod, resources_of(pod), make_run("app")) == []
        assert self.plan(pod, None, make_run("app")) == []

    def test_one_that_asks_for_it_is_started_anew(self) -> None:
        """The pod's cgroup has the new size before that."""
        pod, before = a_pod(memory="32Mi", resizePolicy=RESTART_FOR_MEMORY), resources_of(a_pod())
        kill, resize, start = self.plan(pod, before, make_run("app"))
        assert isinstance(kill, KillContainer)
        assert kill.message == "Container app resize requires restart"
        assert resize == ResizePod("the allocated resources changed", (), starts_follow=True)
        assert resize.stops_plan
        assert isinstance(start, StartContainer)
        assert start.restart_count == 1

    def test_one_that_crashed_meanwhile_starts_with_its_new_size(self) -> None:
        pod, before = a_pod("200m"), resources_of(a_pod())
        resize, start = self.plan(pod, before, make_run("app", EXITED, exit_code=1))
        assert (type(resize), type(start)) == (ResizePod, StartContainer)
        assert [type(a) for a in self.plan(pod, before)] == [ResizePod, StartContainer], "its pod is smaller by now"
        (start,) = self.plan(pod, resources_of(pod), make_run("app", EXITED, exit_code=1))
        assert isinstance(start, StartContainer), "the same size again changes nothing"

    def test_init_containers_and_sidecars_too(self) -> None:
        def pod(cpu: str, **fields: Any) -> core_v1.Pod:
            return make_pod(
                "app",
                init=[
                    make_sidecar("side", resources=sized(cpu), **fields),
                    make_container("setup", resources=sized(cpu)),
                ],
            )

        runs = make_run("side"), make_run("setup")
        (resize,) = self.plan(pod("200m"), resources_of(pod("100m")), *runs)
        assert [update.container_name for update in resize.updates] == ["setup", "side"]
        restart = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
        plan = self.plan(pod("200m", resizePolicy=restart), resources_of(pod("100m")), *runs)
        assert [type(action) for action in plan] == [KillContainer, ResizePod, StartContainer]
        assert plan[2].kind is ContainerKind.INIT

    def test_limits_of_the_pod_change_containers_without_their_own(self) -> None:
        def pod(cpu: str) -> core_v1.Pod:
            return make_pod("app", resources={"limits": {"cpu": cpu}})

        before = PodResources({"app": REQUIREMENTS(limits={"cpu": "1"})}, REQUIREMENTS(limits={"cpu": "1"}))
        (resize,) = self.plan(pod("2"), before, make_run("app"))
        assert resize.updates[0].wanted == Amounts(cpu_limit_milli=2000)
        exited = make_run("app", EXITED, exit_code=1)
        plan = self.plan(pod("2"), before, exited)
        assert [type(action) for action in plan] == [ResizePod, StartContainer]
        assert [type(action) for action in self.plan(pod("1"), before, exited)] == [StartContainer]
        only_pod = PodResources({"app": REQUIREMENTS(limits={"cpu": "2"})}, REQUIREMENTS(limits={"cpu": "1"}))
        assert self.plan(pod("2"), only_pod, make_run("app")) == [ResizePod("the allocated resources changed")]
        assert not ResizePod("").stops_plan


def update(name: str, old: Amounts, new: Amounts) -> ContainerResize:
    return ContainerResize(f"id-{name}", name, old, new)


class TestSteps:
    def test_decreases_come_first(self) -> None:
        grow = update("grow", Amounts(1, 1), Amounts(2, 2))
        shrink = update("shrink", Amounts(2, 2), Amounts(1, 1))
        ask = update("ask", Amounts(1, 5), Amounts(2, 5))
        other = update("other", Amounts(memory_limit_bytes=1), Amounts(memory_limit_bytes=2))
        assert in_order([grow, ask, other, shrink], "cpu") == (shrink, grow, ask)
        less = update("less", Amounts(5, 5), Amounts(4, 5))
        assert in_order([ask, less], "cpu") == (less, ask)
        mixed = update("mixed", Amounts(1, 5), Amounts(2, 4))
        assert in_order([grow, mixed], "cpu") == (mixed, grow), "the limit says which it is"
        assert in_order([grow, ask, other, shrink], "memory") == (other,)

    @pytest.mark.parametrize(("old", "new", "before"), [(1, 2, True), (2, 1, False), (None, 1, False), (1, -1, True)])
    def test_a_pod_grows_before_its_containers_and_shrinks_after(self, old: int | None, new: int, before: bool) -> None:
        """No limit is an endless one."""
        memory = pod_steps("memory", CgroupLimits(memory_bytes=old), CgroupLimits(memory_bytes=new))
        step = CgroupLimits(memory_bytes=new)
        assert memory == (PodSteps(before=(step,)) if before else PodSteps(after=(step,)))
        quota = pod_steps("cpu", CgroupLimits(cpu_quota_microseconds=old), CgroupLimits(cpu_quota_microseconds=new))
        assert bool(quota.before) is before

    def test_the_period_goes_with_the_quota_and_v2_files_with_the_memory(self) -> None:
        target = CgroupLimits(
            cpu_quota_microseconds=5, cpu_period_microseconds=50, memory_bytes=7, unified={"memory.high": "6"}
        )
        (quota,) = pod_steps("cpu", CgroupLimits(), target).after
        assert quota == CgroupLimits(cpu_quota_microseconds=5, cpu_period_microseconds=50)
        (memory,) = pod_steps("memory", CgroupLimits(), target).after
        assert memory == CgroupLimits(memory_bytes=7, unified={"memory.high": "6"})

    def test_shares_stand_between_limits_and_containers(self) -> None:
        small = CgroupLimits(cpu_shares=2, cpu_quota_microseconds=1000, cpu_period_microseconds=100_000)
        big = CgroupLimits(cpu_shares=9, cpu_quota_microseconds=9000, cpu_period_microseconds=100_000)
        quota, shares = pod_steps("cpu", small, big).before
        assert (quota.cpu_quota_microseconds, shares.cpu_shares) == (9000, 9)
        shares, quota = pod_steps("cpu", big, small).after
        assert (quota.cpu_quota_microseconds, shares.cpu_shares) == (1000, 2)
        assert pod_steps("cpu", CgroupLimits(), CgroupLimits(cpu_shares=2)).before == (CgroupLimits(cpu_shares=2),)

    def test_what_is_as_it_should_be_is_not_written(self) -> None:
        same = CgroupLimits(cpu_shares=2, cpu_quota_microseconds=1000, memory_bytes=5)
        assert pod_steps("memory", same, same) == pod_steps("cpu", same, same) == PodSteps()
        assert pod_steps("memory", same, CgroupLimits()) == pod_steps("cpu", same, CgroupLimits()) == PodSteps()

    def test_the_runtime_hears_of_all_limits(self) -> None:
        now = CgroupLimits(cpu_shares=2, memory_bytes=5, unified={"memory.low": "1"})
        after = merged(now, CgroupLimits(memory_bytes=9, unified={"memory.high": "7"}))
        assert to_cri_pod_resources(after) == cri.LinuxContainerResources(
            cpu_shares=2, memory_limit_in_bytes=9, unified={"memory.low": "1", "memory.high": "7"}
        )
        assert to_cri_pod_resources(CgroupLimits()) == cri.LinuxContainerResources()
        quota = CgroupLimits(cpu_quota_microseconds=5, cpu_period_microseconds=50)
        assert to_cri_pod_resources(quota) == cri.LinuxContainerResources(cpu_quota=5, cpu_period=50)

    def test_the_runtime_hears_of_the_overhead_apart(self) -> None:
        """As when the sandbox is made: a pod in a machine of its own must not be sized with it twice."""
        overhead = {"cpu": "250m", "memory": "160Mi"}
        pod = CgroupLimits(cpu_shares=512, cpu_quota_microseconds=75_000, memory_bytes=(160 << 20) + 7)
        bare = without_overhead(pod, overhead)
        assert (bare.cpu_shares, bare.cpu_quota_microseconds, bare.memory_bytes) == (256, 50_000, 7)
        slow = without_overhead(replace(pod, cpu_period_microseconds=200_000), {"cpu": "250m"})
        assert (slow.cpu_quota_microseconds, slow.memory_bytes) == (25_000, pod.memory_bytes)
        tiny = without_overhead(pod, {"cpu": "5m"})
        assert tiny.cpu_quota_microseconds == (pod.cpu_quota_microseconds or 0) - 1000, "no quota is below 1 ms"
        assert without_overhead(CgroupLimits(cpu_shares=2), overhead) == CgroupLimits(cpu_shares=2)
        endless = CgroupLimits(cpu_quota_microseconds=-1, memory_bytes=-1)
        assert without_overhead(endless, overhead) == endless
        assert without_overhead(pod, None) == pod

    def test_memory_in_use_is_not_taken_away(self) -> None:
        shrink = update("a", Amounts(memory_limit_bytes=100), Amounts(memory_limit_bytes=50))
        grow = update("b", Amounts(memory_limit_bytes=100), Amounts(memory_limit_bytes=200))
        added = update("c", Amounts(), Amounts(memory_limit_bytes=10))
        request = update("d", Amounts(), Amounts(memory_request_bytes=10))
        updates = [shrink, grow, added, request]
        assert usage_problems(updates, None, None, {"id-a": 49, "id-c": 9}) == []
        assert usage_problems(updates, 100, 99, {"id-a": 49, "id-c": 9}) == []
        same = update("e", Amounts(1, 1, 1, 100), Amounts(2, 2, 1, 100))
        assert usage_problems([same], None, None, {"id-e": 100}) == [], "a limit that stays takes nothing"
        assert usage_problems(updates, 100, None, {"id-a": None, "id-c": 10}) == [
            "missing pod memory usage",
            'missing container "a" memory usage',
            'attempting to set container "c" memory limit (10) below current usage (10)',
        ]
        assert usage_problems([], 100, 100, {}) == [
            "attempting to set pod memory limit (100) below current usage (100)"
        ]


def reported(**fields: Any) -> cri.LinuxContainerResources:
    return cri.LinuxContainerResources(**fields)


class TestStatus:
    ALLOCATED = REQUIREMENTS(**sized())

    def test_a_container_shows_what_the_runtime_reports(self) -> None:
        actual = reported(cpu_shares=204, cpu_quota=20_000, cpu_period=100_000, memory_limit_in_bytes=32 * MI)
        run = make_run("app", resources=actual)
        shown = container_resources(self.ALLOCATED, run, REQUIREMENTS(requests={"memory": "16Mi"}))
        assert shown == REQUIREMENTS(
            requests={"cpu": "200m", "memory": "16Mi"}, limits={"cpu": "200m", "memory": "32Mi"}
        )

    def test_a_runtime_that_reports_nothing_has_what_it_was_told(self) -> None:
        assert container_resources(self.ALLOCATED, make_run("app"), REQUIREMENTS(**sized("300m"))) == REQUIREMENTS(
            **sized("300m")
        )
        assert container_resources(self.ALLOCATED, make_run("app"), None) == self.ALLOCATED

    def test_what_does_not_run_shows_what_was_allocated(self) -> None:
        assert (
            container_resources(self.ALLOCATED, make_run("app", EXITED), REQUIREMENTS(**sized("300m")))
            is self.ALLOCATED
        )
        assert container_resources(None, make_run("app"), self.ALLOCATED) is None

    def test_only_what_was_asked_for_is_shown(self) -> None:
        """A container without requests has shares all the same, and one without limits no quota."""
        run = make_run("app", resources=reported(cpu_shares=2, cpu_quota=-1, cpu_period=100_000))
        only_limits = REQUIREMENTS(limits={"memory": "1Mi"})
        assert container_resources(only_limits, run, None) == only_limits

    def test_a_runtime_without_a_quota_or_a_limit_takes_nothing_from_what_was_asked(self) -> None:
        """-1 and 0 are no amounts."""
        run = make_run("app", resources=reported(cpu_shares=102, cpu_quota=-1, cpu_period=100_000))
        assert container_resources(self.ALLOCATED, run, None) == self.ALLOCATED
        run = make_run("app", resources=reported(cpu_shares=102, cpu_quota=0, memory_limit_in_bytes=-1))
        assert container_resources(self.ALLOCATED, run, None) == self.ALLOCATED

    def test_far_less_than_was_asked_is_shown_as_it_is(self) -> None:
        run = make_run("app", resources=reported(cpu_shares=2, cpu_quota=1000, cpu_period=100_000))
        shown = container_resources(self.ALLOCATED, run, None)
        assert shown is not None
        assert (shown.requests or {})["cpu"] == "2m"
        assert (shown.limits or {})["cpu"] == "10m"

    def test_the_same_amount_keeps_its_spelling(self) -> None:
        asked = REQUIREMENTS(requests={"cpu": "0.1"}, limits={"cpu": "0.2", "memory": "1024Ki"})
        actual = reported(cpu_shares=102, cpu_quota=20_000, cpu_period=100_000, memory_limit_in_bytes=MI)
        assert container_resources(asked, make_run("app", resources=actual), None) == asked
        pod = make_pod("app", resources={"requests": {"cpu": "0.1"}, "limits": {"cpu": "0.2", "memory": "1024Ki"}})
        cgroup = CgroupLimits(
            cpu_shares=102, cpu_quota_microseconds=20_000, cpu_period_microseconds=100_000, memory_bytes=MI
        )
        assert pod_resources(pod, True, cgroup, None) == asked
        assert pod_resources(pod, True, CgroupLimits(), asked) == asked, "as before the agent was restarted"

    def test_claims_stay(self) -> None:
        claims = [{"name": "gpu"}]
        pod = make_pod("app", resources={"claims": claims})
        for is_running in (True, False):
            shown = pod_resources(pod, is_running, CgroupLimits(), None)
            assert [claim.name for claim in shown.claims or ()] == ["gpu"]

    def test_amounts_below_the_kernels_least_are_shown_as_asked(self) -> None:
        run = make_run("app", resources=reported(cpu_shares=2, cpu_quota=1000, cpu_period=100_000))
        tiny = REQUIREMENTS(requests={"cpu": "1m"}, limits={"cpu": "5m"})
        assert container_resources(tiny, run, None) == tiny

    def test_the_pod_as_a_whole(self) -> None:
        pod = a_pod()
        summed = {"cpu": "100m", "memory": "64Mi"}
        assert allocated_pod_resources(pod) == summed
        assert allocated_pod_resources(make_pod("app")) is None
        assert pod_resources(pod, False, CgroupLimits(), None) == REQUIREMENTS(requests=summed, limits=summed)
        assert pod_resources(make_pod("app"), False, CgroupLimits(), None) == REQUIREMENTS()
        assert pod_resources(pod, True, compute_pod_limits(pod, CgroupSettings()), None) == REQUIREMENTS(
            requests=summed, limits=summed
        )
        assert pod_resources(make_pod("app"), True, CgroupLimits(), None) == REQUIREMENTS()

    def test_pod_level_resources_are_shown_as_asked_where_cgroups_only_round(self) -> None:
        own: dict[str, Any] = {"requests": {"cpu": "101m", "memory": "1Mi"}, "limits": {"cpu": "5m", "memory": "2Mi"}}
        pod = make_pod("app", resources=own)
        exact = CgroupLimits(
            cpu_shares=103, cpu_quota_microseconds=1000, cpu_period_microseconds=100_000, memory_bytes=2 * MI
        )
        assert pod_resources(pod, True, exact, None) == REQUIREMENTS(**own)
        changed = CgroupLimits(
            cpu_shares=204, cpu_quota_microseconds=20_000, cpu_period_microseconds=100_000, memory_bytes=MI
        )
        assert pod_resources(pod, True, changed, None) == REQUIREMENTS(
            requests={"cpu": "200m", "memory": "1Mi"}, limits={"cpu": "200m", "memory": "1Mi"}
        )
        assert pod_resources(make_pod("app"), True, CgroupLimits(cpu_shares=2), None).requests is None

    def test_the_conditions_are_in_the_status_of_a_pod_that_lives(self) -> None:
        pending = condition("PodResizePending", None, "Deferred", "", 1, NOW)
        context = StatusContext(NOW_NS, "fake", resize_conditions=[pending])
        status = compute_pod_status(a_pod(), make_observed(make_run("app", RUNNING)), context)
        assert status.conditions is not None
        assert status.conditions[-1] is pending
        done = make_pod("app", restartPolicy="Never")
        ended = compute_pod_status(done, make_observed(make_run("app", EXITED)), context)
        assert ended.phase == "Succeeded"
        assert pending not in (ended.conditions or ())
