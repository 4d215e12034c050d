"""Manifests are read, and everything that is wrong with them is named with its place."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelet_py.core.manifest import MAX_MANIFEST_BYTES, line_of, path_text, read_manifest, steps_of
from kubelet_py.core.problems import ManifestError, Problem, ProblemList, shown

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations: {since: 2024-01-31, time: 12:30:45}
spec:
  terminationGracePeriodSeconds: 0x10
  containers:
  - name: main
    image: busybox
    args: [1:30, "0o7"]
  volumes:
  - name: v
    configMap: {name: c, defaultMode: 0644}
"""


def _problems(text: str | bytes, allow_list: bool = False) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read_manifest(text.encode() if isinstance(text, str) else text, allow_list)
    return [str(problem) for problem in caught.value.problems]


def test_yaml_is_read_as_the_go_kubelet_reads_it() -> None:
    """Dates and times stay text, octal and hexadecimal numbers are numbers."""
    pod = read_manifest(POD.encode()).pods[0]
    assert pod.metadata is not None
    assert pod.spec is not None
    assert pod.metadata.annotations == {"since": "2024-01-31", "time": "12:30:45"}
    assert pod.spec.containers[0].args == ["1:30", "0o7"]
    assert pod.spec.terminationGracePeriodSeconds == 16
    assert pod.spec.volumes is not None
    assert pod.spec.volumes[0].configMap is not None
    assert pod.spec.volumes[0].configMap.defaultMode == 0o644


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("0o17", 15), ("0b11", 3), ("-5", -5), ("+5", 5), ("1_000", 1000), ("010", 8), ("0", 0)),
        *(("-010", -8), ("+010", 8), ("0_10", 8), ("07", 7)),
    ],
)
def test_numbers(text: str, number: int) -> None:
    """Every spelling of a whole number."""
    pod = read_manifest(POD.replace("0x10", text).encode()).pods[0]
    assert pod.spec is not None
    assert pod.spec.terminationGracePeriodSeconds == number


def test_json_is_read_too() -> None:
    """With tabs, with a byte order mark, and YAML that starts with a brace."""
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "j"}, "spec": {"containers": []}}
    for text in (json.dumps(body, indent="\t"), "\ufeff" + json.dumps(body), "{apiVersion: v1, kind: Pod}"):
        assert len(read_manifest(text.encode()).pods) == 1
    smile = b'{"apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": {"a": "\\ud83d\\ude00"}}}'
    for data in (smile, b"\n " + smile):
        metadata = read_manifest(data).pods[0].metadata
        assert metadata is not None
        assert metadata.annotations == {"a": "\U0001f600"}, "which YAML cannot write so"


def test_lists_only_where_they_are_allowed() -> None:
    """A URL may give many pods, a file one."""
    text = json.dumps({"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "a"}}, {}]})
    found = read_manifest(text.encode(), allow_list=True).pods
    assert [(pod.apiVersion, pod.kind) for pod in found] == [("v1", "Pod")] * 2
    assert _problems(text) == ["line 1: kind: expected Pod, found PodList"]
    with pytest.raises(ManifestError, match="expected Pod, found PodList"):
        read_manifest(text.encode())
    assert len(read_manifest(POD.encode(), allow_list=True).pods) == 1
    assert _problems("apiVersion: v1", True) == ["line 1: kind: expected Pod or PodList, found nothing"]
    assert _problems("apiVersion: v1\nkind: PodList\nitems: 3\n", True) == ["line 3: items: expected a list of pods"]
    misspelt = b'{"apiVersion": "v1", "kind": "PodList", "items": [{}, {"spec": {"containers": [], "x": 1}}]}'
    assert [str(w) for w in read_manifest(misspelt, allow_list=True).warnings] == [
        "line 1: items[1].spec.x: unknown field, ignored"
    ]
    assert _problems('{"apiVersion": "v1", "kind": "PodList", "items": 3}', True) == [
        "line 1: items: expected a list of pods"
    ]
    assert len(read_manifest(b'{"apiVersion": "v1", "kind": "PodList"}', allow_list=True).pods) == 0
    assert "expected an object" in _problems('{"apiVersion": "v1", "kind": "PodList", "items": [3]}', True)[0]
    assert _problems("apiVersion: v1\nkind: PodList\nitems:\n- spec: 3\n", True) == [
        "line 4: items[0].spec: expected an object, found a whole number"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "the file is empty; expected a Pod in YAML or JSON"),
        (b"  \n# nothing\n", "0 documents separated by '---'; one pod per file: put each into its own"),
        (b"a: [", "line 2: no YAML: did not find expected node content"),
        (b"\tx", "line 1: no YAML: found character that cannot start any token"),
        (b"a: 1\n---\nb: 2\n", "2 documents separated by '---'; one pod per file: put each into its own"),
        (b"ok\n\n\xff\xfe\n", "line 3: no UTF-8 text; save the file as UTF-8"),
        (b"\xff\n\n", "line 1: no UTF-8 text; save the file as UTF-8"),
        (b"[1]", "expected an object with the fields apiVersion, kind, metadata and spec"),
        (b"~: 2", "a key that is no text: 'None'; put it into quotes"),
        (b"a: &a [*a]", "nested deeper than 100 levels, or an alias of itself"),
        (b"x" * (MAX_MANIFEST_BYTES + 1), "larger than 10485760 bytes; a manifest is one pod"),
        (b"apiVersion: v1\nkind: Foo", "line 2: kind: expected Pod, found Foo"),
        (
            b"a: !!python/object/apply:os.system [x]",
            (
                "line 1: no YAML: could not determine a constructor for the tag "
                "'tag:yaml.org,2002:python/object/apply:os.system'"
            ),
        ),
        (b"a: 1\nb: " + b"9" * 5000, f"line 2: no YAML: '{'9' * 40}' is no number"),
        (b'{"a": ' * 2000, "line 1: nested deeper than 100 levels"),
        (b"? {a: 1}\n: 2", "line 1: no YAML: found unhashable key"),
        (b"a: !!float x", "no YAML: could not convert string to float: 'x'"),
        (
            b"a: \x07",
            (
                "no YAML: unacceptable character #x0007: control characters are not allowed\n"
                '  in "<unicode string>", position 3'
            ),
        ),
        (b"[" * 200_000, "line 1: nested deeper than 100 levels"),
        (b"- " * 200_000, "line 1: nested deeper than 100 levels"),
        (b"a: 1\nb: " + b"[" * 100 + b"]" * 100, "line 2: nested deeper than 100 levels"),
        (b"b: " + b"[" * 60 + b"[x]," + b"[" * 40, "line 1: nested deeper than 100 levels"),
    ],
)
def test_unreadable_texts(text: bytes, problem: str) -> None:
    """Each has one problem that says what it is."""
    assert _problems(text) == [problem]


