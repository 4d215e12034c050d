"""A source's sets become the updates that lead from one to the next."""

import datetime
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.api.pod import PodUid
from kubelet_py.core.source_merge import MergeResult, PodOperation, PodSet, PodUpdate, merge_pod_set, newest_set
from tests.unit.kubelet_py.core.pod_builder import a_pod

NOW = "2024-01-31T12:00:00.000000000Z"


def _pod(name: str = "a", uid: str = "", phase: str = "Pending", **fields: Any) -> core_v1.Pod:
    metadata = {"name": name, "uid": uid or f"uid-{name}", **fields.pop("metadata", {})}
    pod = a_pod(metadata=metadata, **fields)
    pod.status = core_v1.PodStatus(phase=phase)
    return pod


def _merge(known: dict[PodUid, core_v1.Pod] | None, *pods: core_v1.Pod, now: str = NOW) -> Any:
    return merge_pod_set(known or {}, PodSet("api", pods), now)


def _operations(result: Any) -> list[tuple[str, str]]:
    return [(update.operation.value, podlib.metadata_of(update.pod).name or "") for update in result.updates]


def test_new_pods_are_marked() -> None:
    """With their source and when they were first seen."""
    result = _merge(None, _pod(metadata={"annotations": {"mine": "x"}}))
    assert _operations(result) == [("ADD", "a")]
    assert podlib.annotations_of(result.updates[0].pod) == {
        "mine": "x",
        "kubernetes.io/config.source": "api",
        "kubernetes.io/config.seen": NOW,
    }


def test_nothing_new_is_no_update() -> None:
    """Local annotations do not count, and the object stays the same."""
    first = _merge(None, _pod())
    again = _merge(first.pods, _pod(metadata={"annotations": {"kubernetes.io/config.seen": "other"}}), now="later")
    assert again.updates == ()
    assert again.pods["uid-a"] is first.pods["uid-a"]


def test_an_object_of_the_same_version_is_the_same() -> None:
    """The API server's version says so at once; that of a manifest is whatever somebody copied into it."""
    known = _pod(metadata={"resourceVersion": "7"})
    edited = _pod(metadata={"resourceVersion": "7"}, hostNetwork=True)
    for source, updates in (("api", []), ("file", [("UPDATE", "a")])):
        first = merge_pod_set({}, PodSet(source, (known,)), NOW)
        assert _operations(merge_pod_set(first.pods, PodSet(source, (edited,)), NOW)) == updates
    first = _merge(None, known)
    assert _operations(_merge(first.pods, _pod(metadata={"resourceVersion": "8"}, hostNetwork=True))) == [
        ("UPDATE", "a")
    ]


def test_changes() -> None:
    """Spec, labels and annotations are updates; a status alone is to be reconciled; a deletion goes before."""
    known = _merge(None, _pod()).pods
    assert _operations(_merge(known, _pod(hostNetwork=True))) == [("UPDATE", "a")]
    assert _operations(_merge(known, _pod(metadata={"labels": {"x": "y"}}))) == [("UPDATE", "a")]
    assert _operations(_merge(known, _pod(metadata={"annotations": {"x": "y"}}))) == [("UPDATE", "a")]
    assert _operations(_merge(known, _pod(phase="Running"))) == [("RECONCILE", "a")]
    assert _merge(known, _pod(phase="Running")).updates[0].pod.spec is known[PodUid("uid-a")].spec, "seen at a glance"
    deleted = {"deletionTimestamp": datetime.datetime.now(datetime.UTC).isoformat(), "deletionGracePeriodSeconds": 3}
    assert _operations(_merge(known, _pod(metadata=deleted, hostNetwork=True))) == [("DELETE", "a")]
    assert _operations(_merge(known)) == [("REMOVE", "a")]


