"""Files, drop-ins and flags become settings in upstream's order, and everything wrong is said at once."""

import ast
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from kubelet_py.api.durations import format_duration
from kubelet_py.config import Answer, HostTraits, NodeFlags, Settings, load
from kubelet_py.config.load import DEFAULT_EVICTION_HARD
from kubelet_py.config.model import KubeletConfiguration
from kubelet_py.config.shapes import fields_of, leaves_of
from kubelet_py.config.unsupported import (
    HANDLED_BY_THE_CONFIGURATION,
    NOT_YET,
    NOT_YET_FLAGS,
    PARTLY,
    WITHOUT_EFFECT,
)
from kubelet_py.errors import ConfigError

HEADER = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
PLAIN_HOST = HostTraits()
NO_DURATION = "not a duration: write a number and a unit, such as 300ms, 10s or 1h30m"


class Node:
    """A node's configuration directory."""

    def __init__(self, root: Path) -> None:
        self.file = root / "kubelet.yaml"
        self.drop_ins = root / "conf.d"
        self.drop_ins.mkdir()

    def write(self, body: str) -> "Node":
        self.file.write_text(HEADER + body)
        return self

    def drop(self, name: str, body: str) -> "Node":
        path = self.drop_ins / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(HEADER + body)
        return self

    def load(self, *flags: str, host: HostTraits = PLAIN_HOST) -> Settings:
        return load([f"--config={self.file}", f"--config-dir={self.drop_ins}", *flags], host=host)

    def problems(self, *flags: str, host: HostTraits = PLAIN_HOST) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.load(*flags, host=host)
        return [problem.replace(str(self.file), "FILE") for problem in caught.value.problems]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with an empty configuration file."""
    return Node(tmp_path).write("")


def config_of(*flags: str) -> KubeletConfiguration:
    """The configuration of a start without files."""
    return load(flags, host=PLAIN_HOST).config


def test_without_a_file_the_legacy_defaults_hold() -> None:
    """As kubelets had them before there were files."""
    config = config_of()
    assert config.authentication.anonymous.enabled is True
    assert config.authentication.webhook.enabled is False
    assert config.authorization.mode == "AlwaysAllow"
    assert config.readOnlyPort == 10255
    assert config.evictionHard == {}


def test_with_a_file_the_secure_defaults_hold(node: Node) -> None:
    """Nobody gets in unasked, and the disk is guarded."""
    config = node.load().config
    assert config.authentication.anonymous.enabled is False
    assert config.authentication.webhook.enabled is True
    assert config.authorization.mode == "Webhook"
    assert config.readOnlyPort == 0
    assert config.evictionHard == DEFAULT_EVICTION_HARD


def test_drop_ins_go_over_the_file_in_lexical_order_and_flags_over_all(node: Node) -> None:
    """file < 10.conf < 20.conf < flags; other files are not read."""
    node.write("maxPods: 1\npodsPerCore: 1\nport: 1111\nsyncFrequency: 1m\n")
    node.drop("20.conf", "port: 2222\n").drop("10.conf", "port: 3333\npodsPerCore: 2\n").drop("99.yaml", "port: 4444\n")
    config = node.load("--sync-frequency=5s").config
    assert (config.maxPods, config.podsPerCore, config.port, config.syncFrequency) == (1, 2, 2222, 5.0)


def test_drop_ins_below_subdirectories_count(node: Node) -> None:
    """The walk is recursive, and null takes a setting back to its default."""
    node.write("maxPods: 7\n").drop("sub/10.conf", "maxPods: null\npodsPerCore: 3\n")
    config = node.load().config
    assert (config.maxPods, config.podsPerCore) == (110, 3)


def test_paths_of_the_file_are_seen_from_its_directory(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the program was started; what is absolute or empty stays."""
    monkeypatch.chdir("/")
    node.write(
        "staticPodPath: manifests\ntlsCertFile: ../tls/node.crt\ntlsPrivateKeyFile: /etc/tls/node.key\n"
        "authentication: {x509: {clientCAFile: ./ca.crt}}\nresolvConf: ''\nvolumePluginDir: plugins\n"
        "podLogsDir: logs\n"
    )
    config = node.load().config
    root = node.file.parent
    assert config.staticPodPath == f"{root}/manifests"
    assert config.authentication.x509.clientCAFile == f"{root}/ca.crt"
    assert (config.tlsCertFile, config.tlsPrivateKeyFile) == (f"{root.parent}/tls/node.crt", "/etc/tls/node.key")
    assert (config.resolvConf, config.volumePluginDir, config.podLogsDir) == ("", f"{root}/plugins", f"{root}/logs")


