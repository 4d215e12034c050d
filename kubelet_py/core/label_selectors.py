"""Which labels a selector means: those of a node, or of other objects of the API.

Upstream counterparts: k8s.io/apimachinery pkg/labels (Requirement), pkg/apis/meta/v1 (LabelSelectorAsSelector).
"""

from collections.abc import Iterable, Mapping

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.core import name_rules

Requirement = core_v1.NodeSelectorRequirement | meta_v1.LabelSelectorRequirement


def matches(selector: meta_v1.LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Whether an object has what the selector wants. None wants no object, an empty selector takes every one."""
    if selector is None:
        return False
    return all(labels.get(key) == value for key, value in (selector.matchLabels or {}).items()) and all(
        requirement_holds(rule, labels) for rule in selector.matchExpressions or ()
    )


def requirement_holds(rule: Requirement, labels: Mapping[str, str]) -> bool:
    """One rule. Gt and Lt are for nodes; an operator that nobody knows never holds."""
    value, wanted = labels.get(rule.key), rule.values or ()
    match rule.operator:
        case "In":
            return value is not None and value in wanted
        case "NotIn":
            return value is None or value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            return _compares(rule.operator, value, wanted)
    return False


def selector_problem(selector: meta_v1.LabelSelector | None) -> str:
    """Why no label selector can be like this one, or ""."""
    if selector is None:
        return ""
    for key, value in (selector.matchLabels or {}).items():
        if problem := _key_problem(key) or _value_problem(key, value):
            return problem
    for rule in selector.matchExpressions or ():
        if problem := _rule_problem(rule):
            return problem
    return ""


def _rule_problem(rule: meta_v1.LabelSelectorRequirement) -> str:
    values = rule.values or ()
    if rule.operator in ("In", "NotIn"):
        if not values:
            return f"{rule.operator} of label {rule.key} names no values"
    elif rule.operator in ("Exists", "DoesNotExist"):
        if values:
            return f"{rule.operator} of label {rule.key} takes no values"
    else:
        return f'"{rule.operator}" is not a valid label selector operator'
    return _key_problem(rule.key) or next(filter(None, (_value_problem(rule.key, value) for value in values)), "")


def _key_problem(key: str) -> str:
    problem = name_rules.check_qualified_name(key)
    return f"label key {key!r}: {problem}" if problem else ""


def _value_problem(key: str, value: str) -> str:
    problem = name_rules.check_label_value(value)
    return f"value {value!r} of label {key}: {problem}" if problem else ""


def _compares(operator: str, value: str | None, wanted: Iterable[str]) -> bool:
    try:
        (bound,) = (int(text) for text in wanted)
        number = int(value or "")
    except ValueError:
        return False
    return number > bound if operator == "Gt" else number < bound