def test_what_is_just_small_enough_is_read() -> None:
    """A hundred levels, as often as one likes, and ten mebibytes."""
    labels = "[" * 98 + "]" * 98
    text = POD + f"unknown: [{labels}, {labels}]\n"
    assert [str(w) for w in read_manifest(text.encode()).warnings] == ["line 15: unknown: unknown field, ignored"]
    pod = b'{"apiVersion": "v1", "kind": "Pod"}'
    assert len(read_manifest(pod.ljust(MAX_MANIFEST_BYTES)).pods) == 1


def test_version_and_kind_are_told_together() -> None:
    assert _problems("spec: {}\nkind: Foo\n") == [
        "line 1: apiVersion: expected v1, found nothing",
        "line 2: kind: expected Pod, found Foo",
    ]


def test_aliases_are_counted_before_they_are_followed() -> None:
    """Ten lines that stand for ten thousand million values are refused at once."""
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 11)]
    assert "stands for more than 1000000 values" in _problems("\n".join(lines))[0]


def test_all_wrong_types_at_once() -> None:
    """With their lines, in words."""
    text = POD.replace("name: main", "stdin: maybe").replace("0x10", "soon").replace("- name: v", "- name: [v]")
    assert _problems(text) == [
        "line 7: spec.terminationGracePeriodSeconds: expected a whole number, found text",
        "line 9: spec.containers[0].stdin: expected true or false, found text",
        "line 9: spec.containers[0].name: Required value",
        "line 13: spec.volumes[0].name: expected text, found a list",
    ]


@pytest.mark.parametrize(
    ("metadata", "spec", "problem"),
    [
        ({"name": 1.5}, {}, "metadata.name: expected text, found a number"),
        (
            {"creationTimestamp": 5},
            {},
            "metadata.creationTimestamp: expected a time such as 2024-01-31T12:00:00Z, found a whole number",
        ),
        ({}, {"containers": [None]}, "spec.containers[0]: expected an object, found nothing"),
        (
            {},
            {"containers": [{"name": "c", "livenessProbe": {"tcpSocket": {"port": []}}}]},
            "spec.containers[0].livenessProbe.tcpSocket.port: expected a whole number or text, found a list",
        ),
        ({"labels": []}, {}, "metadata.labels: expected an object, found a list"),
    ],
)
def test_types_have_words(metadata: Any, spec: dict[str, Any], problem: str) -> None:
    text = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [], **spec}}
    assert _problems(json.dumps(text)) == [f"line 1: {problem}"]


def test_misspelt_fields_are_pointed_at() -> None:
    """Alone they are a warning; with a missing field they are the reason."""
    manifest = read_manifest(POD.replace("image:", "imege:").encode())
    assert [str(w) for w in manifest.warnings] == [
        "line 10: spec.containers[0].imege: unknown field, ignored; did you mean 'image'?"
    ]
    assert _problems(POD.replace("containers:", "contianers:")) == [
        "line 6: spec.containers: Required value",
        "line 8: spec.contianers: unknown field, ignored; did you mean 'containers'?",
    ]
    manifest = read_manifest(POD.replace("image:", "zzzzzz:").encode())
    assert str(manifest.warnings[0]).endswith("spec.containers[0].zzzzzz: unknown field, ignored")


