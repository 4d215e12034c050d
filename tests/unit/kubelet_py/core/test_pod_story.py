"""Stories are bounded, and say what a person needs."""

from kubelet_py.core.actions import ContainerKind, CreateSandbox, KillContainer, StartContainer
from kubelet_py.core.pod_story import PodStories, StoryEntry, describe, describe_all, digest
from tests.sim.pods import EXITED, NOTHING, RUNNING, make_observed, make_run, make_sandbox


def entry(at_ns: int, observation: str = "nothing", stimulus: str = "relist") -> StoryEntry:
    return StoryEntry(at_ns, stimulus, observation)


def test_a_story_is_told_oldest_first_and_is_bounded() -> None:
    """The newest entries stay."""
    stories = PodStories(max_entries=2)
    for n in range(3):
        stories.add("u", entry(n, f"look {n}"))
    assert [e.observation for e in stories.tell("u")] == ["look 1", "look 2"]
    assert stories.tell("stranger") == ()


def test_idle_passes_are_counted_and_push_nothing_out() -> None:
    """The last time is kept."""
    stories = PodStories()
    stories.add("u", entry(1, "first"))
    for n in range(2, 6):
        stories.add("u", entry(n, "same", f"tick {n}"))
    assert stories.tell("u") == (entry(1, "first"), StoryEntry(5, "tick 5", "same", repeats=3))


def test_the_pod_told_about_longest_ago_is_given_up_first() -> None:
    """A pod that comes and goes does not fill the memory."""
    stories = PodStories(max_pods=2)
    for n, uid in enumerate(("a", "b", "a", "c")):
        stories.add(uid, entry(n, str(n)))
    assert stories.tell("b") == ()
    assert len(stories.tell("a")) == 2
    stories.forget("a")
    stories.forget("a")
    assert stories.tell("a") == ()


def test_an_observation_in_one_line() -> None:
    """Sandboxes, then the newest run of each container."""
    observed = make_observed(
        make_run("app", EXITED, 0, exit_code=1),
        make_run("app", RUNNING, 1),
        make_run("db", EXITED, 2, exit_code=137, reason="OOMKilled"),
        make_run("tool", EXITED),
        sandboxes=[make_sandbox("s1", 1), make_sandbox("s0", 0, ready=False)],
    )
    assert digest(observed) == (
        "sandbox#1 ready, sandbox#0 not ready, app#1 running, db#2 exited(137 OOMKilled), tool#0 exited(0)"
    )
    assert digest(NOTHING) == "nothing"


def test_actions_in_one_line_each() -> None:
    """Kind, object, cause; what is unset is left out."""
    plan = (
        CreateSandbox(2, "pod sandbox is not ready"),
        StartContainer("app", ContainerKind.MAIN, 3, "it ended"),
        KillContainer("id", "app", "it is ill", grace_period_override_seconds=5),
    )
    assert describe_all(plan) == (
        "CreateSandbox(attempt=2): pod sandbox is not ready",
        "StartContainer(container_name=app, kind=main, restart_count=3): it ended",
        "KillContainer(container_name=app, grace_period_override_seconds=5): it is ill",
    )
    assert describe(KillContainer("id", "app", "old")) == "KillContainer(container_name=app): old"
