"""The model and the command line have exactly the fields and flags of Kubernetes 1.37, with its types and defaults."""

import csv
import re
from pathlib import Path

import pytest

from kubelet_py.api.durations import parse_duration
from kubelet_py.config.flags import FLAGS, parse_flags
from kubelet_py.config.gates import KNOWN_GATES
from kubelet_py.config.load import LEGACY_DEFAULTS
from kubelet_py.config.model import ZERO_IS_A_VALUE, KubeletConfiguration
from kubelet_py.config.node_flags import NodeFlags
from kubelet_py.config.shapes import Shape, fields_of, value_at

HERE = Path(__file__).parent
PLAIN = {"bool": bool, "string": str, "float64": float, "int32": int, "int64": int, "uint32": int, "quantity": str}


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a table beside this file."""
    with (HERE / name).open(newline="") as table:
        return list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))


FIELDS = rows("fields.tsv")
FLAG_ROWS = rows("flags.tsv")


def shape_at(path: str) -> Shape:
    """The shape of a path as the table writes it; `[]` goes into the elements of a list."""
    shape = Shape(KubeletConfiguration)
    for name in path.split("."):
        shape = fields_of(shape.base)[name.removesuffix("[]")]
        if name.endswith("[]"):
            shape = shape.items
    return shape


def test_the_model_has_the_fields_of_the_table_and_no_others() -> None:
    """126 fields on the top level."""
    top = {row["json_name"] for row in FIELDS if "." not in row["json_name"]}
    assert set(fields_of(KubeletConfiguration)) == top
    assert len(top) == 126


@pytest.mark.parametrize("row", FIELDS, ids=lambda row: str(row["json_name"]))
def test_a_field_has_the_type_of_the_table(row: dict[str, str]) -> None:
    """Type, list or map, and whether a zero is a value."""
    shape, kind = shape_at(row["json_name"]), row["type"]
    if kind.startswith("[]"):
        assert shape.base is tuple
    elif kind.startswith("map["):
        assert shape.base is dict
    elif "Duration" in kind or kind == "duration":
        assert shape.is_duration
    elif kind.lstrip("*") in PLAIN:
        assert shape.base is PLAIN[kind.lstrip("*")]
    else:
        assert shape.is_object or shape.base is str or kind == "v1.ResourceList", (
            "an object, or a string with a name of its own"
        )
    if kind.startswith("*") and not shape.is_object:
        assert shape.has(ZERO_IS_A_VALUE)


@pytest.mark.parametrize(
    "row", [r for r in FLAG_ROWS if r["flag"] not in ("--version", "--help")], ids=lambda r: r["flag"]
)
def test_a_flag_has_the_default_of_the_table(row: dict[str, str]) -> None:
    """Flags alone start from the legacy defaults."""
    flag = FLAGS[row["flag"].removeprefix("--")]
    value = getattr(NodeFlags(), flag.path) if flag.node_local else value_at(LEGACY_DEFAULTS, flag.path)
    text = re.sub(r" \(.*", "", row["default"]).strip('"')
    if text in ("", "empty", "[]", "{}"):
        assert not value
    elif isinstance(value, bool):
        assert value is (text == "true")
    elif isinstance(value, float):
        assert value == parse_duration(text)
    elif isinstance(value, tuple):
        assert list(value) == text.strip("[]").split()
    else:
        assert str(value) == text


def test_every_flag_of_the_table_is_known_and_no_other() -> None:
    """131 flags, --help and --version among them."""
    assert {row["flag"].removeprefix("--") for row in FLAG_ROWS} == {*FLAGS, "help", "version"}


def test_the_deprecated_flags_are_those_of_the_table() -> None:
    """They are still taken, and named in one warning."""
    assert {name for name, flag in FLAGS.items() if flag.deprecated} == {
        row["flag"].removeprefix("--") for row in FLAG_ROWS if row["deprecated"].startswith("yes")
    }


def test_gates_that_are_locked_are_those_that_have_settled() -> None:
    """Only GA and deprecated features can be locked, and an alpha feature is off."""
    for name, gate in KNOWN_GATES.items():
        assert not gate.locked or gate.stage in ("GA", "DEPRECATED"), name
        assert not (gate.stage == "ALPHA" and gate.default), name


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        (["--sync-frequency", "1m30s"], "syncFrequency", 90.0),
        (["--sync_frequency=90s"], "syncFrequency", 90.0),
        (["-v=4"], "logging.verbosity", 4),
        (["-v", "4"], "logging.verbosity", 4),
        (["-v4"], "logging.verbosity", 4),
        (["--fail-swap-on"], "failSwapOn", True),
        (["--fail-swap-on=F"], "failSwapOn", False),
        (["--max-pods=0x10"], "maxPods", 16),
        (["--cluster-dns=10.0.0.1,10.0.0.2", "--cluster-dns", "::1"], "clusterDNS", ("10.0.0.1", "10.0.0.2", "::1")),
        (["--system-reserved=cpu=1,memory=1Gi"], "systemReserved", {"cpu": "1", "memory": "1Gi"}),
        (
            ["--eviction-hard=memory.available<5%,pid.available<10"],
            "evictionHard",
            {"memory.available": "5%", "pid.available": "10"},
        ),
        (["--eviction-hard="], "evictionHard", {}),
        (["--manifest-url-header=a:b,a:c"], "staticPodURLHeader", {"a": ("b", "c")}),
        (["--feature-gates=A=true,B=false", "--feature-gates=A=0"], "featureGates", {"A": False, "B": False}),
    ],
)
def test_flags_are_read_in_go_s_syntax(words: list[str], path: str, value: object) -> None:
    """Spellings that upstream's flag library takes."""
    parsed = parse_flags(words)
    assert parsed.problems == []
    assert parsed.config_values == {path: value}


