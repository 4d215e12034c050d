"""The text of a manifest made into objects, or into a list of everything that is wrong with it.

YAML is read as the Go kubelet reads it: dates and base-60 numbers stay text, 0o17 is a number. What the types do not
know is left out with a warning, as a newer manifest may say more than we understand.

Upstream counterparts: pkg/kubelet/config/common.go (tryDecodeSinglePod, tryDecodePodList), sigs.k8s.io/yaml.
Differences: several documents in one file are an error (upstream reads the first and drops the rest), all wrong types
are named at once, with their lines, and unknown fields are warned of.
"""

import difflib
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import yaml

from kubelet_py.api import codec, core_v1
from kubelet_py.core.manifest_nulls import without_nulls
from kubelet_py.core.problems import ManifestError, Problem

MAX_MANIFEST_BYTES: Final = 10 * 2**20

# A few hundred bytes of aliases can stand for more objects than the memory holds.
_MAX_NODES: Final = 1_000_000
_MAX_DEPTH: Final = 100
_MAX_TYPE_PROBLEMS: Final = 20

_INT_TAG: Final = "tag:yaml.org,2002:int"
_FLOAT_TAG: Final = "tag:yaml.org,2002:float"
_TIMESTAMP_TAG: Final = "tag:yaml.org,2002:timestamp"
_YAML_INT = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]*|[1-9][0-9_]*|0x[0-9a-fA-F_]+)")
_YAML_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?)")

_EXPECTED = re.compile(r"Expected `(?P<wanted>[^`]*)`(?:, got `(?P<got>[^`]*)`)?")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_PLACE = re.compile(r" - at `\$(?P<path>.*)`$")
_STEP = re.compile(r"\.(?P<key>[A-Za-z0-9_]+)|\[(?P<index>[0-9]+|\.\.\.)\]")
_PLACEHOLDERS: Final[tuple[Any, ...]] = ("", 0, False, [], {})

Step = str | int


class _ManifestLoader(yaml.CSafeLoader):
    """CSafeLoader with the numbers of YAML 1.2 and without dates."""


_ManifestLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT_TAG, _FLOAT_TAG, _TIMESTAMP_TAG)]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_ManifestLoader.add_implicit_resolver(_INT_TAG, re.compile(_YAML_INT.pattern + r"\Z"), list("-+0123456789"))
_ManifestLoader.add_implicit_resolver(_FLOAT_TAG, re.compile(_YAML_FLOAT.pattern + r"\Z"), list("-+.0123456789"))


def _construct_int(loader: yaml.CSafeLoader, node: yaml.ScalarNode) -> int:
    text = str(node.value).replace("_", "")
    sign, digits = (text[0], text[1:]) if text[:1] in ("-", "+") else ("", text)
    if digits.startswith("0") and len(digits) > 1 and digits[1].isdigit():
        digits = f"0o{digits[1:]}"
    try:
        return int(sign + digits, 0)
    except ValueError as error:
        raise yaml.constructor.ConstructorError(None, None, f"{text[:40]!r} is no number", node.start_mark) from error


