"""Pods that are made, changed, deleted and made again under their name, in any order and at any speed.

What the Go kubelet promises of them (facts of its pod workers, in `Promises`) holds at every call to the runtime; when
the sources have said their last word, the node comes to have what they hold and nothing else.
"""

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import looptime
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.admission import NodeState
from kubelet_py.core.pod_worker import KillRequested
from kubelet_py.core.source_merge import PodSet
from tests.fakes.runtime import FakeRuntimeClient
from tests.fakes.runtime_objects import FakeContainer
from tests.unit.kubelet_py.sync.agent import Agent
from tests.unit.kubelet_py.sync.rig import InlineExecutor, LoopClock, Rig, a_container, a_pod

API, FILE = "api", "file"
CALM = "calm"
"""A pod that nobody touches: whatever happens to the others, its container starts once."""
IMAGES = [f"registry.example/app:{number}" for number in range(3)]
MAIN = {API: "main", FILE: "static", CALM: "calm"}
DELETED_AT = datetime(2024, 1, 1, tzinfo=UTC)
FINAL = ("Succeeded", "Failed")
MINIMUM_GRACE_SECONDS = 2
"""As little as a container gets when a pod is stopped."""
SLACK_SECONDS = 10
"""For everything beside the waiting itself, with a runtime that is slow."""
REST_SECONDS = 900
"""Longer than the longest back-off, a grace period and a resync together."""


@dataclass(frozen=True)
class Wish:
    """A pod as its source has it."""

    uid: str
    name: str
    source: str
    restart: str = "Always"
    image: int = 0
    label: int = 0
    spec_grace_seconds: int = 30
    deletion_seconds: int | None = None

    def pod(self, status: core_v1.PodStatus | None) -> core_v1.Pod:
        metadata: dict[str, Any] = {"name": self.name, "uid": self.uid, "labels": {"v": str(self.label)}}
        if self.deletion_seconds is not None:
            metadata |= {"deletionTimestamp": DELETED_AT, "deletionGracePeriodSeconds": self.deletion_seconds}
        pod = a_pod(
            a_container(CALM if self.name == CALM else MAIN[self.source], image=IMAGES[self.image]),
            metadata=metadata,
            restartPolicy=self.restart,
            terminationGracePeriodSeconds=self.spec_grace_seconds,
        )
        pod.status = status if self.source == API else None
        return pod


