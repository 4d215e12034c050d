"""Which events are sent, which are counted up, which are held back. Pure: the time is an argument.

Three steps for each event, as upstream: a token bucket per source object holds back a flood; more than ten events that
differ only in the message become one "(combined from similar events)"; the same event again bumps the count of the
one that was sent. Memory is bounded by an LRU.

Upstream counterpart: client-go tools/record EventCorrelator.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.api.pod import metadata_of
from kubelet_py.text import to_valid_text

CACHE_ENTRIES: Final = 4096
SIMILAR_EVENTS: Final = 10
SIMILAR_WITHIN_SECONDS: Final = 600.0
SPAM_BURST: Final = 25
SPAM_REFILL_SECONDS: Final = 300.0
LONGEST_MESSAGE_BYTES: Final = 16 * 1024
"""The API server limits messages of events with an eventTime only, which these have not. What a probe said is up to 10
KiB; this keeps an event far from what etcd takes."""
COMBINED_PREFIX: Final = "(combined from similar events): "

NORMAL: Final = "Normal"
WARNING: Final = "Warning"

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recorder(Protocol):
    """How the rest of the agent records an event: at once, without waiting, without failing."""

    def record(self, about: core_v1.ObjectReference, type_: str, reason: str, message: str) -> None:
        """`type_` is Normal or Warning."""


class EventSink(Protocol):
    """Where events about a pod go: (pod, "Normal" or "Warning", reason, message, container name or "")."""

    def __call__(
        self, pod: core_v1.Pod, event_type: str, reason: str, message: str, container_name: str = "", /
    ) -> None: ...


def pod_reference(pod: core_v1.Pod, field_path: str = "") -> core_v1.ObjectReference:
    """What an event about a pod points at; `field_path` such as `spec.containers{app}` names a part of it."""
    metadata = metadata_of(pod)
    return core_v1.ObjectReference(
        apiVersion="v1",
        kind="Pod",
        name=metadata.name,
        namespace=metadata.namespace,
        uid=metadata.uid,
        resourceVersion=metadata.resourceVersion,
        fieldPath=field_path or None,
    )


class Occurrence(NamedTuple):
    """Something that happened."""

    about: core_v1.ObjectReference
    type: str
    reason: str
    message: str
    at: datetime


@dataclass(slots=True)
class SentEvent:
    """The event that later occurrences of the same kind count up. `name` is empty until it was created."""

    namespace: str
    name: str
    count: int
    message: str
    first_at: datetime
    last_at: datetime


@dataclass(slots=True)
class _Similar:
    messages: set[str] = field(default_factory=set)
    last_seconds: float = 0.0


@dataclass(slots=True)
class _Allowance:
    tokens: float
    at_seconds: float


class _Recent(Generic[K, V]):
    """The most recently used entries."""

    def __init__(self, size: int) -> None:
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._size = size

    def get(self, key: K) -> V | None:
        if (value := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)


class Correlator:
    """What to do with each occurrence. Holds memory and no clock."""

    def __init__(self, cache_entries: int = CACHE_ENTRIES) -> None:
        self._similar: _Recent[tuple[object, ...], _Similar] = _Recent(cache_entries)
        self._sent: _Recent[tuple[object, ...], SentEvent] = _Recent(cache_entries)
        self._allowances: _Recent[tuple[object, ...], _Allowance] = _Recent(cache_entries)

    def correlate(self, occurrence: Occurrence) -> SentEvent | None:
        """The event to create (its count is 1) or to count up; None when the object floods."""
        kind, message = self._combined(occurrence)
        if not self._allowed(occurrence):
            return None
        event = self._sent.get(kind)
        if event is None:
            namespace = occurrence.about.namespace or "default"
            event = SentEvent(namespace, "", 1, message, occurrence.at, occurrence.at)
            self._sent.put(kind, event)
        else:
            event.count += 1
            event.message = message
            event.last_at = occurrence.at
        return event

    def _combined(self, occurrence: Occurrence) -> tuple[tuple[object, ...], str]:
        about = occurrence.about
        alike = (
            about.kind,
            about.namespace,
            about.name,
            about.uid,
            about.fieldPath,
            occurrence.type,
            occurrence.reason,
        )
        seconds = occurrence.at.timestamp()
        similar = self._similar.get(alike)
        if similar is None or seconds - similar.last_seconds > SIMILAR_WITHIN_SECONDS:
            similar = _Similar()
            self._similar.put(alike, similar)
        similar.last_seconds = seconds
        if len(similar.messages) < SIMILAR_EVENTS or occurrence.message in similar.messages:
            similar.messages.add(occurrence.message)
            if len(similar.messages) < SIMILAR_EVENTS:
                return (*alike, occurrence.message), occurrence.message
        return alike, COMBINED_PREFIX + occurrence.message

    def _allowed(self, occurrence: Occurrence) -> bool:
        about = occurrence.about
        key = (about.kind, about.namespace, about.name, about.uid)
        seconds = occurrence.at.timestamp()
        allowance = self._allowances.get(key)
        if allowance is None:
            allowance = _Allowance(SPAM_BURST, seconds)
            self._allowances.put(key, allowance)
        passed = max(0.0, seconds - allowance.at_seconds)
        allowance.tokens = min(SPAM_BURST, allowance.tokens + passed / SPAM_REFILL_SECONDS)
        allowance.at_seconds = seconds
        if allowance.tokens < 1:
            return False
        allowance.tokens -= 1
        return True


def event_object(occurrence: Occurrence, sent: SentEvent, node_name: str, unique: int) -> core_v1.Event:
    """The event to create; `unique` (nanoseconds) makes its name."""
    about = occurrence.about
    return core_v1.Event(
        metadata=meta_v1.ObjectMeta(name=f"{about.name}.{unique:x}", namespace=sent.namespace),
        involvedObject=about,
        reason=occurrence.reason,
        message=cut_message(sent.message),
        type=occurrence.type,
        count=sent.count,
        firstTimestamp=to_api_time(sent.first_at),
        lastTimestamp=to_api_time(sent.last_at),
        source=core_v1.EventSource(component="kubelet", host=node_name),
        reportingComponent="kubelet",
        reportingInstance=node_name,
    )


def count_patch(sent: SentEvent) -> dict[str, object]:
    """The patch that counts a sent event up."""
    return {
        "count": sent.count,
        "message": cut_message(sent.message),
        "lastTimestamp": to_api_time(sent.last_at),
    }


def cut_message(message: str) -> str:
    """The message, or the beginning of one that is longer than any should be."""
    raw = to_valid_text(message).encode()
    return raw[:LONGEST_MESSAGE_BYTES].decode(errors="ignore")


def to_api_time(moment: datetime) -> datetime:
    """A moment as metav1.Time holds it: UTC, whole seconds."""
    return moment.astimezone(UTC).replace(microsecond=0)
