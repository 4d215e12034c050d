"""What a source's newest set of pods changes: additions, updates, removals, deletions and mere status changes.

Upstream counterpart: pkg/kubelet/config/config.go (podStorage). Differences: pods are never changed in place, each
update carries the new object; a pod whose only difference is its annotations of ours is no update (as there).
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import msgspec

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.api import pod as podlib
from kubelet_py.api.pod import CONFIG_SEEN_ANNOTATION, CONFIG_SOURCE_ANNOTATION, PodUid
from kubelet_py.core.static_pod import LOCAL_ANNOTATIONS

_LOCAL: Final = frozenset(LOCAL_ANNOTATIONS)


class PodOperation(StrEnum):
    """What happened to a pod at its source."""

    ADD = "ADD"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    """The API server has set its deletion timestamp: stop it gracefully."""
    REMOVE = "REMOVE"
    """Gone from the source."""
    RECONCILE = "RECONCILE"
    """Only its status differs from what we know."""


@dataclass(frozen=True, slots=True)
class PodUpdate:
    """One pod, as it is now, or as it was last for REMOVE."""

    operation: PodOperation
    pod: core_v1.Pod
    source: str


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """Something that a source holds and that cannot be used: a file or URL, and why."""

    location: str
    message: str


@dataclass(frozen=True, slots=True)
class PodSet:
    """Everything that a source has, and what of it cannot be used.

    `last_words`: pods that went since the set before, as the source said when they went. `changed`: those that came or
    may differ since then, where the source knows; together with `last_words` they are all that is new.
    """

    source: str
    pods: tuple[core_v1.Pod, ...]
    problems: tuple[SourceProblem, ...] = ()
    last_words: tuple[core_v1.Pod, ...] = ()
    changed: Mapping[PodUid, core_v1.Pod] | None = None

    @property
    def fresh(self) -> Collection[core_v1.Pod]:
        """The pods to look at: those that changed, or all where nobody knows."""
        return self.pods if self.changed is None else self.changed.values()

    @property
    def mirrors_may_differ(self) -> bool:
        """Whether a mirror pod is among what is new."""
        return self.changed is None or any(podlib.is_mirror(pod) for pod in (*self.changed.values(), *self.last_words))


def newest_set(waiting: PodSet | None, newer: PodSet) -> PodSet:
    """The one set to look at where another still waits: the newer, with what both have to say."""
    if waiting is None:
        return newer
    changed = None
    if waiting.changed is not None and newer.changed is not None:
        gone = {podlib.uid_of(pod) for pod in newer.last_words}
        changed = {uid: pod for uid, pod in {**waiting.changed, **newer.changed}.items() if uid not in gone}
    return replace(newer, last_words=waiting.last_words + newer.last_words, changed=changed)


@dataclass(frozen=True, slots=True)
class MergeResult:
    """The changes in the order in which they must be handled, and the source's pods from now on.

    `duplicates` are pods left out because another pod of the set has their name.
    """

    updates: tuple[PodUpdate, ...]
    pods: Mapping[PodUid, core_v1.Pod]
    duplicates: tuple[core_v1.Pod, ...] = field(default=())


def merge_pod_set(known: Mapping[PodUid, core_v1.Pod], new: PodSet, now_text: str) -> MergeResult:
    """Compares a source's set with what it gave before. `now_text` is put on pods seen for the first time."""
    changes: dict[PodOperation, list[PodUpdate]] = {operation: [] for operation in PodOperation}
    last_words = {podlib.uid_of(pod): pod for pod in new.last_words}
    pods: dict[PodUid, core_v1.Pod] = {}
    if new.changed is not None:
        pods = {uid: pod for uid, pod in known.items() if uid not in last_words}
    names: set[str] = set()
    duplicates = []
    for given in new.fresh:
        if podlib.full_name(given) in names:
            duplicates.append(given)
            continue
        names.add(podlib.full_name(given))
        uid = podlib.uid_of(given)
        before = known.get(uid)
        operation = PodOperation.ADD if before is None else _difference(before, given, new.source)
        if operation is None and before is not None:
            pods[uid] = before
            continue
        if operation is PodOperation.RECONCILE and before is not None:
            # What has not changed stays the same object, so that others see it at a glance.
            given = msgspec.structs.replace(given, spec=before.spec)
        pod = _marked(given, before, new.source, now_text)
        pods[uid] = pod
        changes[operation or PodOperation.ADD].append(PodUpdate(operation or PodOperation.ADD, pod, new.source))
    for uid in [uid for uid in known if uid not in pods]:
        changes[PodOperation.REMOVE] += _farewell(known[uid], last_words.get(uid), new.source, now_text)
    changes[PodOperation.ADD].sort(key=_creation_time)
    order = (
        PodOperation.REMOVE,
        PodOperation.ADD,
        PodOperation.UPDATE,
        PodOperation.DELETE,
        PodOperation.RECONCILE,
    )
    return MergeResult(tuple(u for operation in order for u in changes[operation]), pods, tuple(duplicates))


def with_annotations(pod: core_v1.Pod, annotations: Mapping[str, str]) -> core_v1.Pod:
    """The pod with more annotations, everything else shared."""
    metadata = msgspec.structs.replace(
        podlib.metadata_of(pod), annotations={**podlib.annotations_of(pod), **annotations}
    )
    return msgspec.structs.replace(pod, metadata=metadata)


def _marked(given: core_v1.Pod, before: core_v1.Pod | None, source: str, now_text: str) -> core_v1.Pod:
    """The pod with its source and when it was first seen."""
    seen = now_text if before is None else podlib.annotations_of(before).get(CONFIG_SEEN_ANNOTATION, now_text)
    return with_annotations(given, {CONFIG_SOURCE_ANNOTATION: source, CONFIG_SEEN_ANNOTATION: seen})


def _farewell(before: core_v1.Pod, last_word: core_v1.Pod | None, source: str, now_text: str) -> list[PodUpdate]:
    """The end of a pod: its deletion too, where that came with it, since it says how long the containers may take."""
    if last_word is None or _difference(before, last_word, source) is not PodOperation.DELETE:
        return [PodUpdate(PodOperation.REMOVE, before, source)]
    pod = _marked(last_word, before, source, now_text)
    return [PodUpdate(PodOperation.DELETE, pod, source), PodUpdate(PodOperation.REMOVE, pod, source)]


def _creation_time(update: PodUpdate) -> float:
    """Who came first gets the node's room first; manifests have no such time and come before all others."""
    created = podlib.metadata_of(update.pod).creationTimestamp
    return created.timestamp() if created is not None else -math.inf


def _difference(before: core_v1.Pod, after: core_v1.Pod, source: str) -> PodOperation | None:
    version = podlib.metadata_of(after).resourceVersion
    if source == podlib.SOURCE_API and version and version == podlib.metadata_of(before).resourceVersion:
        return None  # most pods of a set, for the cost of a look; a manifest's version says nothing
    if _what_counts(before) != _what_counts(after):
        deleted = podlib.metadata_of(after).deletionTimestamp is not None
        return PodOperation.DELETE if deleted else PodOperation.UPDATE
    return PodOperation.RECONCILE if before.status != after.status else None


def _what_counts(pod: core_v1.Pod) -> tuple[Any, ...]:
    metadata: meta_v1.ObjectMeta = podlib.metadata_of(pod)
    return (
        pod.spec,
        metadata.labels or {},
        metadata.deletionTimestamp,
        metadata.deletionGracePeriodSeconds,
        {key: value for key, value in podlib.annotations_of(pod).items() if key not in _LOCAL},
    )
