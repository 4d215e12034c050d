"""The last things that happened to a pod and why, for the person who asks at 3 a.m.

Each pass of a pod's worker leaves one entry: what woke it, what it saw, what it decided, how that ended. The story is
bounded, by entries for a pod and by pods for the node; it is told by `kubelet-py why` and by InvalidTransition.

Upstream counterpart: none.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, fields

from kubelet_py.core.actions import Action
from kubelet_py.core.observed import ContainerState, ObservedContainer, ObservedPod


@dataclass(frozen=True, slots=True)
class StoryEntry:
    """One pass. All texts are for people; `at_ns` is the end of the pass. `repeats` counts equal passes after it."""

    at_ns: int
    stimulus: str
    observation: str
    actions: tuple[str, ...] = ()
    result: str = "done"
    repeats: int = 0

    def same_as(self, other: "StoryEntry") -> bool:
        """Nothing new but the time."""
        return (self.observation, self.actions, self.result) == (other.observation, other.actions, other.result)


class PodStories:
    """The stories of all pods of the node, the least recently told about given up first."""

    def __init__(self, max_entries: int = 32, max_pods: int = 512) -> None:
        self._max_entries = max_entries
        self._max_pods = max_pods
        self._stories: OrderedDict[str, deque[StoryEntry]] = OrderedDict()

    def add(self, uid: str, entry: StoryEntry) -> None:
        """Appends; an entry that repeats the last one is only counted there, so that idle passes push nothing out."""
        story = self._stories.setdefault(uid, deque(maxlen=self._max_entries))
        self._stories.move_to_end(uid)
        if story and story[-1].same_as(entry):
            last = story.pop()
            entry = StoryEntry(
                entry.at_ns, entry.stimulus, last.observation, last.actions, last.result, last.repeats + 1
            )
        story.append(entry)
        while len(self._stories) > self._max_pods:
            self._stories.popitem(last=False)

    def tell(self, uid: str) -> tuple[StoryEntry, ...]:
        """The entries, oldest first; empty for a pod nobody knows."""
        return tuple(self._stories.get(uid, ()))

    def forget(self, uid: str) -> None:
        """Drops a pod's story."""
        self._stories.pop(uid, None)


def _digest_container(container: ObservedContainer) -> str:
    text = f"{container.name}#{container.restart_count} {container.state}"
    if container.state is not ContainerState.EXITED:
        return text
    reason = f" {container.reason}" if container.reason else ""
    return f"{text}({container.exit_code}{reason})"


def digest(observed: ObservedPod) -> str:
    """The observation in one line: the sandboxes and the newest run of each container."""
    sandboxes = [f"sandbox#{s.attempt} {'ready' if s.ready else 'not ready'}" for s in observed.sandboxes]
    newest = {container.name: container for container in reversed(observed.containers)}
    containers = [_digest_container(newest[name]) for name in sorted(newest)]
    return ", ".join((*sandboxes, *containers)) or "nothing"


def describe(action: Action) -> str:
    """An action in one line: its kind, what it is about, and the cause."""
    shown = [
        f"{field.name}={value}"
        for field in fields(action)
        if field.name in _SHOWN_FIELDS and (value := getattr(action, field.name)) is not None
    ]
    return f"{type(action).__name__}({', '.join(shown)}): {action.cause}"


_SHOWN_FIELDS = frozenset(
    ("container_name", "kind", "attempt", "restart_count", "remaining_seconds", "grace_period_override_seconds")
)


def describe_all(actions: Iterable[Action]) -> tuple[str, ...]:
    """The lines of a plan."""
    return tuple(describe(action) for action in actions)
