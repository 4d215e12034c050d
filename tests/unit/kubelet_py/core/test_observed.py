"""Questions to an observation."""

from tests.sim.pods import CREATED, EXITED, NOTHING, RUNNING, UNKNOWN, make_observed, make_run, make_sandbox


def test_the_newest_run_comes_first() -> None:
    """By name; None for a stranger."""
    old, new = make_run("app", EXITED, 0), make_run("app", RUNNING, 1)
    observed = make_observed(old, new)
    assert observed.newest("app") == new
    assert observed.named("app") == (new, old)
    assert observed.newest("web") is None


def test_what_runs_and_what_may_run() -> None:
    """A stop must reach also what nobody can tell."""
    runs = [make_run(str(state), state) for state in (RUNNING, UNKNOWN, EXITED, CREATED)]
    observed = make_observed(*runs)
    assert [c.name for c in observed.running] == ["running"]
    assert sorted(c.name for c in observed.alive) == ["running", "unknown"]


def test_sandboxes() -> None:
    """The newest, and those that are ready."""
    new, old = make_sandbox("s1", 1, ready=False), make_sandbox("s0", 0)
    observed = make_observed(sandboxes=[new, old])
    assert observed.newest_sandbox == new
    assert observed.ready_sandboxes == (old,)
    assert NOTHING.newest_sandbox is None


def test_what_has_ended_since() -> None:
    """Of a run that came meanwhile too; one that was seen ended, and what is gone, is no news."""
    seen = make_observed(make_run("app", RUNNING, 1), make_run("old", EXITED), make_run("gone", RUNNING))
    assert make_observed(make_run("app", EXITED, 1)).has_exits_since(seen)
    assert make_observed(make_run("app", EXITED, 2), make_run("app", RUNNING, 1)).has_exits_since(seen)
    assert not make_observed(make_run("app", RUNNING, 1), make_run("old", EXITED)).has_exits_since(seen)
    assert not NOTHING.has_exits_since(seen)
