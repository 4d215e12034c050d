"""Batches of a plan, and what a failure stops."""

from dataclasses import replace

from kubelet_py.core.actions import (
    Action,
    BackOff,
    ContainerKind,
    CreateSandbox,
    KillContainer,
    KillPod,
    RemoveContainer,
    ResizePod,
    StartContainer,
    batches,
    only_adds,
)


def start(
    name: str, kind: ContainerKind = ContainerKind.MAIN, required: bool = False, has_hook: bool = False
) -> StartContainer:
    return StartContainer(name, kind, 0, "because", required=required, has_hook=has_hook)


def test_kills_go_together_and_so_do_main_containers() -> None:
    """Init containers and removals keep their order, one by one; a wait stands alone."""
    kills = (KillContainer("1", "a", "x"), KillContainer("2", "b", "x"))
    removals = (RemoveContainer("3", "c", "x"), RemoveContainer("4", "d", "x"))
    inits = (start("i", ContainerKind.INIT), start("j", ContainerKind.INIT))
    mains = (start("a"), start("b"))
    wait = BackOff("c", ContainerKind.MAIN, 3.0, "x")
    plan: tuple[Action, ...] = (*kills, *removals, *inits, *mains, wait)
    assert batches(plan) == (kills, (removals[0],), (removals[1],), (inits[0],), (inits[1],), mains, (wait,))
    assert batches(()) == ()


def test_a_post_start_hook_holds_up_the_containers_after_it() -> None:
    """Those before it start beside it."""
    a, b, c, d = start("a"), start("b", has_hook=True), start("c"), start("d", has_hook=True)
    assert batches((a, b, c, d)) == ((a, b), (c, d))
    assert batches((b, d, a)) == ((b,), (d,), (a,))


def test_what_leaves_all_as_it_is() -> None:
    """New sandboxes and containers, and waits; not the removal of what was never started, which comes with a start."""
    start_anew = replace(start("a"), leftovers=("1",))
    assert only_adds(())
    assert only_adds((CreateSandbox(0, "x"), start("a"), BackOff("b", ContainerKind.MAIN, 1.0, "x")))
    others: tuple[Action, ...] = (
        KillPod("x"), KillContainer("1", "a", "x"), RemoveContainer("1", "a", "x"), ResizePod("x"), start_anew,
    )  # fmt: skip
    assert not any(only_adds((start("b"), other)) for other in others)


def test_kill_and_start_never_run_at_the_same_time() -> None:
    """Side by side in the plan, they stay two steps."""
    kill = KillContainer("1", "a", "x")
    assert batches((kill, start("a"))) == ((kill,), (start("a"),))


def test_what_others_need_stops_the_plan() -> None:
    """A main container that does not start holds up nobody; a kill that fails does."""
    stopping: tuple[Action, ...] = (
        KillPod("x"),
        KillContainer("1", "a", "x"),
        CreateSandbox(0, "x"),
        RemoveContainer("1", "a", "x", required=True),
        start("i", ContainerKind.INIT, required=True),
    )
    harmless: tuple[Action, ...] = (
        RemoveContainer("1", "a", "x", keep_log=False),
        start("a"),
        BackOff("a", ContainerKind.MAIN, 1.0, "x"),
    )
    assert all(action.stops_plan for action in stopping)
    assert not any(action.stops_plan for action in harmless)