def test_a_relative_file_has_a_directory_too(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """--config=kubelet.yaml."""
    monkeypatch.chdir(node.file.parent)
    node.write("resolvConf: resolv.conf\n")
    assert load(["--config=kubelet.yaml"], host=PLAIN_HOST).config.resolvConf == f"{node.file.parent}/resolv.conf"


def test_paths_of_drop_ins_and_flags_are_taken_as_they_are(node: Node) -> None:
    """As upstream."""
    node.write("podLogsDir: logs\n").drop("10.conf", "podLogsDir: mine\nvolumePluginDir: plugins\n")
    drop_in = f"{node.drop_ins}/10.conf"
    assert node.problems() == [f"{drop_in}: podLogsDir is 'mine': an absolute path is expected"]
    node.drop("10.conf", "volumePluginDir: plugins\n")
    config = node.load("--pod-manifest-path=manifests").config
    assert (config.volumePluginDir, config.staticPodPath) == ("plugins", "manifests")


def test_lists_are_replaced_and_maps_merged_by_a_drop_in(node: Node) -> None:
    """RFC 7386."""
    node.write("clusterDNS: [10.0.0.1]\nsystemReserved: {cpu: '1'}\n")
    node.drop("10.conf", "clusterDNS: [10.0.0.2]\nsystemReserved: {memory: 1Gi}\n")
    config = node.load().config
    assert config.clusterDNS == ("10.0.0.2",)
    assert config.systemReserved == {"cpu": "1", "memory": "1Gi"}


def test_feature_gates_of_flags_are_merged_key_by_key(node: Node) -> None:
    """A flag switches its gate and leaves the file's others."""
    node.write("featureGates: {CRIListStreaming: true, MemoryQoS: false}\n")
    settings = node.load("--feature-gates=MemoryQoS=true")
    assert settings.gates.enabled("CRIListStreaming") is True
    assert settings.gates.enabled("MemoryQoS") is True
    assert settings.gates.enabled("EventedPLEG") is False


def test_all_alpha_switches_what_is_not_named(node: Node) -> None:
    """A gate's own setting is stronger than its group's."""
    settings = node.write("featureGates: {AllAlpha: true, EventedPLEG: false}\n").load()
    assert settings.gates.enabled("CRIListStreaming") is True
    assert settings.gates.enabled("EventedPLEG") is False


def test_defaults_that_depend_on_other_fields(node: Node) -> None:
    """Report frequency follows update frequency; parallel pulls switch serial ones off."""
    config = node.write("nodeStatusUpdateFrequency: 7s\nmaxParallelImagePulls: 3\n").load().config
    assert config.nodeStatusReportFrequency == 7.0
    assert config.serializeImagePulls is False


def test_naming_an_eviction_signal_drops_the_other_defaults_unless_they_are_merged(node: Node) -> None:
    """mergeDefaultEvictionSettings."""
    node.write("evictionHard: {memory.available: 1Gi}\n")
    assert node.load().config.evictionHard == {"memory.available": "1Gi"}
    node.write("evictionHard: {memory.available: 1Gi}\nmergeDefaultEvictionSettings: true\n")
    assert node.load().config.evictionHard == {**DEFAULT_EVICTION_HARD, "memory.available": "1Gi"}
    assert node.load("--eviction-hard=memory.available<2Gi").config.evictionHard == {"memory.available": "2Gi"}


def test_a_drop_in_adds_to_the_thresholds_that_the_file_has(node: Node) -> None:
    """The default ones too; merging with the defaults is asked for by the file, and comes before."""
    node.drop("10.conf", "evictionHard: {memory.available: 500Mi, imagefs.inodesFree: null}\n")
    others = {name: amount for name, amount in DEFAULT_EVICTION_HARD.items() if name != "imagefs.inodesFree"}
    assert node.load().config.evictionHard == {**others, "memory.available": "500Mi"}
    node.write("evictionHard: {pid.available: 10%}\n")
    node.drop("10.conf", "evictionHard: {memory.available: 500Mi}\nmergeDefaultEvictionSettings: true\n")
    assert node.load().config.evictionHard == {"pid.available": "10%", "memory.available": "500Mi"}


def test_a_default_follows_the_file_and_no_drop_in(node: Node) -> None:
    """A drop-in changes the field that it names."""
    node.drop("10.conf", "nodeStatusUpdateFrequency: 30s\n")
    config = node.load().config
    assert (config.nodeStatusUpdateFrequency, config.nodeStatusReportFrequency) == (30.0, 300.0)
    node.drop("10.conf", "maxParallelImagePulls: 3\n")
    assert len(node.problems()) == 1, "serializeImagePulls is true already"
    node.drop("10.conf", "maxParallelImagePulls: 3\nserializeImagePulls: false\n")
    assert node.load().config.maxParallelImagePulls == 3


def test_drop_ins_without_a_file_go_over_the_legacy_defaults(node: Node) -> None:
    """As flags alone do; what they take back has the default of a file."""
    node.drop("10.conf", "maxPods: 7\nreadOnlyPort: 0\nevictionHard: {memory.available: 1Gi}\n")
    settings = load([f"--config-dir={node.drop_ins}"], host=PLAIN_HOST)
    config = settings.config
    assert (config.maxPods, config.readOnlyPort, config.evictionHard) == (7, 0, {"memory.available": "1Gi"})
    assert (config.authentication.anonymous.enabled, config.authorization.mode) == (True, "AlwaysAllow")
    node.drop("20.conf", "authorization: null\n")
    config = load([f"--config-dir={node.drop_ins}"], host=PLAIN_HOST).config
    assert (config.authentication.anonymous.enabled, config.authorization.mode) == (True, "Webhook")


def test_an_empty_list_in_the_file_is_no_list_for_drop_ins(node: Node) -> None:
    """The Go kubelet 1.37.2 writes the file's configuration as JSON, without empty lists, and merges drop-ins there."""
    node.write("enforceNodeAllocatable: []")
    assert load([f"--config={node.file}"], host=PLAIN_HOST).config.enforceNodeAllocatable == ()
    assert node.load().config.enforceNodeAllocatable == ("pods",)
    assert node.drop("10.conf", "maxPods: 5").load().config.enforceNodeAllocatable == ("pods",)
    assert node.drop("05.conf", "enforceNodeAllocatable: []").load().config.enforceNodeAllocatable == ()


def test_drop_ins_lose_nothing_of_the_file(node: Node) -> None:
    """Headers are masked for readers only."""
    node.write("staticPodURLHeader: {Authorization: [abc]}\nregisterWithTaints: [{key: a, effect: NoExecute}]\n")
    alone = load([f"--config={node.file}"], host=PLAIN_HOST).config
    assert node.drop("10.conf", "maxPods: 7\n").load().config == dataclasses.replace(alone, maxPods=7)


def test_zero_is_the_default_where_upstream_has_no_pointer_and_a_value_where_it_has_one(node: Node) -> None:
    """port: 0 means 10250, healthzPort: 0 means off."""
    config = node.write("port: 0\nhealthzPort: 0\nresolvConf: ''\n").load().config
    assert (config.port, config.healthzPort, config.resolvConf) == (10250, 0, "")


def test_seccomp_default_is_on_when_file_or_flag_says_so(node: Node) -> None:
    """The flag is ORed."""
    node.write("seccompDefault: true\n")
    assert node.load("--seccomp-default=false").config.seccompDefault is True


def test_everything_wrong_is_said_at_once_with_file_path_and_what_is_right(node: Node) -> None:
    """One run of the start tells all of it."""
    node.write(
        "maxpods: 1\nport: 99999\nsyncFrequency: 5\nclusterDNS: 10.0.0.1\ncgroupDriver: magic\n"
        "authentication: {webhook: {cacheTTL: soon}}\nkubeReserved: {cpu: 1}\n"
    )
    assert node.problems("--max-pods=x", "--healthz-bind-address=here") == [
        "--max-pods: 'x': a whole number is expected",
        "--healthz-bind-address: 'here': an IP address is expected",
        "FILE: maxpods is no field of this object; did you mean maxPods?",
        'FILE: syncFrequency is 5: a duration such as "1m30s" is expected',
        "FILE: clusterDNS is '10.0.0.1': a list is expected",
        f"FILE: authentication.webhook.cacheTTL is 'soon': {NO_DURATION}",
        "FILE: kubeReserved.cpu is 1: a string is expected: put it in quotes",
        "FILE: port is 99999: 1 to 65535 is expected",
        "FILE: cgroupDriver is 'magic': write cgroupfs or systemd",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("maxPods: 1\nmaxPods: 2\n", "FILE: line 4, column 1: the key 'maxPods' stands twice"),
        ("a: [\n", "FILE: line 4, column 1: did not find expected node content"),
        ("---\na: 1\n", "FILE: holds 2 documents: write one KubeletConfiguration"),
    ],
)
def test_text_that_is_no_document_is_refused_with_its_place(node: Node, text: str, problem: str) -> None:
    """Line and column where there is one."""
    assert node.write(text).problems()[0] == problem


