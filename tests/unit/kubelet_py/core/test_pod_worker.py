"""The one-way road of a UID, input by input."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.core.pod_worker import (
    STORY_LENGTH,
    TABLE,
    CancelSync,
    CleanedUp,
    ContainersStopped,
    Finish,
    Forget,
    Input,
    InvalidTransition,
    KillRequested,
    OrphanSeen,
    Output,
    Phase,
    PodRemoved,
    PodUpdated,
    Purged,
    RunSync,
    RunTerminated,
    RunTerminating,
    StaticPodGate,
    SyncDone,
    Transition,
    WorkerState,
    could_have_running_containers,
    is_content_removable,
    open_orphan,
    open_worker,
    should_be_finished,
    transition,
    update_of,
)
from tests.sim.pods import make_pod

START = WorkerState("u-1", "web_shop")
TERMINATING = WorkerState("u-1", "web_shop", Phase.TERMINATING, grace_seconds=30)
TERMINATED = WorkerState("u-1", "web_shop", Phase.TERMINATED, grace_seconds=30)
FINISHED = WorkerState("u-1", "web_shop", Phase.FINISHED, grace_seconds=30)
DELETING = {"deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": 10}


def after(state: WorkerState, *inputs: Input) -> Transition:
    result = Transition(state)
    for input_ in inputs:
        result = transition(result.state, input_)
    return result


class TestSyncing:
    def test_an_update_wakes_the_worker(self) -> None:
        result = after(START, PodUpdated())
        assert (result.state, result.outputs) == (START, (RunSync(),))

    def test_a_deletion_begins_the_end_with_the_time_that_the_api_server_gave(self) -> None:
        result = after(START, PodUpdated(is_deleting=True, deletion_grace_seconds=10, spec_grace_seconds=30))
        assert result.state.phase is Phase.TERMINATING
        assert (result.state.is_deleted, result.state.cause) == (True, "the pod was deleted")
        assert result.outputs == (CancelSync(), RunTerminating(10))

    def test_a_final_phase_begins_the_end(self) -> None:
        """As somebody else may set it."""
        result = after(START, PodUpdated(is_terminal=True, spec_grace_seconds=30))
        assert (result.state.phase, result.state.is_deleted) == (Phase.TERMINATING, False)
        assert result.state.cause == "the phase of the pod is final"
        assert result.outputs == (CancelSync(), RunTerminating(30))

    def test_a_removed_source_begins_the_end(self) -> None:
        result = after(START, PodRemoved(spec_grace_seconds=20))
        assert (result.state.phase, result.state.is_deleted) == (Phase.TERMINATING, True)
        assert result.state.cause == "the source has the pod no more"
        assert result.outputs == (CancelSync(), RunTerminating(20))

    def test_an_eviction_begins_the_end(self) -> None:
        """With its own grace period, and remembered as an eviction."""
        result = after(START, KillRequested("node is low on memory", True, 0, 30))
        assert (result.state.is_evicted, result.state.cause) == (True, "node is low on memory")
        assert result.outputs == (CancelSync(), RunTerminating(1))

    def test_a_kill_without_a_grace_period_of_its_own_takes_that_of_the_spec(self) -> None:
        result = after(START, KillRequested("the deadline is over", spec_grace_seconds=30))
        assert (result.state.is_evicted, result.outputs) == (False, (CancelSync(), RunTerminating(30)))
        soft = after(START, KillRequested("soft eviction", True, 20, 30))
        assert soft.outputs == (CancelSync(), RunTerminating(20))

    def test_a_pass_that_found_the_work_done_begins_the_end(self) -> None:
        assert after(START, SyncDone()) == Transition(START)
        result = after(START, SyncDone(is_terminal=True, spec_grace_seconds=30))
        assert result.outputs == (CancelSync(), RunTerminating(30))
        assert result.state.cause == "the containers of the pod are through"

    def test_a_pod_that_all_sources_forgot_is_an_orphan(self) -> None:
        result = after(START, OrphanSeen())
        assert (result.state.cause, result.outputs) == ("no source knows the pod", (CancelSync(), RunTerminating(1)))
        assert after(START, OrphanSeen(7)).outputs == (CancelSync(), RunTerminating(7))


class TestTerminating:
    def test_the_grace_period_only_shrinks(self) -> None:
        """A shorter one interrupts the pass, a longer one is not heard."""
        shorter = after(TERMINATING, PodUpdated(is_deleting=True, deletion_grace_seconds=5))
        assert (shorter.state.grace_seconds, shorter.state.is_deleted) == (5, True)
        assert shorter.outputs == (CancelSync(), RunTerminating(5))
        longer = after(shorter.state, PodUpdated(is_deleting=True, deletion_grace_seconds=50))
        assert (longer.state.grace_seconds, longer.outputs) == (5, ())

    def test_a_kill_can_shorten_it_too(self) -> None:
        result = after(TERMINATING, KillRequested("evicted", True, 2))
        assert (result.state.grace_seconds, result.state.is_evicted) == (2, True)
        assert result.outputs == (CancelSync(), RunTerminating(2))

    def test_what_comes_late_changes_nothing(self) -> None:
        """The end of the cancelled pass, another look at the orphan, an update without news."""
        for input_ in (SyncDone(True), OrphanSeen(), PodUpdated(), KillRequested("again")):
            assert after(TERMINATING, input_) == Transition(TERMINATING)

    def test_the_same_uid_added_again_waits_for_the_end(self) -> None:
        """And a removal after it takes the wish back."""
        again = after(TERMINATING, PodUpdated(is_new=True))
        assert (again.state.restart_requested, again.outputs) == (True, ())
        gone = after(again.state, PodRemoved())
        assert (gone.state.restart_requested, gone.state.is_deleted) == (False, True)

    def test_stopped_containers_end_it(self) -> None:
        result = after(TERMINATING, ContainersStopped())
        assert (result.state.phase, result.outputs) == (Phase.TERMINATED, (RunTerminated(),))


class TestTerminatedAndFinished:
    def test_the_taking_down_ends_it(self) -> None:
        result = after(TERMINATED, CleanedUp())
        assert (result.state.phase, result.outputs) == (Phase.FINISHED, (Finish(),))

    @pytest.mark.parametrize("state", [TERMINATED, FINISHED])
    def test_only_wishes_are_noted(self, state: WorkerState) -> None:
        """Nothing runs any more that could be hurried."""
        for input_ in (KillRequested("late", True, 1), OrphanSeen()):
            assert after(state, input_) == Transition(state)
        assert after(state, PodUpdated(is_deleting=True)).state.is_deleted
        assert after(state, PodUpdated(is_new=True)).state.restart_requested
        assert after(state, PodRemoved()).state.is_deleted

    def test_a_finished_uid_is_forgotten(self) -> None:
        """And begins anew when it was added again meanwhile."""
        assert after(FINISHED, Purged()).outputs == (Forget(),)
        assert after(FINISHED, PodUpdated(is_new=True), Purged()).state.restart_requested


class TestBeginning:
    def test_a_pod_begins_with_a_sync(self) -> None:
        result = open_worker(make_pod("app"), is_runtime_alive=False)
        assert (result.state, result.outputs) == (START, (RunSync(),))

    def test_a_pod_that_is_being_deleted_begins_with_its_end(self) -> None:
        """The agent was restarted meanwhile; what runs is stopped properly."""
        result = open_worker(make_pod("app", metadata=DELETING), is_runtime_alive=False)
        assert result.outputs == (CancelSync(), RunTerminating(10))

    def test_a_pod_whose_phase_is_final_is_only_taken_down(self) -> None:
        """Unless something of it still lives."""
        pod = make_pod("app", status={"phase": "Succeeded"})
        dead = open_worker(pod, is_runtime_alive=False)
        assert (dead.state.phase, dead.state.is_deleted, dead.outputs) == (Phase.TERMINATED, False, (RunTerminated(),))
        alive = open_worker(pod, is_runtime_alive=True)
        assert alive.outputs == (CancelSync(), RunTerminating(30))
        deleted = make_pod("app", metadata=DELETING, status={"phase": "Failed"})
        assert open_worker(deleted, is_runtime_alive=False).state.is_deleted

    def test_an_orphan_is_stopped_and_finished(self) -> None:
        """There is nothing to take down that anybody knew of."""
        result = open_orphan("u-9", "ghost_shop")
        assert result.outputs == (CancelSync(), RunTerminating(1))
        assert (result.state.is_runtime_only, result.state.is_deleted) == (True, True)
        end = after(result.state, ContainersStopped())
        assert (end.state.phase, end.outputs) == (Phase.FINISHED, (Finish(),))

    def test_what_the_table_reads_of_a_pod(self) -> None:
        assert update_of(make_pod("app", metadata=DELETING, status={"phase": "Failed"}), is_new=True) == PodUpdated(
            is_deleting=True, is_terminal=True, is_new=True, deletion_grace_seconds=10, spec_grace_seconds=30
        )


class TestConclusions:
    def test_by_phase(self) -> None:
        phases = [START, TERMINATING, TERMINATED, FINISHED]
        assert [could_have_running_containers(s, True) for s in phases] == [True, True, False, False]
        assert [should_be_finished(s, True) for s in phases] == [False, False, False, True]

    def test_a_uid_without_a_worker_means_something_only_after_the_first_round(self) -> None:
        assert [could_have_running_containers(None, synced) for synced in (False, True)] == [True, False]
        for conclude in (is_content_removable, should_be_finished):
            assert [conclude(None, synced) for synced in (False, True)] == [False, True]

    def test_content_goes_with_the_pod_or_at_an_eviction(self) -> None:
        deleted = after(TERMINATED, PodRemoved()).state
        evicted = after(START, KillRequested("disk is full", True)).state
        assert is_content_removable(deleted, True)
        assert is_content_removable(evicted, True)
        assert not is_content_removable(TERMINATED, True)
        assert not is_content_removable(after(TERMINATING, PodRemoved()).state, True)


class TestTable:
    INPUTS: tuple[Input, ...] = (
        PodUpdated(),
        PodRemoved(),
        KillRequested("x"),
        OrphanSeen(),
        SyncDone(),
        ContainersStopped(),
        CleanedUp(),
        Purged(),
    )

    def test_what_is_not_listed_is_a_fault_and_tells_the_story(self) -> None:
        """Every pair of phase and input is either in the table or refused."""
        refused = []
        for state, input_ in itertools.product((START, TERMINATING, TERMINATED, FINISHED), self.INPUTS):
            if (state.phase, type(input_)) in TABLE:
                transition(state, input_)
                continue
            refused.append((state.phase, type(input_)))
            with pytest.raises(InvalidTransition):
                transition(state, input_)
        assert refused == [
            (Phase.SYNCING, ContainersStopped),
            (Phase.SYNCING, CleanedUp),
            (Phase.SYNCING, Purged),
            (Phase.TERMINATING, CleanedUp),
            (Phase.TERMINATING, Purged),
            (Phase.TERMINATED, SyncDone),
            (Phase.TERMINATED, ContainersStopped),
            (Phase.TERMINATED, Purged),
            (Phase.FINISHED, SyncDone),
            (Phase.FINISHED, ContainersStopped),
            (Phase.FINISHED, CleanedUp),
        ]

    def test_the_fault_names_pod_phase_input_and_story(self) -> None:
        with pytest.raises(InvalidTransition, match=r"pod web_shop \(u-1\) is syncing and got CleanedUp\(\)") as caught:
            transition(START, CleanedUp())
        assert "nothing before" in str(caught.value)
        state = after(START, PodRemoved(5)).state
        with pytest.raises(InvalidTransition) as later:
            transition(state, Purged())
        assert "syncing PodRemoved(spec_grace_seconds=5) -> terminating" in str(later.value)
        assert (later.value.state, later.value.input) == (state, Purged())

    def test_the_story_is_bounded(self) -> None:
        state = after(START, *[PodUpdated() for _ in range(2 * STORY_LENGTH)]).state
        assert len(state.story) == STORY_LENGTH


ORDER = list(Phase)
any_input = st.one_of(
    st.builds(
        PodUpdated, st.booleans(), st.booleans(), st.booleans(), st.none() | st.integers(0, 99), st.integers(0, 99)
    ),
    st.builds(PodRemoved, st.none() | st.integers(0, 99)),
    st.builds(KillRequested, st.just("x"), st.booleans(), st.none() | st.integers(0, 99), st.integers(0, 99)),
    st.builds(OrphanSeen),
    st.builds(SyncDone, st.booleans()),
    st.sampled_from([ContainersStopped(), CleanedUp(), Purged()]),
)


@given(st.lists(any_input, max_size=30), st.booleans())
def test_there_is_no_way_back(inputs: list[Input], is_orphan: bool) -> None:
    """Phases only advance, grace periods only shrink, and only a syncing pod is synced."""
    state = open_orphan("u-1", "web_shop").state if is_orphan else START
    outputs: tuple[Output, ...]
    for input_ in inputs:
        try:
            result = transition(state, input_)
        except InvalidTransition:
            continue
        new, outputs = result.state, result.outputs
        assert ORDER.index(new.phase) >= ORDER.index(state.phase)
        if state.phase is not Phase.SYNCING:
            assert new.grace_seconds is not None
            assert state.grace_seconds is not None
            assert new.grace_seconds <= state.grace_seconds
            assert RunSync() not in outputs
        if new.phase is not Phase.SYNCING:
            assert (new.grace_seconds or 0) >= 1
        assert new.is_deleted >= state.is_deleted
        assert new.is_evicted >= state.is_evicted
        state = new


class TestStaticPodGate:
    def test_one_at_a_time_and_in_the_order_of_asking(self) -> None:
        gate, first = StaticPodGate().request("web_shop", "a")
        gate, second = gate.request("web_shop", "b")
        gate, third = gate.request("web_shop", "c")
        gate, again = gate.request("web_shop", "b")
        assert (first, second, third, again) == (True, False, False, False)
        gate = gate.release("web_shop", "a")
        gate, jumped = gate.request("web_shop", "c")
        gate, started = gate.request("web_shop", "b")
        assert (jumped, started) == (False, True)
        assert gate.waiting == {"web_shop": ("c",)}

    def test_a_pod_that_has_started_may_go_on(self) -> None:
        gate, _ = StaticPodGate().request("web_shop", "a")
        assert gate.request("web_shop", "a") == (gate, True)

    def test_names_do_not_hinder_each_other(self) -> None:
        gate, _ = StaticPodGate().request("web_shop", "a")
        assert gate.request("db_shop", "b")[1]

    def test_who_gives_up_waiting_is_passed_over(self) -> None:
        gate, _ = StaticPodGate().request("web_shop", "a")
        gate, _ = gate.request("web_shop", "b")
        gate = gate.release("web_shop", "b")
        assert gate.waiting == {}
        assert gate.release("web_shop", "a") == StaticPodGate()

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=20))
    def test_never_two_and_nobody_is_forgotten(self, steps: list[tuple[bool, str]]) -> None:
        """At most one runs; when none runs, the first in the queue may."""
        gate = StaticPodGate()
        running: set[str] = set()
        for asks, uid in steps:
            if asks:
                gate, may = gate.request("n", uid)
                if may:
                    running.add(uid)
            else:
                gate = gate.release("n", uid)
                running.discard(uid)
                queue = gate.waiting.get("n", ())
                assert not queue or gate.request("n", queue[0])[1] == (not running)
            assert len(running) <= 1
            assert set(gate.started.values()) == running