@dataclass
class Promises:
    """What must hold of every call; `told` is what the agent has been told of each UID, as it was told it."""

    told: dict[str, Wish] = field(default_factory=dict)
    limits_seconds: dict[str, int] = field(default_factory=dict)
    """By UID of a pod that was told to end: the longest that a stop may take from then on."""
    deadlines: dict[str, float] = field(default_factory=dict)
    """When nothing of it may run any more, by the loop's clock."""
    starts: Counter[str] = field(default_factory=Counter)
    counts: dict[str, int] = field(default_factory=dict)
    static_names: dict[str, str] = field(default_factory=dict)

    def hear(self, before: dict[str, Wish], now: dict[str, Wish]) -> None:
        """The agent is told another set."""
        for uid, wish in now.items():
            if uid not in before and wish.source == FILE:  # written again with the same content: another life
                self.forgive(uid)
                self.counts.pop(uid, None)
                self.starts[uid] = 0
            if wish.source == FILE:
                self.static_names[uid] = wish.name
            if wish.deletion_seconds is not None:
                self._limit(uid, wish.deletion_seconds)
        for uid in before.keys() - now.keys() - self.limits_seconds.keys():
            self._limit(uid, before[uid].spec_grace_seconds)
        self.told = dict(now)

    def forgive(self, uid: str) -> None:
        """The pod may run again."""
        self.limits_seconds.pop(uid, None)
        self.deadlines.pop(uid, None)

    def evict(self, uid: str, grace_seconds: int) -> None:
        """The agent itself ends the pod."""
        if uid in self.told:
            self._limit(uid, grace_seconds)

    def _limit(self, uid: str, seconds: int) -> None:
        self.limits_seconds[uid] = max(MINIMUM_GRACE_SECONDS, min(seconds, self.limits_seconds.get(uid, seconds)))
        deadline = asyncio.get_running_loop().time() + self.limits_seconds[uid] + SLACK_SECONDS
        self.deadlines[uid] = min(deadline, self.deadlines.get(uid, deadline))

    def start(self, container: FakeContainer, others: list[FakeContainer]) -> None:
        """A container is about to be started."""
        uid = _uid(container)
        assert uid in self.told, f"{uid} is started and no source has it"
        assert uid not in self.limits_seconds, f"{uid} is started and was told to end"
        running = [other for other in others if other.runs and other is not container]
        assert not [o for o in running if _uid(o) == uid and o.name == container.name], "a second copy is started"
        if uid in self.static_names:
            namesakes = {other for other, name in self.static_names.items() if name == self.static_names[uid]}
            assert not [o for o in running if _uid(o) in namesakes], "two static pods of one name run"
        count = int(container.config.annotations["io.kubernetes.container.restartCount"])
        assert count > self.counts.get(uid, -1), f"restart count {count} of {uid} after {self.counts[uid]}"
        self.counts[uid] = count

    def started(self, container: FakeContainer) -> None:
        """A container has been started."""
        uid = _uid(container)
        self.starts[uid] += 1
        if self.told[uid].restart == "Never":
            assert self.starts[uid] == 1, "what must never be restarted was started twice"

    def stop(self, container: FakeContainer, grace_seconds: int) -> None:
        """A container is about to be stopped."""
        limit_seconds = self.limits_seconds.get(_uid(container))
        if limit_seconds is not None:
            assert grace_seconds <= limit_seconds, f"a stop may take {grace_seconds} s, {limit_seconds} s were given"


class Witness(FakeRuntimeClient):
    """The runtime, which sees what is asked of it."""

    promises: Promises
    broken: AssertionError | None = None
    """The first promise that was not kept; the agent takes any exception for a fault of one pod."""

    delay_seconds = 0.0
    """Before a call does its work, and again before it answers."""

    async def run_pod_sandbox(self, config: cri.PodSandboxConfig, runtime_handler: str) -> str:
        await asyncio.sleep(self.delay_seconds)
        sandbox_id = await super().run_pod_sandbox(config, runtime_handler)
        await asyncio.sleep(self.delay_seconds)
        return sandbox_id

    async def create_container(
        self, sandbox_id: str, config: cri.ContainerConfig, sandbox_config: cri.PodSandboxConfig
    ) -> str:
        await asyncio.sleep(self.delay_seconds)
        container_id = await super().create_container(sandbox_id, config, sandbox_config)
        await asyncio.sleep(self.delay_seconds)
        return container_id

    async def start_container(self, container_id: str) -> None:
        container = self.containers.get(container_id)
        if container is not None:
            self._judge(lambda: self.promises.start(container, list(self.containers.values())))
        try:
            await asyncio.sleep(self.delay_seconds)
            await super().start_container(container_id)
            await asyncio.sleep(self.delay_seconds)
        finally:
            if container is not None and container.started_at:
                self._judge(lambda: self.promises.started(container))

    async def stop_container(self, container_id: str, grace_period_seconds: int) -> None:
        container = self.containers.get(container_id)
        if container is not None:
            self._judge(lambda: self.promises.stop(container, grace_period_seconds))
        await super().stop_container(container_id, grace_period_seconds)

    def _judge(self, look: Any) -> None:
        try:
            look()
        except AssertionError as error:
            self.broken = self.broken or error


def _uid(container: FakeContainer) -> str:
    return str(container.config.labels[pods.POD_UID_LABEL])