def test_a_file_of_another_kind_is_refused(node: Node) -> None:
    """apiVersion and kind are checked in drop-ins too."""
    node.file.write_text("apiVersion: v1\nmaxPods: 1\n")
    assert node.problems() == [
        "FILE: apiVersion is 'v1': write apiVersion: kubelet.config.k8s.io/v1beta1",
        "FILE: kind is missing: write kind: KubeletConfiguration",
    ]


def test_a_file_that_is_not_there_is_named(node: Node) -> None:
    """No start with defaults in its place."""
    node.file.unlink()
    assert node.problems() == ["FILE: No such file or directory"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            "imageGCLowThresholdPercent: 90",
            "imageGCLowThresholdPercent is 90: less than imageGCHighThresholdPercent (85) is expected",
        ),
        (
            "maxParallelImagePulls: 2\nserializeImagePulls: true",
            "maxParallelImagePulls is 2 while serializeImagePulls is true: write serializeImagePulls: false",
        ),
        (
            "enforceNodeAllocatable: [none, pods]",
            "enforceNodeAllocatable has none together with others: write none alone",
        ),
        (
            "enforceNodeAllocatable: [kube-reserved]",
            "kubeReservedCgroup is empty: enforceNodeAllocatable with kube-reserved needs it",
        ),
        ("runOnce: true", "runOnce is true, which is no longer possible: leave it out"),
        (
            "podLogsDir: /var//log",
            "podLogsDir is '/var//log': a path without //, /./, /../ and / at the end is expected",
        ),
        ("shutdownGracePeriod: 500ms", "shutdownGracePeriod is 500ms: 0s, or 1s and more, is expected"),
        ("containerLogMonitorInterval: 1s", "containerLogMonitorInterval is 1s: at least 3s is expected"),
        ("cpuCFSQuotaPeriod: 2s", "cpuCFSQuotaPeriod is 2s: 1ms to 1s is expected"),
        ("userNamespaces: {idsPerPod: 65537}", "userNamespaces.idsPerPod is 65537: a multiple of 65536 is expected"),
        (
            "evictionSoft: {memory.available: 1Gi}",
            "evictionSoftGracePeriod.memory.available is missing: each signal of evictionSoft needs one",
        ),
        (
            "evictionHard: {memory.free: 1Gi}",
            "evictionHard.memory.free is no eviction signal: write memory.available, nodefs",
        ),
        (
            "evictionHard: {memory.available: 101%}",
            "evictionHard.memory.available is '101%': more than zero, or 0% to 100%, is expected",
        ),
        (
            "evictionHard: {memory.available: '0'}",
            "evictionHard.memory.available is '0': more than zero, or 0% to 100%, is expected",
        ),
        (
            "featureGates: {KubeletPSI: false}",
            "featureGates.KubeletPSI cannot be false: the feature is always on, leave it out",
        ),
        (
            "featureGates: {KubletPSI: true}",
            "featureGates.KubletPSI is no feature gate of Kubernetes 1.37; did you mean KubeletPSI?",
        ),
        (
            "registerWithTaints: [{key: a, effect: Never}]",
            "registerWithTaints[0].effect is 'Never': write NoSchedule or PreferNoSchedule or NoExecute",
        ),
        (
            "qosReserved: {memory: 50%}",
            "qosReserved is set, which needs the feature gate QOSReserved: switch it on, or leave this out",
        ),
        ("tlsCertFile: /a", "tlsPrivateKeyFile is empty: a certificate and its key are given together"),
        ("healthzBindAddress: a_b", "healthzBindAddress is 'a_b': an IP address or a host name is expected"),
        ("address: localhost", "address is 'localhost': an IP address is expected"),
        ("containerRuntimeEndpoint: npipe:x", "containerRuntimeEndpoint is 'npipe:x': write unix:///path/to/the.sock"),
    ],
)
def test_rules_between_fields(node: Node, body: str, problem: str) -> None:
    """Each with what would be right."""
    found = node.write(f"{body}\n").problems()
    assert len(found) == 1
    assert found[0].removeprefix("FILE: ").startswith(problem)


