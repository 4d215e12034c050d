"""Everything that the API server would refuse in a pod is named, with its place and what would be right."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelet_py.api import codec, core_v1
from kubelet_py.core.name_rules import DNS_LABEL_MESSAGE, DNS_SEARCH_MESSAGE, DNS_SUBDOMAIN_MESSAGE
from kubelet_py.core.pod_defaults import with_pod_defaults
from kubelet_py.core.pod_validation import validate_pod
from tests.unit.kubelet_py.core.pod_builder import NO_QUANTITY, a_container, a_pod, problems_of, sized


def test_a_good_pod_has_noproblems_of() -> None:
    """Most fields at once, all of them right."""
    container = a_container(
        ports=[{"containerPort": 80, "name": "http", "hostPort": 80, "hostIP": "192.0.2.1"}],
        env=[
            {"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
            {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "D", "valueFrom": {"resourceFieldRef": {"resource": "limits.hugepages-2Mi", "divisor": "1Mi"}}},
        ],
        envFrom=[{"prefix": "P_", "configMapRef": {"name": "c"}}],
        volumeMounts=[
            {"name": "v", "mountPath": "/a", "subPath": "s"},
            {"name": "v", "mountPath": "/b", "readOnly": True, "recursiveReadOnly": "Enabled"},
            {"name": "v", "mountPath": "/c", "mountPropagation": "Bidirectional"},
        ],
        volumeDevices=[{"name": "v", "devicePath": "/dev/x"}],
        livenessProbe={"tcpSocket": {"port": "http"}, "terminationGracePeriodSeconds": 5},
        readinessProbe={"exec": {"command": ["true"]}, "successThreshold": 2},
        startupProbe={"httpGet": {"port": 80, "httpHeaders": [{"name": "X", "value": "1"}]}},
        lifecycle={"preStop": {"sleep": {"seconds": 5}}},
        securityContext={
            "privileged": True,
            "runAsUser": 5,
            "seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"},
            "appArmorProfile": {"type": "Unconfined"},
        },
        terminationMessagePath="/tmp/x",
        **sized({"cpu": "1", "example.com/gpu": "1"}, {"cpu": "2", "example.com/gpu": "1", "hugepages-2Mi": "2Mi"}),
    )
    init = a_container("side", restartPolicy="Always", livenessProbe={"grpc": {"port": 9}})
    pod = a_pod(
        container,
        initContainers=[init, a_container("init", ports=[{"containerPort": 1, "hostPort": 80, "hostIP": "192.0.2.1"}])],
        volumes=[
            {"name": "v", "emptyDir": {"sizeLimit": "1Gi", "medium": "Memory"}},
            {"name": "h", "hostPath": {"path": "/x", "type": "Directory"}},
            {
                "name": "d",
                "downwardAPI": {
                    "items": [
                        {"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}},
                        {"path": "m", "fieldRef": {"fieldPath": "metadata.annotations['x']"}, "mode": 0o600},
                        {"path": "r", "resourceFieldRef": {"resource": "limits.cpu", "containerName": "main"}},
                    ]
                },
            },
            {"name": "i", "image": {"reference": "a:1"}},
            {"name": "hp", "emptyDir": {"medium": "HugePages-2Mi"}},
        ],
        tolerations=[
            {"operator": "Exists"},
            {"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute", "tolerationSeconds": 5},
        ],
        hostAliases=[{"ip": "192.0.2.3", "hostnames": ["a.b"]}],
        dnsConfig={"nameservers": ["192.0.2.4"], "searches": ["x"], "options": [{"name": "ndots"}]},
        securityContext={"fsGroup": 1, "supplementalGroups": [2], "sysctls": [{"name": "a.b", "value": "1"}]},
        nodeSelector={"a": "b"},
        os={"name": "linux"},
        readinessGates=[{"conditionType": "example.com/ok"}],
        resources={"limits": {"cpu": "4", "memory": "1Gi"}},
        overhead={"cpu": "1m"},
        imagePullSecrets=[{"name": "s"}],
        activeDeadlineSeconds=5,
        hostname="h",
        subdomain="s",
        runtimeClassName="rc",
    )
    assert problems_of(pod) == []


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"name": None}, "metadata.name: Required value: name is needed for the pod"),
        ({"name": "A"}, f'metadata.name: Invalid value: "A": {DNS_SUBDOMAIN_MESSAGE}'),
        ({"namespace": ""}, "metadata.namespace: Required value"),
        ({"namespace": "a.b"}, f'metadata.namespace: Invalid value: "a.b": {DNS_LABEL_MESSAGE}'),
        ({"generation": -1}, "metadata.generation: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"labels": {"-": "x"}},
            (
                'metadata.labels: Invalid value: "-": the name part must be 1 to 63 characters, '
                "alphanumeric, '-', '_' or '.', and must start and end with an alphanumeric character"
            ),
        ),
        (
            {"labels": {"a": "-"}},
            (
                "metadata.labels[a]: Invalid value: \"-\": must be at most 63 characters, alphanumeric, '-', "
                "'_' or '.', and must start and end with an alphanumeric character, or be empty"
            ),
        ),
        ({"labels": {"a": 1}}, "metadata.labels[a]: Invalid value: 1: must be text: put it in quotes"),
        (
            {"annotations": {"-": "x"}},
            (
                'metadata.annotations: Invalid value: "-": the name part must be 1 to 63 characters, '
                "alphanumeric, '-', '_' or '.', and must start and end with an alphanumeric character"
            ),
        ),
        ({"annotations": {"a": True}}, "metadata.annotations[a]: Invalid value: True: must be text: put it in quotes"),
        ({"annotations": {"a": "x" * 300_000}}, "metadata.annotations: Forbidden: may not be more than 262144 bytes"),
    ],
)
def test_metadata(metadata: dict[str, Any], problem: str) -> None:
    """Names, labels and annotations."""
    (found,) = problems_of(a_pod(metadata=metadata))
    assert found == problem


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"containers": []}, "spec.containers: Required value: a pod has at least one container"),
        (
            {"restartPolicy": "No"},
            ('spec.restartPolicy: Unsupported value: "No": supported values: "Always", "OnFailure", "Never"'),
        ),
        (
            {"dnsPolicy": "X"},
            (
                'spec.dnsPolicy: Unsupported value: "X": supported values: "ClusterFirstWithHostNet", '
                '"ClusterFirst", "Default", "None"'
            ),
        ),
        (
            {"dnsPolicy": "None"},
            (
                "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when "
                "`dnsPolicy` is None"
            ),
        ),
        (
            {"dnsConfig": {"nameservers": ["x"]}},
            (
                'spec.dnsConfig.nameservers[0]: Invalid value: "x": must be a valid IP address, (e.g. '
                "10.9.8.7 or 2001:db8::ffff)"
            ),
        ),
        (
            {"dnsConfig": {"nameservers": ["192.0.2.1"] * 4}},
            (
                "spec.dnsConfig.nameservers: Invalid value: ['192.0.2.1', '192.0.2.1', '192.0.2.1', "
                "'192.0.2.1']: must not have more than 3 nameservers"
            ),
        ),
        (
            {"dnsConfig": {"searches": ["x"] * 33}},
            "spec.dnsConfig.searches: Invalid value: 33: must not have more than 32 search paths",
        ),
        (
            {"dnsConfig": {"searches": ["x" * 100] * 21}},
            "spec.dnsConfig.searches: Invalid value: 2120: must not have more than 2048 characters",
        ),
        (
            {"dnsConfig": {"searches": ["x", "y z"]}},
            f'spec.dnsConfig.searches[1]: Invalid value: "y z": {DNS_SEARCH_MESSAGE}',
        ),
        ({"dnsConfig": {"options": [{}]}}, "spec.dnsConfig.options[0]: Required value: must not be empty"),
        (
            {"activeDeadlineSeconds": 0},
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647",
        ),
        ({"os": {"name": "plan9"}}, 'spec.os.name: Unsupported value: "plan9": supported values: "linux", "windows"'),
        ({"nodeSelector": {"a": 1}}, "spec.nodeSelector[a]: Invalid value: 1: must be text: put it in quotes"),
        (
            {"tolerations": [{"effect": "X", "operator": "Exists"}]},
            (
                'spec.tolerations[0].effect: Unsupported value: "X": supported values: "NoSchedule", '
                '"PreferNoSchedule", "NoExecute"'
            ),
        ),
        (
            {"tolerations": [{"operator": "X", "key": "a"}]},
            ('spec.tolerations[0].operator: Unsupported value: "X": supported values: "Equal", "Exists", "Lt", "Gt"'),
        ),
        (
            {"tolerations": [{"key": "-", "operator": "Exists"}]},
            (
                'spec.tolerations[0].key: Invalid value: "-": the name part must be 1 to 63 characters, '
                "alphanumeric, '-', '_' or '.', and must start and end with an alphanumeric character"
            ),
        ),
        (
            {"tolerations": [{}]},
            'spec.tolerations[0].operator: Invalid value: "": operator must be Exists when `key` is empty',
        ),
        (
            {"tolerations": [{"operator": "Exists", "value": "x"}]},
            ("spec.tolerations[0].value: Invalid value: \"x\": value must be empty when `operator` is 'Exists'"),
        ),
        (
            {"tolerations": [{"operator": "Exists", "tolerationSeconds": 1}]},
            (
                "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when "
                "`tolerationSeconds` is set"
            ),
        ),
        ({"hostname": "A"}, f'spec.hostname: Invalid value: "A": {DNS_LABEL_MESSAGE}'),
        ({"subdomain": "A"}, f'spec.subdomain: Invalid value: "A": {DNS_LABEL_MESSAGE}'),
        ({"hostnameOverride": "A"}, f'spec.hostnameOverride: Invalid value: "A": {DNS_SUBDOMAIN_MESSAGE}'),
        (
            {"hostnameOverride": "a." * 32 + "a"},
            (
                "spec.hostnameOverride: Invalid value: "
                '"a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a": must be no more than '
                "64 characters"
            ),
        ),
        (
            {"hostnameOverride": "a", "setHostnameAsFQDN": True},
            "spec.setHostnameAsFQDN: Forbidden: may not be set together with hostnameOverride",
        ),
        (
            {"hostnameOverride": "a", "hostNetwork": True},
            "spec.hostNetwork: Forbidden: may not be set together with hostnameOverride",
        ),
        (
            {"hostAliases": [{"ip": "x"}]},
            (
                'spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or '
                "2001:db8::ffff)"
            ),
        ),
        (
            {"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["A"]}]},
            f'spec.hostAliases[0].hostnames[0]: Invalid value: "A": {DNS_SUBDOMAIN_MESSAGE}',
        ),
        (
            {"shareProcessNamespace": True, "hostPID": True},
            (
                "spec.shareProcessNamespace: Invalid value: True: ShareProcessNamespace and HostPID cannot "
                "both be enabled"
            ),
        ),
        ({"hostUsers": False, "hostIPC": True}, "spec.hostIPC: Forbidden: when `pod.Spec.HostUsers` is false"),
        (
            {"securityContext": {"runAsUser": -1}},
            ("spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"),
        ),
        (
            {"securityContext": {"supplementalGroups": [-1]}},
            (
                "spec.securityContext.supplementalGroups[0]: Invalid value: -1: must be between 0 and "
                "2147483647, inclusive"
            ),
        ),
        (
            {"securityContext": {"supplementalGroupsPolicy": "X"}},
            (
                'spec.securityContext.supplementalGroupsPolicy: Unsupported value: "X": supported values: '
                '"Merge", "Strict"'
            ),
        ),
        (
            {"securityContext": {"fsGroupChangePolicy": "X"}},
            (
                'spec.securityContext.fsGroupChangePolicy: Unsupported value: "X": supported values: '
                '"OnRootMismatch", "Always"'
            ),
        ),
        (
            {"securityContext": {"seccompProfile": {"type": "X"}}},
            (
                'spec.securityContext.seccompProfile.type: Unsupported value: "X": supported values: '
                '"Localhost", "RuntimeDefault", "Unconfined"'
            ),
        ),
        (
            {"securityContext": {"seccompProfile": {"type": "Localhost"}}},
            (
                "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when type "
                "is Localhost"
            ),
        ),
        (
            {"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "/x"}}},
            ('spec.securityContext.seccompProfile.localhostProfile: Invalid value: "/x": must be a relative path'),
        ),
        (
            {"securityContext": {"appArmorProfile": {"type": "Unconfined", "localhostProfile": "x"}}},
            (
                'spec.securityContext.appArmorProfile.localhostProfile: Invalid value: "x": can only be set '
                "when type is Localhost"
            ),
        ),
        (
            {"securityContext": {"sysctls": [{"name": "", "value": ""}]}},
            "spec.securityContext.sysctls[0].name: Required value",
        ),
        (
            {"securityContext": {"sysctls": [{"name": "A", "value": ""}]}},
            (
                'spec.securityContext.sysctls[0].name: Invalid value: "A": must be parts such as '
                "'net.ipv4.ip_forward', at most 253 characters"
            ),
        ),
        (
            {"securityContext": {"sysctls": [{"name": "a", "value": ""}] * 2}},
            'spec.securityContext.sysctls[1].name: Duplicate value: "a"',
        ),
        (
            {"resources": {"limits": {"ephemeral-storage": "1"}}},
            (
                'spec.resources.limits[ephemeral-storage]: Invalid value: "ephemeral-storage": not supported '
                "at the pod level; supported are cpu, memory and hugepages-<size>"
            ),
        ),
        ({"overhead": {"cpu": "x"}}, f'spec.overhead.limits[cpu]: Invalid value: "x": {NO_QUANTITY}'),
        *(
            (
                {"securityContext": {name: -1}},
                f"spec.securityContext.{name}: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            )
            for name in ("runAsGroup", "fsGroup")
        ),
        *(
            ({"hostUsers": False, name: True}, f"spec.{name}: Forbidden: when `pod.Spec.HostUsers` is false")
            for name in ("hostPID", "hostNetwork")
        ),
        *(
            ({name: "A"}, f'spec.{name}: Invalid value: "A": {DNS_SUBDOMAIN_MESSAGE}')
            for name in ("runtimeClassName", "priorityClassName")
        ),
        (
            {"activeDeadlineSeconds": 2**31},
            "spec.activeDeadlineSeconds: Invalid value: 2147483648: must be between 1 and 2147483647",
        ),
        ({"imagePullSecrets": [{}]}, "spec.imagePullSecrets[0].name: Required value"),
        (
            {"readinessGates": [{"conditionType": "-"}]},
            (
                'spec.readinessGates[0].conditionType: Invalid value: "-": the name part must be 1 to 63 '
                "characters, alphanumeric, '-', '_' or '.', and must start and end with an alphanumeric "
                "character"
            ),
        ),
        ({"serviceAccountName": "A"}, f'spec.serviceAccountName: Invalid value: "A": {DNS_SUBDOMAIN_MESSAGE}'),
        (
            {"ephemeralContainers": [{"name": "e", "image": "i"}]},
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
        ({"initContainers": [a_container()]}, 'spec.initContainers[0].name: Duplicate value: "main"'),
    ],
)
def test_spec(spec: dict[str, Any], problem: str) -> None:
    """One thing wrong is one problem, with its place."""
    spec = {"containers": [a_container()], **spec}
    pod = codec.from_builtins(core_v1.Pod, {"metadata": {"name": "web", "namespace": "shop"}, "spec": spec})
    assert problems_of(pod) == [problem]


@pytest.mark.parametrize(
    "spec",
    [
        *({"restartPolicy": policy} for policy in ("Always", "OnFailure", "Never")),
        *({"dnsPolicy": policy} for policy in ("ClusterFirst", "ClusterFirstWithHostNet", "Default")),
        {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1", "192.0.2.2", "fd00::1"]}},
        {"dnsConfig": {"searches": ["x"] * 32}},
        {"dnsConfig": {"searches": [*["x" * 127] * 15, "x" * 128]}},
        *({"activeDeadlineSeconds": seconds} for seconds in (1, 2**31 - 1)),
        *({"os": {"name": name}} for name in ("linux", "windows")),
        *(
            {"tolerations": [{"key": "a", "effect": effect}]}
            for effect in ("NoSchedule", "PreferNoSchedule", "NoExecute", "")
        ),
        *({"tolerations": [{"key": "a", "operator": operator}]} for operator in ("Equal", "Exists", "Lt", "Gt", "")),
        {"hostnameOverride": "a." * 31 + "aa"},
        {"hostnameOverride": "a", "setHostnameAsFQDN": False},
        {"shareProcessNamespace": True},
        {"hostUsers": True, "hostPID": True, "hostIPC": True, "hostNetwork": True},
        {"securityContext": {"runAsUser": 0, "runAsGroup": 0, "fsGroup": 2**31 - 1}},
        *({"securityContext": {"supplementalGroupsPolicy": policy}} for policy in ("Merge", "Strict")),
        *({"securityContext": {"fsGroupChangePolicy": policy}} for policy in ("OnRootMismatch", "Always")),
        {"securityContext": {"sysctls": [{"name": "a.b", "value": "1"}, {"name": "a.c", "value": "1"}]}},
        {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, "appArmorProfile": {"type": "Unconfined"}}},
        {"overhead": {"cpu": "0", "ephemeral-storage": "1"}},
        {"serviceAccountName": "a", "runtimeClassName": "b.c", "priorityClassName": "d"},
    ],
)
def test_the_last_of_what_is_right(spec: dict[str, Any]) -> None:
    """The words and the numbers at the ends."""
    assert problems_of(a_pod(**spec)) == []


def test_annotations_may_have_256_kibibytes_together() -> None:
    """Keys and values."""
    fitting = {"a": "x" * (2**17 - 1), "b": "x" * (2**17 - 1)}
    assert problems_of(a_pod(metadata={"annotations": fitting})) == []
    assert problems_of(a_pod(metadata={"annotations": {**fitting, "c": ""}})) == [
        "metadata.annotations: Forbidden: may not be more than 262144 bytes"
    ]


def test_no_spec() -> None:
    """Is a problem and no crash."""
    assert [str(p) for p in validate_pod(core_v1.Pod())] == [
        "metadata.name: Required value: name is needed for the pod",
        "metadata.namespace: Required value",
        "spec: Required value",
    ]


_scalars = st.sampled_from(["", "x", "-", "A", "..", "/x", "1", "1Gi", -1, 0, 70000, True, None])
_mangled = st.fixed_dictionaries(
    {},
    optional={
        "hostname": _scalars,
        "restartPolicy": _scalars,
        "dnsPolicy": _scalars,
        "hostNetwork": st.booleans(),
        "overhead": st.dictionaries(_scalars.map(str), _scalars, max_size=2),
        "resources": st.fixed_dictionaries({"limits": st.dictionaries(_scalars.map(str), _scalars, max_size=2)}),
        "nodeSelector": st.dictionaries(_scalars.map(str), _scalars, max_size=2),
        "volumes": st.lists(st.fixed_dictionaries({"name": _scalars.map(str)}), max_size=2),
        "containers": st.lists(
            st.fixed_dictionaries(
                {"name": _scalars.map(str)},
                optional={
                    "image": _scalars.map(str),
                    "command": st.lists(st.text(max_size=3), max_size=2),
                    "resources": st.fixed_dictionaries(
                        {
                            "limits": st.dictionaries(_scalars.map(str), _scalars, max_size=2),
                            "requests": st.dictionaries(_scalars.map(str), _scalars, max_size=2),
                        }
                    ),
                },
            ),
            max_size=3,
        ),
    },
)


@settings(max_examples=2 * settings().max_examples)
@given(_mangled)
def test_no_pod_crashes_the_checks(spec: dict[str, Any]) -> None:
    """Whatever decodes can be completed and checked; completing twice changes nothing more."""
    body = {"metadata": {"name": "a", "namespace": "b"}, "spec": {"containers": [], **spec}}
    try:
        pod = codec.from_builtins(core_v1.Pod, body)
    except codec.InvalidObject:
        return
    once = with_pod_defaults(pod)
    assert codec.encode(with_pod_defaults(once)) == codec.encode(once)
    validate_pod(once)


def test_checks_need_no_defaults() -> None:
    """A pod as it is written can be checked too; references to API objects are fine by themselves."""
    volumes = [
        {"name": "c", "configMap": {"name": "c"}},
        {"name": "i", "image": {"reference": "a"}},
        {"name": "n", "nfs": {"server": "s", "path": "/p"}},
        {"name": "d", "downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.uid"}}]}},
        {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
    ]
    assert validate_pod(a_pod(volumes=volumes)) == ()
