"""Label selectors of API objects; the rules that nodes share with them are in test_admission as well."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import codec, meta_v1
from kubelet_py.core.label_selectors import matches, selector_problem

LABELS = {"tier": "web", "zone": "a"}


def selector(**fields: Any) -> meta_v1.LabelSelector:
    return codec.from_builtins(meta_v1.LabelSelector, fields)


def rule(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}


def test_no_selector_wants_nothing_and_an_empty_one_everything() -> None:
    assert not matches(None, LABELS)
    assert not matches(None, {})
    assert matches(selector(), LABELS)
    assert matches(selector(), {})
    assert (selector_problem(None), selector_problem(selector())) == ("", "")


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        (selector(matchLabels={"tier": "web"}), True),
        (selector(matchLabels={"tier": "web", "zone": "b"}), False),
        (selector(matchLabels={"none": ""}), False),
        (selector(matchExpressions=[rule("tier", "In", "db", "web")]), True),
        (selector(matchExpressions=[rule("tier", "In", "db")]), False),
        (selector(matchExpressions=[rule("none", "NotIn", "x")]), True),
        (selector(matchExpressions=[rule("tier", "NotIn", "web")]), False),
        (selector(matchExpressions=[rule("tier", "Exists"), rule("none", "DoesNotExist")]), True),
        (selector(matchExpressions=[rule("none", "Exists")]), False),
        (selector(matchExpressions=[rule("tier", "DoesNotExist")]), False),
        (selector(matchLabels={"tier": "web"}, matchExpressions=[rule("zone", "In", "b")]), False),
        (selector(matchLabels={"tier": "db"}, matchExpressions=[rule("zone", "In", "a")]), False),
    ],
)
def test_everything_that_a_selector_says_must_hold(wanted: meta_v1.LabelSelector, holds: bool) -> None:
    assert matches(wanted, LABELS) is holds
    assert selector_problem(wanted) == ""


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (selector(matchExpressions=[rule("a", "Gt", "1")]), '"Gt" is not a valid label selector operator'),
        (selector(matchExpressions=[rule("a", "Exists"), rule("a", "Near")]), '"Near" is not a valid'),
        (selector(matchExpressions=[rule("a", "In")]), "In of label a names no values"),
        (selector(matchExpressions=[rule("a", "NotIn")]), "NotIn of label a names no values"),
        (selector(matchExpressions=[rule("a", "Exists", "x")]), "Exists of label a takes no values"),
        (selector(matchExpressions=[rule("a", "DoesNotExist", "x")]), "DoesNotExist of label a takes no values"),
        (selector(matchExpressions=[rule("/a", "Exists")]), "label key '/a': "),
        (selector(matchExpressions=[rule("a", "In", "good", "b d")]), "value 'b d' of label a: "),
        (selector(matchLabels={"good": "x", "b d": "x"}), "label key 'b d': "),
        (selector(matchLabels={"a": "b d"}), "value 'b d' of label a: "),
    ],
)
def test_what_no_selector_can_be_is_named(wrong: meta_v1.LabelSelector, text: str) -> None:
    assert selector_problem(wrong).startswith(text)


words = st.sampled_from(["a", "b", "c"])


@given(labels=st.dictionaries(words, words), key=words, values=st.lists(words, min_size=1))
def test_an_operator_and_its_opposite_never_agree(labels: dict[str, str], key: str, values: list[str]) -> None:
    for one, other, given_values in (("In", "NotIn", values), ("Exists", "DoesNotExist", [])):
        holds = matches(selector(matchExpressions=[rule(key, one, *given_values)]), labels)
        assert holds is not matches(selector(matchExpressions=[rule(key, other, *given_values)]), labels)


@given(labels=st.dictionaries(words, words), wanted=st.dictionaries(words, words))
def test_wanted_labels_are_rules_with_one_value(labels: dict[str, str], wanted: dict[str, str]) -> None:
    as_rules = selector(matchExpressions=[rule(key, "In", value) for key, value in wanted.items()])
    assert (
        matches(selector(matchLabels=wanted), labels) is matches(as_rules, labels) is (wanted.items() <= labels.items())
    )