def test_thresholds_may_be_switched_off(node: Node) -> None:
    """0% and 100%; a minimum to reclaim may be nothing."""
    node.write(
        "evictionHard: {memory.available: 100%, nodefs.available: 0%}\n"
        "evictionMinimumReclaim: {nodefs.available: '0'}\n"
    )
    assert node.load().config.evictionHard == {"memory.available": "100%", "nodefs.available": "0%"}


def test_a_cgroup_v1_host_is_refused_until_the_operator_says_otherwise(node: Node) -> None:
    """failCgroupV1, with the way out in the message."""
    host = HostTraits(cgroup_v2=False)
    (problem,) = node.problems(host=host)
    assert problem.startswith("failCgroupV1 is true, and this host uses cgroup v1")
    assert "--fail-cgroupv1=false" in problem
    assert node.load("--fail-cgroupv1=false", host=host).config.failCgroupV1 is False


def test_swap_is_refused_until_the_operator_says_otherwise(node: Node) -> None:
    """failSwapOn."""
    host = HostTraits(swap_on=True)
    (problem,) = node.problems(host=host)
    assert problem.startswith("failSwapOn is true, and swap is on")
    assert node.load("--fail-swap-on=false", host=host).config.failSwapOn is False


@pytest.mark.parametrize("label", ["kubernetes.io/role=x", "x.k8s.io/y=z", "a/b/c=d", "a=" + "b" * 64, "-a=b"])
def test_labels_that_a_node_may_not_give_itself_or_that_are_none(label: str) -> None:
    """--node-labels."""
    with pytest.raises(ConfigError) as caught:
        config_of(f"--node-labels={label}")
    assert f"--node-labels has {label}" in caught.value.problems[0]