_ManifestLoader.add_constructor(_INT_TAG, _construct_int)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The pods of a text, as it states them, and what it says that we do not know."""

    pods: tuple[core_v1.Pod, ...]
    warnings: tuple[Problem, ...] = ()


def read_manifest(data: bytes, allow_list: bool = False) -> Manifest:
    """One pod, or a PodList where `allow_list`. Raises ManifestError with every problem."""
    value = _parse(data)
    kinds = ("Pod", "PodList") if allow_list else ("Pod",)
    _check_kind(value, kinds, data)
    if value["kind"] == "Pod":
        pod, warnings = _to_pod(value, data, ())
        return Manifest((pod,), warnings)
    items = value.get("items") or []
    if not isinstance(items, list):
        raise ManifestError([Problem("items", "expected a list of pods", line_of(data, ("items",)))])
    found = [_to_pod(_mapping(item), data, ("items", i)) for i, item in enumerate(items)]
    return Manifest(tuple(pod for pod, _ in found), tuple(w for _, warnings in found for w in warnings))


def line_of(data: bytes, path: tuple[Step, ...]) -> int:
    """The line on which a field stands, or the nearest field around it; 0 when the text is not YAML."""
    try:
        text = _text(data)
        _check_depth(text)
        node = yaml.compose(text, Loader=_ManifestLoader)
    except (yaml.YAMLError, ManifestError):
        return 0
    line = 0 if node is None else 1
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = [(key, child) for key, child in node.value if getattr(key, "value", None) == step]
            if not found:
                break
            key, node = found[0]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line


def steps_of(path: str) -> tuple[Step, ...]:
    """`spec.containers[0].name` taken apart."""
    return tuple(
        int(step["index"]) if (step["index"] or "").isdigit() else (step["key"] or "...")
        for step in _STEP.finditer(f".{path}")
    )


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError([Problem("", f"larger than {MAX_MANIFEST_BYTES} bytes; a manifest is one pod")])
    text = _text(data)
    if not text.strip():
        raise ManifestError([Problem("", "the file is empty; expected a Pod in YAML or JSON")])
    if text.lstrip().startswith("{"):
        documents = _parse_json(text)
    else:
        documents = _parse_yaml(text)
    if len(documents) != 1:
        raise ManifestError(
            [Problem("", f"{len(documents)} documents separated by '---'; one pod per file: put each into its own")]
        )
    _check_size(documents[0])
    _make_keys_text(documents[0])
    return _mapping(documents[0])


def _parse_json(text: str) -> list[Any]:
    try:
        return [msgspec.json.decode(text)]
    except (msgspec.DecodeError, RecursionError):
        return _parse_yaml(text)  # flow-style YAML starts with a brace too


def _parse_yaml(text: str) -> list[Any]:
    try:
        _check_depth(text)
        return [document for document in yaml.load_all(text, Loader=_ManifestLoader) if document is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error)
        raise ManifestError([Problem("", f"no YAML: {what}", mark.line + 1 if mark else 0)]) from error
    except ManifestError:
        raise
    except ValueError as error:
        raise ManifestError([Problem("", f"no YAML: {error}")]) from error


def _check_depth(text: str) -> None:
    """libyaml's loader recurses on the C stack: a hundred kilobytes of brackets would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_ManifestLoader):
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                line = getattr(event.start_mark, "line", -1) + 1
                raise ManifestError([Problem("", f"nested deeper than {_MAX_DEPTH} levels", line)])
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            depth -= 1


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError([Problem("", "no UTF-8 text; save the file as UTF-8", line)]) from error


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ManifestError([Problem("", "expected an object with the fields apiVersion, kind, metadata and spec")])
    return value


def _check_size(document: Any) -> None:
    """Counts what aliases stand for, once for each place, without going to each place."""
    sizes: dict[int, int] = {}

    def size_of(value: Any, depth: int) -> int:
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in sizes:
            if depth > _MAX_DEPTH:
                raise ManifestError([Problem("", f"nested deeper than {_MAX_DEPTH} levels, or an alias of itself")])
            children = value.values() if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(size_of(child, depth + 1) for child in children)
        return sizes[id(value)]

    if size_of(document, 0) > _MAX_NODES:
        raise ManifestError([Problem("", f"stands for more than {_MAX_NODES} values (YAML aliases repeat too much)")])


def _make_keys_text(document: Any) -> None:
    """YAML has numbers and truths as keys, JSON has not: `8080: web` among labels is meant as "8080"."""
    todo, seen = [document], set()
    while todo:
        value = todo.pop()
        if not isinstance(value, dict | list) or id(value) in seen:
            continue
        seen.add(id(value))
        todo += value.values() if isinstance(value, dict) else value
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            items = [(_text_key(key), child) for key, child in value.items()]
            value.clear()
            value.update(items)


def _text_key(key: Any) -> str:
    if isinstance(key, bool):
        return str(key).lower()
    if isinstance(key, str | int | float):
        return str(key)
    raise ManifestError([Problem("", f"a key that is no text: {str(key)[:40]!r}; put it into quotes")])


def _check_kind(value: dict[str, Any], kinds: tuple[str, ...], data: bytes) -> None:
    problems = []
    if value.get("apiVersion") != "v1":
        problems.append(("apiVersion", "v1"))
    if value.get("kind") not in kinds:
        problems.append(("kind", " or ".join(kinds)))
    if problems:
        raise ManifestError(
            Problem(name, f"expected {wanted}, found {value.get(name) or 'nothing'!s:.60}", line_of(data, (name,)))
            for name, wanted in problems
        )


