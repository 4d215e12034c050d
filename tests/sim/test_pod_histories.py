"""Random histories of random pods: what Kubernetes promises holds at every step, and every history comes to rest."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelet_py.api import core_v1
from kubelet_py.api.pod import containers_of, init_containers_of, is_sidecar, spec_of
from kubelet_py.core.observed import ObservedContainer, ProbeResult, ProbeVerdict
from kubelet_py.core.pod_allocation import Amounts, amounts_of, requirements_of
from kubelet_py.core.pod_phase import FAILED, PENDING, RUNNING, SUCCEEDED
from kubelet_py.core.pod_status import StatusContext, compute_pod_status
from tests.sim.pods import SECOND, make_container, make_pod, make_sidecar, restart_rule
from tests.sim.world import World

FAILING = ProbeResult.FAILURE
PROBE = {"tcpSocket": {"port": 80}}

policies = st.sampled_from(["Always", "OnFailure", "Never"])


@st.composite
def pods(draw: st.DrawFn, own_policies: bool = True) -> core_v1.Pod:
    """Pods of all shapes that matter to the rules."""

    policy = draw(policies)

    def sized(may_restart: bool) -> dict[str, object]:
        """Some start anew for another size of memory, where the API server lets them."""
        resize_policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
        return {"resizePolicy": resize_policy if may_restart and draw(st.booleans()) else []}

    def main(name: str) -> dict[str, object]:
        own = draw(st.none() | policies) if own_policies else None
        rules = draw(
            st.sampled_from([[], [restart_rule("Restart", "In", 3)], [restart_rule("RestartAllContainers", "In", 7)]])
            if own
            else st.just([])
        )
        sizes = sized(own is None and policy == "Always")
        return make_container(name, restartPolicy=own, restartPolicyRules=rules, livenessProbe=PROBE, **sizes)

    def init(name: str) -> dict[str, object]:
        kind = draw(st.sampled_from(["init", "sidecar", "slow sidecar"]))
        if kind == "init":
            return make_container(name)
        startup = PROBE if kind == "slow sidecar" else None
        return make_sidecar(name, livenessProbe=PROBE, startupProbe=startup, **sized(True))

    return make_pod(
        *[main(name) for name in ("app", "web")[: draw(st.integers(1, 2))]],
        init=[init(f"init{n}") for n in range(draw(st.integers(0, 3)))],
        restartPolicy=policy,
        hostNetwork=draw(st.booleans()),
    )


@dataclass(frozen=True)
class Event:
    """Something that happens to the world; `pick` chooses the container."""

    name: str
    pick: int

    def apply(self, world: World) -> None:
        running = [c for c in world.containers if c.state == "running"]
        if self.name in NEEDS_CONTAINER:
            if running:
                NEEDS_CONTAINER[self.name](world, running[self.pick % len(running)])
        else:
            PLAIN[self.name](world)


def _change_image(world: World) -> None:
    """Only where an interrupted change cannot leave a container dead: see test_known_limit."""
    if spec_of(world.pod).restartPolicy != "Always" or any(c.restartPolicy for c in containers_of(world.pod)):
        return
    pod = copy.deepcopy(world.pod)
    container = containers_of(pod)[0]
    container.image = f"{container.image}x"
    world.pod = pod


def _resize(world: World) -> None:
    """Every container gets another size; memory changes each second time only."""
    pod = copy.deepcopy(world.pod)
    for container in (*init_containers_of(pod), *containers_of(pod)):
        old = amounts_of(container.resources)
        memory_bytes = old.memory_limit_bytes + (old.cpu_limit_milli // 100 % 2) * 1024
        container.resources = requirements_of(Amounts(0, old.cpu_limit_milli + 100, 0, memory_bytes))
    world.pod = pod


def _advance(world: World) -> None:
    world.now_ns += 45 * SECOND


def _fail_next(world: World) -> None:
    world.fail_next_start = True


PLAIN: dict[str, Callable[[World], None]] = {
    "pass": lambda world: world.run(world.plan()),
    "restart agent": World.forget,
    "half a pass": lambda world: world.run(world.plan()[:1]),
    "pause dies": lambda world: world.kill_sandbox(False),
    "reboot": lambda world: world.kill_sandbox(True),
    "garbage": World.collect_garbage,
    "time": _advance,
    "image": _change_image,
    "resize": _resize,
    "start fails": _fail_next,
}


def _exits(code: int) -> Callable[[World, ObservedContainer], None]:
    return lambda world, container: world.exit(container, code)


NEEDS_CONTAINER: dict[str, Callable[[World, ObservedContainer], None]] = {
    "exit 0": _exits(0),
    "exit 1": _exits(1),
    "exit 3": _exits(3),
    "exit 7": _exits(7),
    "lost": World.lose,
    "ill": lambda world, container: world.judge(container, ProbeVerdict(liveness=FAILING)),
    "started": lambda world, container: world.judge(container, ProbeVerdict(startup=ProbeResult.SUCCESS)),
    "not started": lambda world, container: world.judge(container, ProbeVerdict(startup=FAILING)),
}

events = st.builds(Event, st.sampled_from(["pass"] * 6 + list(PLAIN) + list(NEEDS_CONTAINER)), st.integers(0, 3))
histories = st.lists(events, max_size=25)
gentle_histories = st.lists(
    st.builds(
        Event,
        st.sampled_from(
            ["pass", "pass", "restart agent", "pause dies", "reboot", "garbage", "time", "lost", "exit 0", "exit 1"]
        ),
        st.integers(0, 3),
    ),
    max_size=25,
)


def live(pod: core_v1.Pod, history: list[Event]) -> World:
    """The world after a history; broken promises raise on the way."""
    world = World(pod)
    for event in history:
        event.apply(world)
    return world


def phase_of(world: World) -> str | None:
    """The phase that would be reported."""
    context = StatusContext(world.now_ns, "sim", probe_results=world.verdicts)
    return compute_pod_status(world.pod, world.observe(), context).phase


@given(pods(), histories)
@settings(max_examples=300, deadline=None)
def test_every_history_keeps_the_promises_and_comes_to_rest(pod: core_v1.Pod, history: list[Event]) -> None:
    """No second live copy, no container before its turn, a sandbox first, one plan for one input, and then nothing."""
    world = live(pod, history)
    world.settle()
    ready = [s for s in world.sandboxes if s.ready]
    assert len(ready) <= 1
    assert bool(ready) == bool(world.running_names)
    assert not [c for c in world.containers if c.state == "unknown"]
    wanted = {c.name: amounts_of(c.resources) for c in (*init_containers_of(world.pod), *containers_of(world.pod))}
    assert all(world.sizes[c.id] == wanted[c.name] for c in world.containers if c.state == "running")
    if spec_of(pod).restartPolicy == "Always" and not any(c.restartPolicy for c in containers_of(pod)):
        sidecars = [c.name for c in init_containers_of(pod) if is_sidecar(c)]
        assert world.running_names == sorted([*sidecars, *(c.name for c in containers_of(pod))])
    main_names = {c.name for c in containers_of(pod)}
    if main_names.isdisjoint(world.running_names):
        assert phase_of(world) in (SUCCEEDED, FAILED)
    else:
        assert phase_of(world) == RUNNING


@given(pods(own_policies=False), gentle_histories)
@settings(max_examples=200, deadline=None)
def test_under_never_no_main_container_starts_twice(pod: core_v1.Pod, history: list[Event]) -> None:
    """Not after a crash, a reboot, a restart of the agent or garbage collection."""
    spec = msgspec.structs.replace(spec_of(pod), restartPolicy="Never")
    world = live(msgspec.structs.replace(pod, spec=spec), history)
    world.settle()
    assert all(world.starts.get(c.name, 0) <= 1 for c in containers_of(pod))


@given(pods(), histories, st.integers(0, 12))
@settings(max_examples=300, deadline=None)
def test_an_interrupted_plan_ends_where_the_whole_one_does(pod: core_v1.Pod, history: list[Event], steps: int) -> None:
    """The agent is killed in the middle of a plan; its successor looks, decides again and gets to the same end."""
    world = live(pod, history)
    world.fail_next_start = False
    interrupted = copy.deepcopy(world)
    world.settle()
    interrupted.run(interrupted.plan()[:steps])
    interrupted.forget()
    interrupted.settle()
    assert interrupted.running_names == world.running_names
    assert len([s for s in interrupted.sandboxes if s.ready]) == len([s for s in world.sandboxes if s.ready])
    assert phase_of(interrupted) == phase_of(world)


@given(pods(), histories)
@settings(max_examples=300, deadline=None)
def test_a_status_can_be_computed_at_every_moment(pod: core_v1.Pod, history: list[Event]) -> None:
    """A final phase never changes, restart counts never shrink, and the same input gives the same status."""
    world = World(pod)
    previous: core_v1.PodStatus | None = None
    seen: dict[str, int] = {}
    for event in history:
        event.apply(world)
        context = StatusContext(world.now_ns, "sim", previous, probe_results=world.verdicts)
        status = compute_pod_status(world.pod, world.observe(), context)
        assert status == compute_pod_status(world.pod, world.observe(), context)
        assert [c.name for c in status.initContainerStatuses or ()] == [c.name for c in init_containers_of(pod)]
        assert [c.name for c in status.containerStatuses or ()] == sorted(c.name for c in containers_of(pod))
        counts = {
            s.name: s.restartCount for s in (*(status.initContainerStatuses or ()), *(status.containerStatuses or ()))
        }
        assert all(counts[name] >= count for name, count in seen.items()), (seen, counts)
        seen = counts
        if previous is not None:
            if previous.phase in (SUCCEEDED, FAILED):
                assert status.phase == previous.phase
            if previous.phase == RUNNING and event.name not in ("pause dies", "reboot"):
                assert status.phase != PENDING or event.name in ("pass", "half a pass", "lost")
        previous = status