def test_labels_that_a_node_may_give_itself() -> None:
    """Its own prefixes, the well-known set, and everything outside Kubernetes' domains."""
    text = "node.kubernetes.io/x=1,a.kubelet.kubernetes.io/y=,topology.kubernetes.io/zone=z,example.com/w=v,plain=1"
    labels = load([f"--node-labels={text}"], host=PLAIN_HOST).flags.node_labels
    assert len(labels) == 5


def test_addresses_that_are_none_are_left_out_with_a_warning(node: Node) -> None:
    """One wrong entry does not keep a node from starting with the right ones."""
    settings = node.write("clusterDNS: [dns.local, 10.0.0.10, fd00::a]\n").load("--node-ip=10.0.0.5, none ,fd00::5")
    assert settings.config.clusterDNS == ("10.0.0.10", "fd00::a")
    assert settings.flags.node_ip == "10.0.0.5,fd00::5"
    assert settings.warnings == (
        "no IP address, ignored: 'none' in --node-ip",
        "no IP address, ignored: 'dns.local' in clusterDNS",
    )


@pytest.mark.parametrize(
    ("ips", "text"),
    [
        ("10.0.0.5,10.0.0.6", "one address, or one of each family, is expected"),
        ("fd00::5,fd00::6", "one address, or one of each family, is expected"),
        ("10.0.0.5,fd00::5,10.0.0.6", "one address, or one of each family, is expected"),
        ("0.0.0.0,fd00::5", "0.0.0.0 and :: stand alone: they say which family to look for"),
    ],
)
def test_node_ips_that_do_not_go_together(ips: str, text: str) -> None:
    """At most one of each family."""
    with pytest.raises(ConfigError) as caught:
        config_of(f"--node-ip={ips}")
    assert caught.value.problems == (f"--node-ip has {ips}: {text}",)