def test_taints_and_reserved_memory_are_read_from_their_own_notations() -> None:
    """key=value:effect, and NUMA-NODE:type=quantity."""
    memory = "0:memory=1Gi,hugepages-1Gi=2Gi;1:memory=2Gi"
    parsed = parse_flags(["--register-with-taints=a=b:NoSchedule,c:NoExecute", f"--reserved-memory={memory}"])
    taints = parsed.config_values["registerWithTaints"]
    assert [(taint.key, taint.value, taint.effect) for taint in taints] == [
        ("a", "b", "NoSchedule"),
        ("c", None, "NoExecute"),
    ]
    assert [(item.numaNode, dict(item.limits)) for item in parsed.config_values["reservedMemory"]] == [
        (0, {"memory": "1Gi", "hugepages-1Gi": "2Gi"}),
        (1, {"memory": "2Gi"}),
    ]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--clster-dns=1"], "unknown flag: --clster-dns; did you mean cluster-dns?"),
        (["run"], 'unknown command "run": kubelet-py takes flags only here'),
        (["--", "--port"], 'unknown command "--port": kubelet-py takes flags only here'),
        (["--port"], "flag needs an argument: --port"),
        (["--port=many"], "--port: 'many': a whole number is expected"),
        (["--fail-swap-on=maybe"], "--fail-swap-on: 'maybe': true or false is expected"),
        (["--kube-reserved=cpu"], "--kube-reserved: 'cpu': 'cpu' has no '=': write key=value"),
        (
            ["--sync-frequency=5"],
            "--sync-frequency: '5': not a duration: write a number and a unit, such as 300ms, 10s or 1h30m",
        ),
        (["--register-with-taints=x"], "--register-with-taints: 'x': 'x' is no taint: write key=value:effect"),
        (["-q"], "unknown flag: -q"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(words: list[str], problem: str) -> None:
    """What stands there, and what would be right."""
    assert parse_flags(words).problems == [problem]