def test_a_deletion_that_came_with_the_end_still_says_how_long_the_containers_may_take() -> None:
    """A forced deletion is two events, and only the set after both may have been looked at."""
    known = _merge(None, _pod("a"), _pod("b")).pods
    forced = {"deletionTimestamp": "2024-01-31T12:00:00Z", "deletionGracePeriodSeconds": 0}
    first_went = PodSet("api", (_pod("b"),), last_words=(_pod("a", metadata=forced),))
    came = PodSet("api", (_pod("b"), _pod("c")))
    all_went = PodSet("api", (_pod("c"),), last_words=(_pod("b", phase="Running"), _pod("d", metadata=forced)))
    waiting = newest_set(newest_set(newest_set(None, first_went), came), all_went)
    result = merge_pod_set(known, waiting, "later")
    assert {update.source for update in result.updates} == {"api"}
    assert podlib.source_of(result.updates[0].pod) == "api"
    assert _operations(result) == [("DELETE", "a"), ("REMOVE", "a"), ("REMOVE", "b"), ("ADD", "c")]
    assert podlib.metadata_of(result.updates[0].pod).deletionGracePeriodSeconds == 0
    assert podlib.annotations_of(result.updates[0].pod)["kubernetes.io/config.seen"] == NOW
    assert set(result.pods) == {"uid-c"}
    assert newest_set(came, first_went) == first_went


def test_a_set_that_says_what_is_new_is_compared_with_that_only() -> None:
    known = _merge(None, _pod("a"), _pod("b")).pods
    unsaid = PodSet("api", (_pod("a", hostNetwork=True), _pod("b")), changed={})
    assert _operations(merge_pod_set(known, unsaid, NOW)) == []
    said = PodSet("api", unsaid.pods, changed={PodUid("uid-a"): unsaid.pods[0]}, last_words=(_pod("b"),))
    assert _operations(merge_pod_set(known, said, NOW)) == [("REMOVE", "b"), ("UPDATE", "a")]


def test_what_waits_is_added_up() -> None:
    """Until one that cannot tell what is new comes in between."""
    a, b, older = _pod("a"), _pod("b"), _pod("b", phase="Running")
    first = PodSet("api", (a, older), changed={PodUid("uid-a"): a, PodUid("uid-b"): older})
    second = PodSet("api", (b,), last_words=(a,), changed={PodUid("uid-b"): b})
    assert newest_set(first, second) == second
    assert newest_set(second, first).changed == first.changed
    unknown = PodSet("api", (b,))
    assert newest_set(first, unknown) == newest_set(unknown, PodSet("api", (b,), changed={})) == unknown


def test_mirror_pods_are_looked_at_when_one_may_differ() -> None:
    mirror = _pod("m", metadata={"annotations": {podlib.CONFIG_MIRROR_ANNOTATION: "h"}})
    assert PodSet("api", ()).mirrors_may_differ
    assert not PodSet("api", (mirror, _pod("a")), changed={PodUid("uid-a"): _pod("a")}).mirrors_may_differ
    assert PodSet("api", (mirror,), changed={PodUid("uid-m"): mirror}).mirrors_may_differ
    assert PodSet("api", (), changed={}, last_words=(mirror,)).mirrors_may_differ


def test_first_seen_stays() -> None:
    """An update does not make a pod younger."""
    known = _merge(None, _pod()).pods
    updated = _merge(known, _pod(hostNetwork=True), now="later").updates[0].pod
    assert podlib.annotations_of(updated)["kubernetes.io/config.seen"] == NOW


def test_order_of_updates() -> None:
    """Removals first, so that a static pod's successor finds the place free."""
    known = _merge(None, _pod("a"), _pod("b"), _pod("c"), _pod("d")).pods
    deleted = {"deletionTimestamp": "2024-01-31T12:00:00Z"}
    result = _merge(
        known, _pod("b", phase="Running"), _pod("c", metadata=deleted), _pod("d", hostPID=True), _pod("a", "uid-new")
    )
    assert _operations(result) == [("REMOVE", "a"), ("ADD", "a"), ("UPDATE", "d"), ("DELETE", "c"), ("RECONCILE", "b")]
    assert set(result.pods) == {"uid-b", "uid-c", "uid-d", "uid-new"}


def test_the_oldest_of_new_pods_comes_first() -> None:
    """What an agent finds when it starts is admitted in the order in which it was created."""

    def created(name: str, day: int) -> core_v1.Pod:
        return _pod(name, metadata={"creationTimestamp": f"2024-01-{day:02}T12:00:00Z"})

    result = _merge(None, created("a", 3), created("b", 1), _pod("static"), created("d", 2), created("c", 2))
    assert [name for _, name in _operations(result)] == ["static", "b", "d", "c", "a"]


def test_one_name_one_pod() -> None:
    """The first of a set stays; the others are told of."""
    result = _merge(None, _pod("a", "u1"), _pod("a", "u2"), _pod("b"))
    assert _operations(result) == [("ADD", "a"), ("ADD", "b")]
    assert [podlib.uid_of(pod) for pod in result.duplicates] == ["u2"]