@dataclass(frozen=True)
class Step:
    """Something happens; `pick` says to whom, `number` how much of it; then `pause_seconds` pass, None for no time."""

    name: str
    pick: int
    number: int
    pause_seconds: float | None


class Drama:
    """The sources, the runtime and the agent."""

    def __init__(self, root: Path) -> None:
        self.rig = Rig(root, LoopClock(), Witness)
        assert isinstance(self.rig.fake, Witness)
        self.fake = self.rig.fake
        self.fake.promises = self.promises = Promises()
        for image in IMAGES:
            self.fake.add_image(image)
        self.wishes: dict[str, Wish] = {}
        self.written: dict[str, core_v1.PodStatus] = {}
        self.evicted: set[str] = set()
        self.may_be_late = False
        """A call failed, or nobody was there to make it."""
        self._numbers = 0
        self._revision: Counter[str] = Counter()
        self._agent: Agent | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def agent(self) -> Agent:
        assert self._agent is not None
        return self._agent

    async def begin(self) -> None:
        self.rig.volumes._threads = InlineExecutor()
        self._agent = Agent(self.rig, (API, FILE))
        self._agent.node = NodeState("node-1", allocatable={"pods": "100"})
        self._task = asyncio.get_running_loop().create_task(self._run(self._agent))
        await self.deliver()

    async def _run(self, agent: Agent) -> None:
        """With its garbage collection: what an agent leaves that is killed after a pod's end has nobody else."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(agent.run())
            tasks.create_task(agent.container_gc().run())

    async def end(self) -> None:
        """The agent is killed, whatever it does at that moment."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def deliver(self) -> None:
        """The agent hears what the sources have; what it reported and finished has reached the API server."""
        self.note_statuses()
        finished = set(self.rig.statuses.finished)
        self.wishes = {
            uid: wish for uid, wish in self.wishes.items() if wish.deletion_seconds is None or uid not in finished
        }
        self.promises.hear(self.promises.told, self.wishes)
        for source in (API, FILE):
            given = [wish.pod(self.written.get(uid)) for uid, wish in self.wishes.items() if wish.source == source]
            await self.agent.loop.accept(PodSet(source, tuple(given)))

    def note_statuses(self) -> None:
        """A final phase is final."""
        for uid, status in self.rig.statuses.newest.items():
            before = self.written.get(uid)
            if before is not None and before.phase in FINAL and uid not in self.promises.static_names:
                assert status.phase == before.phase, f"{uid} was {before.phase} and is {status.phase}"
            self.written[uid] = status

    def make(self, name: str, source: str, **fields: Any) -> None:
        self._numbers += 1
        uid = f"0a1b2c3d-0000-4000-8000-{self._numbers:012d}"
        self.wishes[uid] = Wish(uid, name, source, **fields)

    def pick(self, step: Step, source: str = API) -> Wish | None:
        found = [w for w in self.wishes.values() if w.source == source and w.name != CALM]
        return found[step.pick % len(found)] if found else None

    async def play(self, step: Step) -> None:
        await getattr(self, f"do_{step.name}")(step)
        if step.pause_seconds is not None:
            await self.deliver()
            await asyncio.sleep(step.pause_seconds)
        self.check()

    def check(self) -> None:
        """What can be seen at any time."""
        assert self._task is not None
        if self._task.done():
            self._task.result()
        if self.fake.broken is not None:
            raise self.fake.broken
        self.note_statuses()
        now = asyncio.get_running_loop().time()
        for uid, deadline in self.promises.deadlines.items():
            assert self.may_be_late or now < deadline or not self.fake.running(uid), f"{uid} runs past its time"
        for uid in set(self.rig.statuses.finished) - self.promises.static_names.keys():
            assert not self.fake.running(uid), f"{uid} is called finished and runs"

    async def rest(self) -> None:
        """Everything works again and the sources are silent, but for deletions that the agent has finished."""
        self.fake.heal()
        self.fake.delay_seconds = 0
        for _ in range(REST_SECONDS // 15):
            await self.deliver()
            await asyncio.sleep(15)
            self.check()
            with contextlib.suppress(AssertionError):
                check_rest(self)
                break
        await asyncio.sleep(15)
        self.check()
        check_rest(self)

    # What can happen

    async def do_make(self, step: Step) -> None:
        name = ("web", "db")[step.pick % 2]
        if not [w for w in self.wishes.values() if (w.name, w.source) == (name, API)]:
            restart = ("Always", "Always", "OnFailure", "Never")[step.number % 4]
            self.make(name, API, restart=restart, spec_grace_seconds=(1, 5, 30)[step.number % 3])

    async def do_image(self, step: Step) -> None:
        wish = self.pick(step)
        if wish is not None and wish.restart == "Always":
            self.wishes[wish.uid] = replace(wish, image=step.number % len(IMAGES))

    async def do_label(self, step: Step) -> None:
        wish = self.pick(step)
        if wish is not None:
            self.wishes[wish.uid] = replace(wish, label=wish.label + 1)

    async def do_delete(self, step: Step) -> None:
        """Again, it can only be hurried."""
        wish = self.pick(step)
        if wish is not None:
            seconds = (1, 3, 20, 60)[step.number % 4]
            seconds = min(seconds, wish.deletion_seconds or seconds)
            self.wishes[wish.uid] = replace(wish, deletion_seconds=seconds)

    async def do_force(self, step: Step) -> None:
        wish = self.pick(step)
        if wish is not None:
            del self.wishes[wish.uid]

    async def do_replace(self, step: Step) -> None:
        """Deleted by force and made again before anybody hears of it."""
        wish = self.pick(step)
        if wish is not None:
            del self.wishes[wish.uid]
            self.make(wish.name, API, restart=wish.restart)

    async def do_manifest(self, step: Step) -> None:
        """The file is written with other content, which is another pod of the same name."""
        old = self.pick(step, FILE)
        if old is not None:
            del self.wishes[old.uid]
        self.make("static", FILE, restart=("Always", "Never")[step.number % 2], spec_grace_seconds=5)

    async def do_unlink(self, step: Step) -> None:
        old = self.pick(step, FILE)
        if old is not None:
            del self.wishes[old.uid]

    async def do_rewrite(self, step: Step) -> None:
        """The file goes and comes back with the same content, which is the same pod."""
        old = self.pick(step, FILE)
        if old is not None:
            del self.wishes[old.uid]
            await self.deliver()
            await asyncio.sleep((0, 0.01, 1, 7)[step.number % 4])
            self.wishes[old.uid] = old

    async def do_evict(self, step: Step) -> None:
        wish = self.pick(step)
        if wish is not None and self.agent.workers.state(wish.uid) is not None:
            seconds = (1, 4)[step.number % 2]
            self.promises.evict(wish.uid, seconds)
            self.evicted.add(wish.uid)
            request = KillRequested("memory is short", is_eviction=True, grace_override_seconds=seconds)
            self.agent.workers.kill(wish.uid, request, ("Evicted", "The node was low on resource: memory."))

    async def do_exit(self, step: Step) -> None:
        running = [c for c in self.fake.containers.values() if c.runs and c.name != CALM]
        if running:
            self.fake.exit(running[step.pick % len(running)], (0, 1)[step.number % 2])

    async def do_pause_dies(self, step: Step) -> None:
        calm = {uid for uid, wish in self.wishes.items() if wish.name == CALM}
        ready = [s for s in self.fake.ready_sandboxes() if s.uid not in calm]
        if ready:
            self.fake.kill_sandbox(ready[step.pick % len(ready)])

    async def do_fail(self, step: Step) -> None:
        """The next call of this kind fails, or does its work and the answer is lost."""
        self.may_be_late = True
        call = ("RunPodSandbox", "CreateContainer", "StartContainer", "StopContainer", "StopPodSandbox")[step.pick % 5]
        self.fake.fail(call, after=step.number % 2 == 1)

    async def do_slow(self, step: Step) -> None:
        """The runtime takes its time, so that more happens in the middle of passes."""
        self.fake.delay_seconds = (0, 0.05, 0.4, 1)[step.number % 4]

    async def do_stubborn(self, step: Step) -> None:
        """Containers heed SIGTERM no more, or do again."""
        self.fake.stubborn = {MAIN[API], MAIN[FILE]} if step.number % 2 else set()

    async def do_restart(self, step: Step) -> None:
        """The agent is killed and started again: it has the runtime, its files and what the sources have."""
        self.note_statuses()
        await self.end()
        self.may_be_late = True
        for uid in self.evicted:
            status = self.written.get(uid)
            is_wanted = uid in self.wishes and self.wishes[uid].deletion_seconds is None
            if is_wanted and (status is None or status.phase not in FINAL):
                self.promises.forgive(uid)  # the reason was lost with the agent
        self.evicted.clear()
        self.rig.boot()
        await self.begin()


KINDS = [name.removeprefix("do_") for name in vars(Drama) if name.startswith("do_")]
steps = st.builds(
    Step,
    st.sampled_from(["make", "make", "delete", *KINDS]),
    st.integers(0, 4),
    st.integers(0, 11),
    st.sampled_from([None, 0, 0, 0.01, 0.3, 2, 12, 45]),
)


async def play(root: Path, history: list[Step]) -> None:
    with capture_logs():
        asyncio.get_running_loop().set_default_executor(InlineExecutor())
        drama = Drama(root)
        drama.make(CALM, API)
        await drama.begin()
        await asyncio.sleep(1)
        calm = drama.fake.container(CALM)
        for step in history:
            event(step.name)
            await drama.play(step)
        await drama.rest()
        assert calm.runs
        assert [c for c in drama.fake.containers.values() if c.name == CALM] == [calm]
        await drama.end()


def check_rest(drama: Drama) -> None:
    """The node has what the sources hold, each pod as it was last, and nothing of any other."""
    wishes = drama.wishes
    assert not [uid for uid, wish in wishes.items() if wish.deletion_seconds is not None]
    assert {s.uid for s in drama.fake.sandboxes.values()} <= wishes.keys()
    assert drama.agent.workers.states().keys() == wishes.keys()
    assert drama.rig.cgroups.made <= wishes.keys()
    assert {path.name for path in drama.rig.volumes.dirs.pods.iterdir()} <= wishes.keys()
    for uid, wish in wishes.items():
        running = [c for c in drama.fake.containers.values() if c.runs and _uid(c) == uid]
        status = drama.rig.statuses.newest[pods.PodUid(uid)]
        if status.phase in FINAL:
            assert wish.restart != "Always" or status.reason == "Evicted", (wish, status)
            assert not running
            continue
        assert status.phase == "Running", (wish, status)
        assert [c.config.image.user_specified_image for c in running] == [IMAGES[wish.image]]
        assert len(drama.fake.ready_sandboxes(uid)) == 1


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("histories")


# the agent is killed between the end of a pod that nobody wants and its removal
KILLED_BEFORE_THE_REMOVAL = [
    Step("make", 0, 7, 0.3),
    Step("exit", 0, 0, 2),
    Step("force", 0, 0, 0),
    Step("restart", 0, 0, None),
    Step("make", 0, 0, 12),
]


@example(KILLED_BEFORE_THE_REMOVAL)
@given(st.lists(steps, max_size=30))
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_history_of_a_name_keeps_the_promises_and_comes_to_rest(root: Path, history: list[Step]) -> None:
    """No second copy, no start after the end was told, stops in their time, counts that grow, one static pod a name."""
    home = root / str(len(list(root.iterdir())))
    home.mkdir()
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(play(home, history))
