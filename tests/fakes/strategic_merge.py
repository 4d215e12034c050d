"""What an API server does with a strategic merge patch, for the lists that the fake holds.

Verified by the contract suite.
"""

from typing import Any

_MERGE_KEYS = {
    "conditions": "type",
    "addresses": "type",
    "podIPs": "ip",
    "hostIPs": "ip",
    "containers": "name",
    "volumes": "name",
    "ownerReferences": "uid",
    "resourceClaimStatuses": "name",
}


def apply_strategic(current: Any, patch: dict[str, Any]) -> dict[str, Any]:
    """The object after the patch."""
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    merged = dict(current) if isinstance(current, dict) else {}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            merged[name] = apply_strategic(merged.get(name), value)
        elif isinstance(value, list) and name in _MERGE_KEYS:
            merged[name] = _apply_list(merged.get(name) or [], value, _MERGE_KEYS[name])
        else:
            merged[name] = value
    return merged


def apply_merge(current: Any, patch: Any) -> Any:
    """The object after a JSON merge patch."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(current) if isinstance(current, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = apply_merge(merged.get(name), value)
    return merged


def _apply_list(current: list[Any], patch: list[Any], key: str) -> list[Any]:
    if any(member.get("$patch") == "replace" and len(member) == 1 for member in patch):
        return [member for member in patch if "$patch" not in member]
    merged = list(current)
    for member in patch:
        at = next((i for i, each in enumerate(merged) if each.get(key) == member.get(key)), None)
        if member.get("$patch") == "delete":
            if at is not None:
                del merged[at]
        elif at is None:
            merged.append(apply_strategic({}, member))
        else:
            merged[at] = apply_strategic(merged[at], member)
    return merged