def test_a_node_ip_of_each_family() -> None:
    """Dual stack, in the order that the operator wants; or one word for the family to look for."""
    for text in ("fd00::5,10.0.0.5", "::", ""):
        assert load([f"--node-ip={text}"], host=PLAIN_HOST).flags.node_ip == text


def test_health_checks_may_be_served_under_a_name(node: Node) -> None:
    """In a file; the flag takes an address."""
    assert node.write("healthzBindAddress: localhost\n").load().config.healthzBindAddress == "localhost"


@pytest.mark.parametrize("endpoint", ["unix:/run/x.sock", "unix:///run/x.sock", "/run/x.sock"])
def test_spellings_of_a_runtimes_socket(node: Node, endpoint: str) -> None:
    """As the connection takes them."""
    node.write(f"containerRuntimeEndpoint: {endpoint}\nimageServiceEndpoint: {endpoint}\n")
    assert node.load().config.containerRuntimeEndpoint == endpoint


def test_a_label_without_a_value_is_a_key() -> None:
    """As role labels are written; spaces around are not meant."""
    flags = ["--node-labels=plain, example.com/w = v ,", "--node-labels=last="]
    assert load(flags, host=PLAIN_HOST).flags.node_labels == {"plain": "", "example.com/w": "v", "last": ""}


@pytest.mark.parametrize(
    ("flag", "problem"),
    [
        ("--cloud-provider=gce", "--cloud-provider is 'gce': leave it empty or write external"),
        ("--exit-on-lock-contention", "--exit-on-lock-contention needs --lock-file"),
    ],
)
def test_other_flags_of_the_node_are_checked(flag: str, problem: str) -> None:
    """Before anything starts."""
    with pytest.raises(ConfigError, match=problem):
        config_of(flag)


def test_what_is_not_there_yet_is_taken_and_warned_about_once(node: Node) -> None:
    """All of it in one line; defaults are not mentioned."""
    node.write("topologyManagerPolicy: none\nshutdownGracePeriod: 10s\n")
    warnings = node.load("--runtime-cgroups=/x").warnings
    assert warnings == ("not implemented, ignored: shutdownGracePeriod, --runtime-cgroups",)


def test_deprecated_flags_are_named_in_one_warning() -> None:
    """Upstream wants them in the file."""
    (warning,) = load(["--max-pods=5", "--port=1", "-v=2"], host=PLAIN_HOST).warnings
    assert warning == "deprecated flags, set them in the --config file instead: --max-pods --port"


