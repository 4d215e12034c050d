"""The values of flags as /flagz shows them: the words of the Go kubelet 1.37.2 for the same command lines."""

import csv
from pathlib import Path

from kubelet_py.config import HostTraits, load
from kubelet_py.config.flag_texts import flag_texts
from kubelet_py.config.flags import parse_flags
from kubelet_py.config.load import LEGACY_DEFAULTS
from kubelet_py.config.node_flags import NodeFlags
from kubelet_py.config.shapes import with_values

HOST = HostTraits(cgroup_v2=True, swap_on=False)
ENDPOINT = "--container-runtime-endpoint=unix:///run/x.sock"


def given(*argv: str) -> dict[str, str]:
    """The texts of the flags that a command line sets."""
    parsed = parse_flags(argv)
    assert parsed.problems == []
    texts = flag_texts(with_values(LEGACY_DEFAULTS, parsed.config_values), NodeFlags(**parsed.node_values))
    return {name: text for name, text in texts.items() if f"--{name}" in {word.split("=")[0] for word in argv}}


def test_a_flag_that_is_not_given_shows_its_default() -> None:
    with (Path(__file__).parent / "flags.tsv").open(newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))
    texts = flag_texts(LEGACY_DEFAULTS, NodeFlags())
    assert {f"--{name}" for name in texts} == {row["flag"] for row in rows}
    plain = (
        "address",
        "allowed-unsafe-sysctls",
        "anonymous-auth",
        "cluster-dns",
        "event-qps",
        "runtime-request-timeout",
    )
    defaults = {row["flag"]: row["default"] for row in rows}
    assert {name: texts[name] for name in plain} == {name: defaults[f"--{name}"] for name in plain}
    assert (texts["help"], texts["version"], texts["eviction-hard"], texts["vmodule"]) == ("false", "false", "", "")


def test_lists_and_maps_and_durations_are_in_gos_spelling() -> None:
    assert given(
        "--cluster-dns=1.2.3.4,4.5.6.7",
        "--sync-frequency=90s",
        "--fail-swap-on=false",
        "--kube-api-qps=7",
        "--container-log-max-size=20Mi",
        "--feature-gates=EnvFiles=false,AllAlpha=true",
        "--node-labels=b=2,a=1",
        "--system-reserved=memory=1Gi,cpu=100m",
        "--topology-manager-policy-options=a=b,c=d",
    ) == {
        "cluster-dns": "[1.2.3.4,4.5.6.7]",
        "sync-frequency": "1m30s",
        "fail-swap-on": "false",
        "kube-api-qps": "7",
        "container-log-max-size": "20Mi",
        "feature-gates": "AllAlpha=true,EnvFiles=false",
        "node-labels": "a=1,b=2",
        "system-reserved": "cpu=100m,memory=1Gi",
        "topology-manager-policy-options": "a=b,c=d",
    }


def test_flags_with_a_syntax_of_their_own_keep_it() -> None:
    assert given(
        "--eviction-hard=nodefs.available<1%,memory.available<5%",
        "--register-with-taints=a=b:NoSchedule,c:NoExecute",
        "--reserved-memory=0:memory=1Gi,hugepages-1Gi=2Gi;1:memory=2Gi",
        "--vmodule=foo=3,bar=4",
    ) == {
        "eviction-hard": "memory.available<5%,nodefs.available<1%",
        "register-with-taints": "a=b:NoSchedule,c=:NoExecute",
        "reserved-memory": "0:hugepages-1Gi=2Gi,memory=1Gi,1:memory=2Gi",
        "vmodule": "foo=3,bar=4",
    }


def test_headers_and_passwords_are_not_shown() -> None:
    assert given("--manifest-url=https://me:secret@host/a@b") == {"manifest-url": "https://CLASSIFIED@host/a@b"}
    assert given("--manifest-url=http://host/a@b") == {"manifest-url": "http://host/a@b"}
    assert given("--manifest-url-header=Authorization:secret") == {"manifest-url-header": "CLASSIFIED"}
    assert flag_texts(LEGACY_DEFAULTS, NodeFlags())["manifest-url-header"] == ""


def test_the_config_file_is_not_in_the_flags_but_drop_ins_without_one_are(tmp_path: Path) -> None:
    """The Go kubelet reads drop-ins into what its flags point to, and a --config file into another object."""
    head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
    (tmp_path / "config.yaml").write_text(f"{head}maxPods: 7\nfailCgroupV1: false\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "10.conf").write_text(f"{head}maxPods: 8\n")
    file, drop_ins = f"--config={tmp_path}/config.yaml", f"--config-dir={tmp_path}/d"
    assert load([ENDPOINT, file, drop_ins, "--port=1"], host=HOST).flagz()["max-pods"] == "110"
    assert load([ENDPOINT, file, "--max-pods=9"], host=HOST).flagz()["max-pods"] == "9"
    shown = load([ENDPOINT, drop_ins, "--port=1"], host=HOST).flagz()
    assert (shown["max-pods"], shown["port"], shown["config-dir"]) == ("8", "1", f"{tmp_path}/d")
