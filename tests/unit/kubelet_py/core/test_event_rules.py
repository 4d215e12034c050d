"""Which events are sent, counted up or held back."""

from datetime import UTC, datetime, timedelta, timezone

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.core.event_rules import (
    COMBINED_PREFIX,
    LONGEST_MESSAGE_BYTES,
    Correlator,
    Occurrence,
    count_patch,
    cut_message,
    event_object,
    pod_reference,
    to_api_time,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def occurrence(message: str, *, reason: str = "R", name: str = "a", seconds: float = 0.0) -> Occurrence:
    about = core_v1.ObjectReference(kind="Pod", namespace="ns", name=name, uid=name)
    return Occurrence(about, "Normal", reason, message, BEGIN + timedelta(seconds=seconds))


def test_the_same_message_counts_up_one_event() -> None:
    correlator = Correlator()
    events = [correlator.correlate(occurrence("m", seconds=second)) for second in range(3)]
    assert events[0] is events[1] is events[2]
    assert events[2] is not None
    assert events[2].count == 3
    assert events[2].last_at - events[2].first_at == timedelta(seconds=2)


def test_from_the_tenth_message_on_similar_events_are_one() -> None:
    correlator = Correlator()
    events = [correlator.correlate(occurrence(f"m{number}")) for number in range(15)]
    assert len({id(event) for event in events}) == 10
    assert events[9] is events[14]
    assert events[14] is not None
    assert events[14].message == COMBINED_PREFIX + "m14"
    known = correlator.correlate(occurrence("m3"))
    assert known is events[14], "what came before is one of them now"
    assert known.message == COMBINED_PREFIX + "m3"


def test_after_ten_quiet_minutes_messages_stand_alone_again() -> None:
    correlator = Correlator()
    for number in range(15):
        correlator.correlate(occurrence(f"m{number}"))
    soon = correlator.correlate(occurrence("soon", seconds=600))
    assert soon is not None
    assert soon.message == COMBINED_PREFIX + "soon", "ten minutes are not over"
    later = correlator.correlate(occurrence("later", seconds=1201))
    assert later is not None
    assert later.message == "later"


def test_an_object_that_floods_is_held_back_and_others_are_not() -> None:
    correlator = Correlator()
    sent = [correlator.correlate(occurrence("m", reason=f"R{number}")) for number in range(30)]
    assert sum(event is not None for event in sent) == 25
    assert correlator.correlate(occurrence("m", name="b")) is not None
    assert correlator.correlate(occurrence("m", reason="later", seconds=301)) is not None
    assert correlator.correlate(occurrence("m", reason="later2", seconds=301)) is None


def test_memory_is_bounded() -> None:
    correlator = Correlator(cache_entries=10)
    for number in range(1000):
        correlator.correlate(occurrence("m", name=f"p{number}"))
    assert len(correlator._sent._entries) == 10


def test_what_was_not_used_for_longest_is_forgotten() -> None:
    correlator = Correlator(cache_entries=2)
    for name in ("a", "b", "a", "c"):
        correlator.correlate(occurrence("m", name=name))
    counts = {}
    for name in ("a", "b"):
        event = correlator.correlate(occurrence("m", name=name))
        assert event is not None
        counts[name] = event.count
    assert counts == {"a": 3, "b": 1}


def test_a_node_event_lives_in_default_and_a_long_message_is_cut() -> None:
    about = core_v1.ObjectReference(kind="Node", name="n1", uid="n1")
    happened = Occurrence(about, "Normal", "R", "é" * LONGEST_MESSAGE_BYTES, BEGIN + timedelta(microseconds=5))
    sent = Correlator().correlate(happened)
    assert sent is not None
    event = event_object(happened, sent, "n1", 255)
    assert event.metadata.namespace == "default"
    assert event.metadata.name == "n1.ff"
    assert len((event.message or "").encode()) == LONGEST_MESSAGE_BYTES
    assert event.firstTimestamp == BEGIN


def test_an_event_says_everything_that_people_look_for() -> None:
    """kubectl describe, field selectors and controllers read these."""
    about = core_v1.ObjectReference(kind="Pod", name="a", namespace="ns", uid="u", fieldPath="spec.containers{app}")
    correlator = Correlator()
    correlator.correlate(Occurrence(about, "Warning", "BackOff", "again", BEGIN))
    happened = Occurrence(about, "Warning", "BackOff", "again", BEGIN + timedelta(seconds=3))
    sent = correlator.correlate(happened)
    assert sent is not None
    assert event_object(happened, sent, "n1", 16) == core_v1.Event(
        metadata=meta_v1.ObjectMeta(name="a.10", namespace="ns"),
        involvedObject=about,
        reason="BackOff",
        message="again",
        type="Warning",
        count=2,
        firstTimestamp=BEGIN,
        lastTimestamp=BEGIN + timedelta(seconds=3),
        source=core_v1.EventSource(component="kubelet", host="n1"),
        reportingComponent="kubelet",
        reportingInstance="n1",
    )


def test_a_name_that_is_no_text_can_be_sent() -> None:
    """A manifest's file name, say."""
    assert cut_message("bad \udcff.yaml") == "bad \ufffd.yaml"


def test_a_cut_never_splits_a_character() -> None:
    assert cut_message("a" + "é" * LONGEST_MESSAGE_BYTES) == "a" + "é" * (LONGEST_MESSAGE_BYTES // 2 - 1)
    longest = "a" * LONGEST_MESSAGE_BYTES
    assert cut_message(longest) == longest
    assert cut_message(longest + "b") == longest


def test_a_moment_is_whole_seconds_of_utc_wherever_the_node_is() -> None:
    found = to_api_time(datetime(2026, 1, 1, 2, 0, 0, 999, tzinfo=timezone(timedelta(hours=2))))
    assert found == BEGIN
    assert found.tzinfo is UTC


def test_an_event_about_a_pod_points_at_the_part_it_is_about() -> None:
    pod = core_v1.Pod(metadata=meta_v1.ObjectMeta(name="a", namespace="ns", uid="u", resourceVersion="7"))
    found = pod_reference(pod, "spec.containers{app}")
    assert found == core_v1.ObjectReference(
        apiVersion="v1",
        kind="Pod",
        name="a",
        namespace="ns",
        uid="u",
        resourceVersion="7",
        fieldPath="spec.containers{app}",
    )
    assert pod_reference(pod).fieldPath is None


def test_counting_up_changes_the_count_the_text_and_the_time() -> None:
    correlator = Correlator()
    correlator.correlate(occurrence("m"))
    sent = correlator.correlate(occurrence("m", seconds=2))
    assert sent is not None
    assert count_patch(sent) == {"count": 2, "message": "m", "lastTimestamp": BEGIN + timedelta(seconds=2)}