def test_no_end_of_problems() -> None:
    """Twenty are enough for one reading."""
    text = POD + "  - name: [x]\n" * 40
    assert len(_problems(text)) == 20


def test_odd_shapes() -> None:
    """A pod that is wrong at its root, and a value that no placeholder mends."""
    assert _problems("apiVersion: v1\nkind: Pod\nspec: []\n") == ["line 3: spec: expected an object, found a list"]
    assert _problems("apiVersion: v1\nkind: Pod\nmetadata: {creationTimestamp: never}\n") == [
        "line 3: metadata.creationTimestamp: Invalid RFC3339 encoded datetime"
    ]
    assert _problems("apiVersion: v1\nkind: Pod\nspec: {containers: [{1: 2}]}\n")
    assert _problems("apiVersion: v1\nkind: Pod\nmetadata: {name: 99999999999999999999999999}\n")


def test_lines_of_fields() -> None:
    """The nearest field when there is none of that name; 0 when there is no YAML."""
    assert line_of(POD.encode(), ("metadata", "name")) == 4
    assert line_of(POD.encode(), ("spec", "containers", 7)) == 8
    assert line_of(b"a: [", ("a",)) == 0
    assert line_of(b"\xff", ("a",)) == 0
    assert line_of(b"", ("a",)) == 0
    assert line_of(b"[" * 200_000, ("a",)) == 0
    assert line_of(b"a: 1", ("a", "b", "c")) == 1
    assert line_of(b"a: [1,\n2]", ("a", 1)) == 2
    assert line_of(b"a: [1,\n2]", ("a", 2)) == 1
    assert line_of(b"\n\na: 1", ("b",)) == 1
    assert line_of(b"? [x]\n: 1\na: 2", ("a",)) == 3
    assert line_of(b"a: &a\n  b: 1", ("a", "b")) == 2


def test_paths_are_taken_apart_and_put_together() -> None:
    """Both ways."""
    assert steps_of("spec.containers[0].name") == ("spec", "containers", 0, "name")
    assert path_text(("spec", "containers", 0, "name")) == "spec.containers[0].name"
    assert steps_of("") == ()
    assert steps_of("a[...].b") == ("a", "...", "b")


def test_problems_read_well() -> None:
    """Place, value, what would be right; long values are cut."""
    found = ProblemList()
    found.required("a", "b")
    found.required("a")
    found.invalid("a", "x", "")
    found.invalid("a", "x", "no")
    found.duplicate("a", 1)
    found.not_found("a", "x", "there is y")
    found.forbidden("a", "no")
    found.one_of("a", "x", ("y", "z"))
    found.one_of("a", None, ("y",))
    found.one_of("a", "y", ("y",))
    found.at_least("a", 1, 2)
    found.at_least("a", 2, 2)
    found.at_least("a", None, 2)
    assert [str(problem) for problem in found.found] == [
        "a: Required value: b",
        "a: Required value",
        'a: Invalid value: "x": no',
        "a: Duplicate value: 1",
        'a: Not found: "x": there is y',
        "a: Forbidden: no",
        'a: Unsupported value: "x": supported values: "y", "z"',
        "a: Invalid value: 1: must be greater than or equal to 2",
    ]
    assert str(Problem("", "m", 3)) == "line 3: m"
    assert shown("x" * 100).endswith("...")
    assert "thousands of digits" in shown(10**5000)


def _outcome(text: str) -> int:
    """How many pods, or how many problems."""
    try:
        return len(read_manifest(text.encode()).pods)
    except ManifestError as error:
        return len(error.problems)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "spec", "metadata", "containers", "ports", "env", "image", "labels", "x"]), inner
        )
    ),
    max_leaves=25,
)


@settings(max_examples=3 * settings().max_examples)
@given(_json, _json)
def test_any_json_is_a_pod_or_a_list_of_problems(metadata: Any, spec: Any) -> None:
    """Nothing else comes out of reading, whatever stands in the fields."""
    text = json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    assert _outcome(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_reason(data: bytes) -> None:
    """No bytes crash the reader."""
    with pytest.raises(ManifestError) as caught:
        read_manifest(data)
    assert str(caught.value)


def test_keys_that_are_no_text_become_it() -> None:
    """JSON has no others, and the Go kubelet takes them; an alias is changed once."""
    text = b"""
apiVersion: v1
kind: Pod
metadata: {name: a, labels: &some {8080: x, yes: y, 1.5: z}, annotations: *some}
spec: {containers: [{name: c, image: i}]}
"""
    (pod,) = read_manifest(text).pods
    assert pod.metadata is not None
    assert pod.metadata.labels == pod.metadata.annotations == {"8080": "x", "true": "y", "1.5": "z"}