_sets = st.lists(
    st.builds(
        lambda name, network, phase: _pod(name, hostNetwork=network, phase=phase),
        st.sampled_from("abcd"),
        st.booleans(),
        st.sampled_from(["Pending", "Running"]),
    ),
    max_size=5,
    unique_by=lambda pod: podlib.uid_of(pod),
)


@given(st.lists(_sets, min_size=1, max_size=5))
def test_updates_lead_from_set_to_set(history: list[list[core_v1.Pod]]) -> None:
    """Whoever applies the updates holds what the source holds; the same set again changes nothing."""
    known: Any = {}
    held: dict[str, core_v1.Pod] = {}
    for pods in history:
        result = _merge(known, *pods)
        known = result.pods
        for update in result.updates:
            uid = podlib.uid_of(update.pod)
            if update.operation is PodOperation.REMOVE:
                del held[uid]
            else:
                assert (uid in held) == (update.operation is not PodOperation.ADD)
                held[uid] = update.pod
        assert {u: (p.spec, p.status) for u, p in held.items()} == {podlib.uid_of(p): (p.spec, p.status) for p in pods}
        assert _merge(known, *pods).updates == ()


_events = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abc"), st.booleans(), st.sampled_from(["Pending", "Running"])),
    st.tuples(st.just("delete"), st.sampled_from("abc"), st.booleans(), st.just("Running")),
    st.tuples(st.sampled_from(["list", "take"]), st.just(""), st.just(False), st.just("")),
)


def _said(result: MergeResult) -> tuple[list[PodOperation], list[PodUpdate], list[PodUpdate]]:
    """The operations in their order, the new pods in theirs, and the rest: who changes first is the source's word."""
    new = [update for update in result.updates if update.operation is PodOperation.ADD]
    rest = [update for update in result.updates if update.operation is not PodOperation.ADD]
    return (
        [update.operation for update in result.updates],
        new,
        sorted(rest, key=lambda update: (update.operation, podlib.uid_of(update.pod))),
    )


# two pods of before change in the other order than they came
_CHANGED_BACKWARDS = [
    ("put", "b", False, "Pending"),
    ("put", "a", False, "Pending"),
    ("take", "", False, ""),
    ("put", "a", True, "Pending"),
    ("put", "b", True, "Pending"),
]


@example(_CHANGED_BACKWARDS)
@given(st.lists(_events, max_size=30))
def test_what_is_new_says_as_much_as_everything(history: list[tuple[str, str, bool, str]]) -> None:
    """Of a source that tells single events, each a pod of its own after a deletion, and lists now and then."""
    has: dict[str, core_v1.Pod] = {}
    with_news: PodSet | None = None
    with_all: PodSet | None = None
    known_by_news: Any = {}
    known_by_all: Any = {}
    for number, (event, name, flag, phase) in enumerate([*history, ("take", "", False, "")]):
        changed: dict[PodUid, core_v1.Pod] | None = {}
        last_words: tuple[core_v1.Pod, ...] = ()
        if event == "take":
            if with_news is not None and with_all is not None:
                by_news = merge_pod_set(known_by_news, with_news, NOW)
                by_all = merge_pod_set(known_by_all, with_all, NOW)
                assert _said(by_news) == _said(by_all)
                assert (by_news.pods, by_news.duplicates) == (by_all.pods, by_all.duplicates)
                assert list(by_news.pods) == list(by_all.pods)
                known_by_news, known_by_all = by_news.pods, by_all.pods
                with_news = with_all = None
            continue
        if event == "put":
            uid = podlib.uid_of(has[name]) if name in has else f"uid-{number}"
            has[name] = _pod(name, uid, phase, hostNetwork=flag)
            changed = {PodUid(uid): has[name]}
        elif event == "delete" and name in has:
            deleted = {"deletionTimestamp": "2024-01-31T12:00:00Z", "deletionGracePeriodSeconds": 0} if flag else {}
            last_words = (_pod(name, podlib.uid_of(has.pop(name)), phase, metadata=deleted),)
        elif event == "list":
            changed = None
        pods = tuple(has.values())
        with_news = newest_set(with_news, PodSet("api", pods, last_words=last_words, changed=changed))
        with_all = newest_set(with_all, PodSet("api", pods, last_words=last_words))
    assert list(known_by_news) == [podlib.uid_of(pod) for pod in has.values()] or not history