def names_read_by_the_agent() -> set[str]:
    """Every attribute that the code outside this package looks at."""
    agent = Path(__file__).resolve().parents[4] / "kubelet_py"
    read: set[str] = set()
    for path in agent.rglob("*.py"):
        if path.relative_to(agent).parts[0] != "config":
            read |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    return read


def test_every_field_is_used_or_listed_as_not_used() -> None:
    """A feature that arrives takes its settings off the list, and none is forgotten."""
    read = names_read_by_the_agent()
    paths = [path for path, _ in leaves_of(KubeletConfiguration)]
    listed = {*NOT_YET, *WITHOUT_EFFECT, *HANDLED_BY_THE_CONFIGURATION}
    forgotten = [path for path in paths if path.rpartition(".")[2] not in read and path not in listed]
    assert [path for path in forgotten if path.partition(".")[0] not in NOT_YET] == [], "read these, or list them"
    # CRI and the pod API have fields of these two names, which the agent reads
    used = [path for path in NOT_YET if path.rpartition(".")[2] in read - {"tracing", "userNamespaces"}]
    assert used == [], "take these off the list"


def test_every_flag_of_the_node_is_used_or_listed_as_not_used() -> None:
    """As with the fields; the two that say where the configuration is are used up by it."""
    read = names_read_by_the_agent()
    names = set(fields_of(NodeFlags)) - {"config", "config_dir"}
    assert names - read == set(NOT_YET_FLAGS)


def test_the_lists_are_in_order_and_name_real_fields() -> None:
    """A renamed field must not linger."""
    names = {path for path, _ in leaves_of(KubeletConfiguration)} | {"tracing", "userNamespaces"}
    assert {*NOT_YET, *WITHOUT_EFFECT, *HANDLED_BY_THE_CONFIGURATION, *PARTLY} <= names
    assert list(NOT_YET) == sorted(NOT_YET)


def test_configz_reads_back_to_the_same_configuration(node: Node, tmp_path: Path) -> None:
    """The effective configuration, written as a file, gives itself."""
    node.write(
        "maxPods: 5\nsyncFrequency: 1m30s\nfeatureGates: {CRIListStreaming: true}\n"
        "registerWithTaints: [{key: a, effect: NoExecute}]\n"
        "tracing: {samplingRatePerMillion: 5}\nreservedMemory: [{numaNode: 0, limits: {memory: 1Gi}}]\n"
        "shutdownGracePeriodByPodPriority: [{priority: 1, shutdownGracePeriodSeconds: 2}]\nevictionHard: {}\n"
    )
    settings = node.load()
    again = tmp_path / "again.json"
    # an empty map is not written, which a file takes for the defaults
    again.write_text(json.dumps({**settings.configz(), "evictionHard": {}}))
    assert load([f"--config={again}"], host=PLAIN_HOST).config == settings.config


def test_header_values_are_masked_in_configz(node: Node) -> None:
    """They carry credentials."""
    document: dict[str, Any] = node.write("staticPodURLHeader: {Authorization: [abc]}\n").load().configz()
    assert document["staticPodURLHeader"] == {"Authorization": ["<masked>"]}
    assert document["syncFrequency"] == format_duration(60) == "1m0s"


def test_the_configuration_is_frozen() -> None:
    """It is shared between tasks."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        config_of().maxPods = 1  # type: ignore[misc]  # that it cannot be set is what is tested


@pytest.mark.parametrize(
    ("words", "start"),
    [(["--version"], "Kubernetes v1.37.2"), (["--version=v9.9.9"], "Kubernetes v9.9.9"), (["-h"], "kubelet-py runs")],
)
def test_questions_are_answered_instead_of_a_start(words: list[str], start: str) -> None:
    """--version and --help."""
    with pytest.raises(Answer) as caught:
        load([*words, "--port=x"], host=PLAIN_HOST)
    assert caught.value.text.startswith(start)


def test_standalone_is_a_start_without_a_kubeconfig() -> None:
    """As upstream."""
    assert load([], host=PLAIN_HOST).standalone
    assert not load(["--kubeconfig=/etc/k"], host=PLAIN_HOST).standalone