def _to_pod(value: dict[str, Any], data: bytes, at: tuple[Step, ...]) -> tuple[core_v1.Pod, tuple[Problem, ...]]:
    value = without_nulls(value, core_v1.Pod)
    try:
        pod = codec.from_builtins(core_v1.Pod, value)
    except codec.InvalidObject:
        raise ManifestError(_type_problems(value, data, at)) from None
    return pod, tuple(_unknown_field_warnings(pod, value, data, at))


def _type_problems(value: dict[str, Any], data: bytes, at: tuple[Step, ...]) -> list[Problem]:
    """Every wrong type: each found one is mended in a copy, and the reading goes on behind it."""
    mended = deepcopy(value)
    problems: list[Problem] = []
    seen: list[tuple[Step, ...]] = []
    while len(problems) < _MAX_TYPE_PROBLEMS:
        try:
            pod = codec.from_builtins(core_v1.Pod, mended)
        except codec.InvalidObject as error:
            text = str(error)
        else:
            # A misspelt name often is the reason why a field is missing.
            problems += _unknown_field_warnings(pod, value, data, at)
            break
        path = _path_of(text)
        repeated = path in seen
        # What is missing inside a placeholder of ours is nobody's mistake.
        if not any(path[: len(before)] == before for before in seen):
            problems.append(_type_problem(text, (*at, *path), data))
        seen.append(path)
        if repeated or not _mend(mended, path):
            break
    return sorted(problems, key=lambda problem: problem.line)


def _path_of(text: str) -> tuple[Step, ...]:
    """Where the decoder's message says that something is wrong."""
    place, missing = _PLACE.search(text), _MISSING.match(text)
    path = steps_of(place["path"].removeprefix(".")) if place else ()
    return (*path, missing["name"]) if missing else path


def _type_problem(text: str, path: tuple[Step, ...], data: bytes) -> Problem:
    line = line_of(data, path)
    if _MISSING.match(text):
        return Problem(path_text(path), "Required value", line)
    expected = _EXPECTED.match(text)
    if expected is None:
        return Problem(path_text(path), _PLACE.sub("", text), line)
    found = f", found {_in_words(expected['got'])}" if expected["got"] else ""
    return Problem(path_text(path), f"expected {_in_words(expected['wanted'])}{found}", line)


def _in_words(types: str) -> str:
    words = {
        "int": "a whole number",
        "str": "text",
        "bool": "true or false",
        "array": "a list",
        "object": "an object",
        "float": "a number",
        "null": "nothing",
        "datetime": "a time such as 2024-01-31T12:00:00Z",
    }
    return " or ".join(words.get(name, name) for name in types.split(" | ") if name != "null" or types == "null")


def _mend(document: Any, path: tuple[Step, ...]) -> bool:
    """Puts something of the right type at the path, whatever that is."""
    *steps, last = path or ("",)  # a message without a place is about nothing that can be mended
    parent = document
    for step in steps:
        parent = parent[step]
    before = _error_text(document)
    for placeholder in _PLACEHOLDERS:
        parent[last] = placeholder
        after = _error_text(document)
        if after != before and (not after or _path_of(after) != path):
            return True
    return False


def _error_text(document: Any) -> str:
    try:
        codec.from_builtins(core_v1.Pod, document)
    except codec.InvalidObject as error:
        return str(error)
    return ""


def _unknown_field_warnings(
    pod: core_v1.Pod, value: dict[str, Any], data: bytes, at: tuple[Step, ...]
) -> list[Problem]:
    return [
        Problem(path_text((*at, *path)), _unknown_field_text(name, known), line_of(data, (*at, *path)))
        for path, name, known in _unknown_fields(pod, value, ())
    ]


def _unknown_fields(
    known: Any, given: Any, path: tuple[Step, ...]
) -> Iterator[tuple[tuple[Step, ...], str, tuple[str, ...]]]:
    if isinstance(known, list) and isinstance(given, list):
        for index, (known_child, given_child) in enumerate(zip(known, given, strict=False)):
            yield from _unknown_fields(known_child, given_child, (*path, index))
    elif isinstance(known, msgspec.Struct) and isinstance(given, dict):
        fields = known.__struct_fields__
        for name, given_child in given.items():
            if name in fields:
                yield from _unknown_fields(getattr(known, name), given_child, (*path, name))
            else:
                yield (*path, name), name, fields


def _unknown_field_text(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown field, ignored; did you mean {near[0]!r}?" if near else "unknown field, ignored"


def path_text(path: tuple[Step, ...]) -> str:
    """Steps put together: `spec.containers[0].name`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
