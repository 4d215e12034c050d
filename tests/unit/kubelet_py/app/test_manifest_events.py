"""Events about manifests that cannot be used."""

from kubelet_py.api import core_v1
from kubelet_py.app.manifest_events import ManifestEvents
from kubelet_py.core.source_merge import PodSet, SourceProblem


class Told:
    """A recorder, and whoever takes the sets."""

    def __init__(self) -> None:
        self.events: list[tuple[str | None, str, str, str]] = []
        self.sets: list[PodSet] = []

    def record(self, about: core_v1.ObjectReference, type_: str, reason: str, message: str) -> None:
        self.events.append((about.kind, type_, reason, message))

    async def accept(self, pod_set: PodSet) -> None:
        self.sets.append(pod_set)


async def test_each_problem_is_one_event_until_it_changes() -> None:
    """The same problem again is no event; another text, or the problem's return, is one; every set is handed on."""
    told = Told()
    source = ManifestEvents(told, "node-1", told.accept)
    broken = PodSet("file", (), (SourceProblem("/m/a.yaml", "no pod"),))
    worse = PodSet("file", (), (SourceProblem("/m/a.yaml", "no YAML"),))
    fine = PodSet("file", ())
    sets = [broken, broken, worse, fine, broken]
    for each in sets:
        await source.accept(each)
    texts = ["Manifest /m/a.yaml: no pod", "Manifest /m/a.yaml: no YAML", "Manifest /m/a.yaml: no pod"]
    assert told.events == [("Node", "Warning", "FailedValidation", text) for text in texts]
    assert told.sets == sets
