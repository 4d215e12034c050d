"""Strategic merge patches from an old and a new object in dicts and lists. Pure.

Knows the merge keys of the few lists that pod and node statuses hold; every other list is replaced as a whole. What
only the old object has becomes null. A list with a merge key carries the changed members, and a delete directive for
each that went; a list whose key is not unique (the addresses of a dual-stack node) or whose order matters is
replaced by directive.

Upstream counterparts: apimachinery strategicpatch.CreateTwoWayMergePatch, and node.PatchNodeStatus for addresses.
"""

from collections.abc import Mapping
from typing import Any, Final

MERGE_KEYS: Final[Mapping[str, str]] = {"conditions": "type", "resourceClaimStatuses": "name"}
REPLACED_LISTS: Final = frozenset({"addresses", "podIPs", "hostIPs"})


def strategic_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What to send so that `old` becomes `new`; empty when they are equal."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, wanted in new.items():
        current = old.get(name)
        if name in old and current == wanted:
            continue
        if isinstance(wanted, Mapping) and isinstance(current, Mapping):
            patch[name] = strategic_patch(current, wanted)
        elif isinstance(wanted, list) and name in REPLACED_LISTS:
            patch[name] = [*wanted, {"$patch": "replace"}]
        elif isinstance(wanted, list) and name in MERGE_KEYS:
            if members := _merged_list(current or [], wanted, MERGE_KEYS[name]):
                patch[name] = members
        else:
            patch[name] = wanted
    return patch


def _merged_list(old: list[dict[str, Any]], new: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    before = {member[key]: member for member in old}
    kept = {member[key] for member in new}
    changed = []
    for member in new:
        current = before.get(member[key])
        if current is None:
            changed.append(dict(member))
        elif current != member:
            changed.append({key: member[key]} | strategic_patch(current, member))
    return changed + [{"$patch": "delete", key: name} for name in before if name not in kept]
