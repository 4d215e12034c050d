"""YAML or JSON text to a document of dicts and lists, and the merging of documents.

Owns the strictness of the text itself: one document, no duplicate keys, no YAML types that JSON lacks. Knows nothing
of the configuration's fields. Pure.

Upstream counterpart: sigs.k8s.io/yaml and the JSON merge patch of the config-dir loader (RFC 7386).
"""

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode

if TYPE_CHECKING:
    from yaml import SafeLoader as Loader
else:
    Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(Loader):
    """Safe YAML without timestamps, and with an error for a key that stands twice."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping; merge keys (`<<`) are expanded first and may be overridden."""
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen: set[Any] = set()
        for key_node in own:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
                seen.add(key)
        result: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return result


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in Loader.yaml_implicit_resolvers.items()
}


class UnreadableDocument(ValueError):
    """The text is no single YAML or JSON document; the message has line and column."""


def read_document(text: str, kind: str = "KubeletConfiguration") -> Any:
    """The one document in the text; raises UnreadableDocument."""
    try:
        documents = [document for document in yaml.load_all(text, Loader=_StrictLoader) if document is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UnreadableDocument(f"{place}{error.problem or error.context or 'not YAML'}") from error
    except yaml.YAMLError as error:
        raise UnreadableDocument(str(error).replace("\n", " ")) from error
    if len(documents) != 1:
        found = "nothing" if not documents else f"{len(documents)} documents"
        raise UnreadableDocument(f"holds {found}: write one {kind}")
    return documents[0]


def merge_patch(base: Any, patch: Any) -> Any:
    """RFC 7386: objects are merged, null removes, everything else (lists too) replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def leaf_paths(document: Any, prefix: str = "") -> Iterator[str]:
    """The dotted path of everything a document sets, objects on the way included."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield f"{prefix}{key}"
            yield from leaf_paths(value, f"{prefix}{key}.")
