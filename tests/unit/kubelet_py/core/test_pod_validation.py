"""Everything that the API server would refuse in a pod is named."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelet_py.api import codec, core_v1
from kubelet_py.core.pod_defaults import with_pod_defaults
from kubelet_py.core.pod_validation import validate_pod
from tests.unit.kubelet_py.core.pod_builder import a_container, a_pod, sized


def _problems(pod: core_v1.Pod) -> list[str]:
    return [str(problem) for problem in validate_pod(with_pod_defaults(pod))]


def _of_container(container: dict[str, Any] | None = None, **spec: Any) -> list[str]:
    """Problems of one container's fields, its path cut away."""
    found = _problems(a_pod(a_container(**(container or {})), **spec))
    return [problem.removeprefix("spec.containers[0].") for problem in found]


def test_a_good_pod_has_no_problems() -> None:
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
    assert _problems(pod) == []


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"name": None}, "metadata.name: Required value"),
        ({"name": "A"}, 'metadata.name: Invalid value: "A"'),
        ({"namespace": ""}, "metadata.namespace: Required value"),
        ({"namespace": "a.b"}, 'metadata.namespace: Invalid value: "a.b"'),
        ({"generation": -1}, "metadata.generation: Invalid value: -1"),
        ({"labels": {"-": "x"}}, 'metadata.labels: Invalid value: "-"'),
        ({"labels": {"a": "-"}}, 'metadata.labels[a]: Invalid value: "-"'),
        ({"labels": {"a": 1}}, "metadata.labels[a]: Invalid value: 1: must be text: put it in quotes"),
        ({"annotations": {"-": "x"}}, 'metadata.annotations: Invalid value: "-"'),
        ({"annotations": {"a": True}}, "metadata.annotations[a]: Invalid value: True: must be text"),
        ({"annotations": {"a": "x" * 300_000}}, "metadata.annotations: Forbidden: may not be more than 262144 bytes"),
    ],
)
def test_metadata(metadata: dict[str, Any], problem: str) -> None:
    """Names, labels and annotations."""
    (found,) = _problems(a_pod(metadata=metadata))
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"containers": []}, "spec.containers: Required value"),
        ({"restartPolicy": "No"}, 'spec.restartPolicy: Unsupported value: "No": supported values: "Always"'),
        ({"dnsPolicy": "X"}, 'spec.dnsPolicy: Unsupported value: "X"'),
        ({"dnsPolicy": "None"}, "spec.dnsConfig.nameservers: Required value: must provide at least one"),
        ({"dnsConfig": {"nameservers": ["x"]}}, 'spec.dnsConfig.nameservers[0]: Invalid value: "x"'),
        ({"dnsConfig": {"nameservers": ["192.0.2.1"] * 4}}, "spec.dnsConfig.nameservers: Invalid value"),
        ({"dnsConfig": {"searches": ["x"] * 33}}, "spec.dnsConfig.searches: Invalid value: 33"),
        ({"dnsConfig": {"searches": ["x" * 2049]}}, "spec.dnsConfig.searches: Invalid value: 2049"),
        ({"dnsConfig": {"options": [{}]}}, "spec.dnsConfig.options[0]: Required value"),
        ({"activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds: Invalid value: 0"),
        ({"os": {"name": "plan9"}}, 'spec.os.name: Unsupported value: "plan9"'),
        ({"nodeSelector": {"a": 1}}, "spec.nodeSelector[a]: Invalid value: 1"),
        ({"tolerations": [{"effect": "X", "operator": "Exists"}]}, "spec.tolerations[0].effect: Unsupported value"),
        ({"tolerations": [{"operator": "X", "key": "a"}]}, "spec.tolerations[0].operator: Unsupported value"),
        ({"tolerations": [{"key": "-", "operator": "Exists"}]}, "spec.tolerations[0].key: Invalid value"),
        ({"tolerations": [{}]}, 'spec.tolerations[0].operator: Invalid value: "": operator must be Exists when'),
        ({"tolerations": [{"operator": "Exists", "value": "x"}]}, "spec.tolerations[0].value: Invalid value"),
        ({"tolerations": [{"operator": "Exists", "tolerationSeconds": 1}]}, "spec.tolerations[0].effect: Invalid"),
        ({"hostname": "A"}, 'spec.hostname: Invalid value: "A"'),
        ({"subdomain": "A"}, 'spec.subdomain: Invalid value: "A"'),
        ({"hostnameOverride": "A"}, 'spec.hostnameOverride: Invalid value: "A"'),
        ({"hostnameOverride": "a." * 32 + "a"}, "spec.hostnameOverride: Invalid value"),
        ({"hostnameOverride": "a", "setHostnameAsFQDN": True}, "spec.setHostnameAsFQDN: Forbidden"),
        ({"hostnameOverride": "a", "hostNetwork": True}, "spec.hostNetwork: Forbidden"),
        ({"hostAliases": [{"ip": "x"}]}, 'spec.hostAliases[0].ip: Invalid value: "x"'),
        ({"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["A"]}]}, "spec.hostAliases[0].hostnames[0]: Invalid"),
        ({"shareProcessNamespace": True, "hostPID": True}, "spec.shareProcessNamespace: Invalid value"),
        ({"hostUsers": False, "hostIPC": True}, "spec.hostIPC: Forbidden"),
        ({"securityContext": {"runAsUser": -1}}, "spec.securityContext.runAsUser: Invalid value: -1"),
        ({"securityContext": {"supplementalGroups": [-1]}}, "spec.securityContext.supplementalGroups[0]: Invalid"),
        ({"securityContext": {"supplementalGroupsPolicy": "X"}}, "spec.securityContext.supplementalGroupsPolicy: Uns"),
        ({"securityContext": {"fsGroupChangePolicy": "X"}}, "spec.securityContext.fsGroupChangePolicy: Unsupported"),
        ({"securityContext": {"seccompProfile": {"type": "X"}}}, "spec.securityContext.seccompProfile.type: Unsupp"),
        (
            {"securityContext": {"seccompProfile": {"type": "Localhost"}}},
            "spec.securityContext.seccompProfile.localhostProfile: Required value",
        ),
        (
            {"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "/x"}}},
            'spec.securityContext.seccompProfile.localhostProfile: Invalid value: "/x"',
        ),
        (
            {"securityContext": {"appArmorProfile": {"type": "Unconfined", "localhostProfile": "x"}}},
            "spec.securityContext.appArmorProfile.localhostProfile: Invalid value",
        ),
        ({"securityContext": {"sysctls": [{"name": "", "value": ""}]}}, "spec.securityContext.sysctls[0].name: Req"),
        ({"securityContext": {"sysctls": [{"name": "A", "value": ""}]}}, "spec.securityContext.sysctls[0].name: Inv"),
        (
            {"securityContext": {"sysctls": [{"name": "a", "value": ""}] * 2}},
            'spec.securityContext.sysctls[1].name: Duplicate value: "a"',
        ),
        ({"resources": {"limits": {"ephemeral-storage": "1"}}}, "spec.resources.limits[ephemeral-storage]: Invalid"),
        ({"overhead": {"cpu": "x"}}, "spec.overhead.limits[cpu]: Invalid value"),
        ({"imagePullSecrets": [{}]}, "spec.imagePullSecrets[0].name: Required value"),
        ({"readinessGates": [{"conditionType": "-"}]}, "spec.readinessGates[0].conditionType: Invalid value"),
        ({"serviceAccountName": "A"}, "spec.serviceAccountName: Invalid value"),
        ({"ephemeralContainers": [{"name": "e", "image": "i"}]}, "spec.ephemeralContainers: Forbidden"),
        ({"initContainers": [a_container()]}, 'spec.containers[0].name: Duplicate value: "main"'),
    ],
)
def test_spec(spec: dict[str, Any], problem: str) -> None:
    """One thing wrong is one problem, with its place."""
    pod = a_pod()
    spec = {"containers": [a_container()], **spec}
    pod = codec.from_builtins(core_v1.Pod, {"metadata": {"name": "web", "namespace": "shop"}, "spec": spec})
    found = _problems(pod)
    assert len(found) == 1
    assert found[0].startswith(problem.replace("spec.containers[0].name: D", "spec.initContainers[0].name: D"))


def test_no_spec() -> None:
    """Is a problem and no crash."""
    assert [str(p) for p in validate_pod(core_v1.Pod())] == [
        "metadata.name: Required value: name is needed for the pod",
        "metadata.namespace: Required value",
        "spec: Required value",
    ]


_PROBE = {"exec": {"command": ["x"]}}


@pytest.mark.parametrize(
    ("container", "problem"),
    [
        ({"name": ""}, "name: Required value"),
        ({"name": "A"}, 'name: Invalid value: "A"'),
        ({"image": None}, "image: Required value"),
        ({"image": " a"}, 'image: Invalid value: " a": must not have leading or trailing whitespace'),
        ({"imagePullPolicy": "X"}, "imagePullPolicy: Unsupported value"),
        ({"terminationMessagePolicy": "X"}, "terminationMessagePolicy: Unsupported value"),
        ({"terminationMessagePath": "x"}, "terminationMessagePath: Invalid value"),
        ({"restartPolicy": "X"}, "restartPolicy: Unsupported value"),
        ({"ports": [{"containerPort": 0}]}, "ports[0].containerPort: Invalid value: 0: must be between 1 and 65535"),
        ({"ports": [{"containerPort": 1, "hostPort": 70000}]}, "ports[0].hostPort: Invalid value"),
        ({"ports": [{"containerPort": 1, "name": "80"}]}, "ports[0].name: Invalid value"),
        ({"ports": [{"containerPort": 1, "name": "a"}] * 2}, 'ports[1].name: Duplicate value: "a"'),
        ({"ports": [{"containerPort": 1, "protocol": "X"}]}, "ports[0].protocol: Unsupported value"),
        ({"ports": [{"containerPort": 1, "hostIP": "x"}]}, "ports[0].hostIP: Invalid value"),
        ({"ports": [{"containerPort": 1, "hostPort": 5}] * 2}, "ports[1].hostPort: Duplicate value: 5"),
        ({"env": [{"name": ""}]}, "env[0].name: Required value"),
        ({"env": [{"name": "a=b"}]}, "env[0].name: Invalid value"),
        ({"env": [{"name": "A", "valueFrom": {}}]}, "env[0].valueFrom: Invalid value"),
        (
            {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
            "env[0].valueFrom: Invalid value",
        ),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}, "env[0].valueFrom.fieldRef"),
        (
            {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": ""}}}]},
            "env[0].valueFrom.resourceFieldRef.resource: Required value",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]},
            "env[0].valueFrom.resourceFieldRef.resource: Unsupported value",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "x"}}}]},
            "env[0].valueFrom.resourceFieldRef.divisor: Invalid value",
        ),
        ({"envFrom": [{}]}, "envFrom[0]: Invalid value"),
        ({"envFrom": [{"prefix": "=", "configMapRef": {}}]}, "envFrom[0].prefix: Invalid value"),
        ({"volumeMounts": [{"name": "", "mountPath": "/x"}]}, "volumeMounts[0].name: Required value"),
        (
            {"volumeMounts": [{"name": "no", "mountPath": "/x"}]},
            'volumeMounts[0].name: Not found: "no": the pod has the volumes v',
        ),
        ({"volumeMounts": [{"name": "v", "mountPath": ""}]}, "volumeMounts[0].mountPath: Required value"),
        ({"volumeMounts": [{"name": "v", "mountPath": "/x"}] * 2}, "volumeMounts[1].mountPath: Invalid value"),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "a", "subPathExpr": "b"}]},
            "volumeMounts[0].subPathExpr: Invalid value",
        ),
        ({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "../a"}]}, "volumeMounts[0].subPath: Invalid"),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x", "mountPropagation": "X"}]},
            "volumeMounts[0].mountPropagation: Unsupported value",
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x", "mountPropagation": "Bidirectional"}]},
            "volumeMounts[0].mountPropagation: Forbidden",
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x", "recursiveReadOnly": "X"}]},
            "volumeMounts[0].recursiveReadOnly: Unsupported value",
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x", "recursiveReadOnly": "Enabled"}]},
            "volumeMounts[0].recursiveReadOnly: Forbidden",
        ),
        (
            {
                "volumeMounts": [
                    {
                        "name": "v",
                        "mountPath": "/x",
                        "readOnly": True,
                        "recursiveReadOnly": "Enabled",
                        "mountPropagation": "HostToContainer",
                    }
                ]
            },
            "volumeMounts[0].recursiveReadOnly: Forbidden",
        ),
        ({"volumeDevices": [{"name": "no", "devicePath": "/x"}]}, "volumeDevices[0].name: Not found"),
        ({"volumeDevices": [{"name": "v", "devicePath": ""}]}, "volumeDevices[0].devicePath: Required value"),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x"}], "volumeDevices": [{"name": "v", "devicePath": "/x"}]},
            "volumeDevices[0].devicePath: Invalid value",
        ),
        ({"livenessProbe": {}}, "livenessProbe: Required value: must specify a handler type"),
        ({"livenessProbe": {**_PROBE, "tcpSocket": {"port": 1}}}, "livenessProbe: Forbidden: may not specify more"),
        ({"livenessProbe": {**_PROBE, "successThreshold": 2}}, "livenessProbe.successThreshold: Invalid value: 2"),
        ({"livenessProbe": {**_PROBE, "periodSeconds": -1}}, "livenessProbe.periodSeconds: Invalid value: -1"),
        (
            {"readinessProbe": {**_PROBE, "terminationGracePeriodSeconds": 1}},
            "readinessProbe.terminationGracePeriodSeconds: Invalid value: 1",
        ),
        ({"startupProbe": {"exec": {}}}, "startupProbe.exec.command: Required value"),
        ({"startupProbe": {"httpGet": {"port": 0}}}, "startupProbe.httpGet.port: Invalid value: 0"),
        ({"startupProbe": {"httpGet": {"port": ""}}}, "startupProbe.httpGet.port: Required value"),
        ({"startupProbe": {"httpGet": {"port": "80"}}}, 'startupProbe.httpGet.port: Invalid value: "80"'),
        ({"startupProbe": {"httpGet": {"port": 1, "scheme": "FTP"}}}, "startupProbe.httpGet.scheme: Unsupported"),
        (
            {"startupProbe": {"httpGet": {"port": 1, "httpHeaders": [{"name": ":", "value": ""}]}}},
            "startupProbe.httpGet.httpHeaders[0].name: Invalid value",
        ),
        ({"startupProbe": {"tcpSocket": {"port": 0}}}, "startupProbe.tcpSocket.port: Invalid value"),
        ({"startupProbe": {"grpc": {"port": 0}}}, "startupProbe.grpc.port: Invalid value"),
        ({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}, "lifecycle.preStop.sleep: Invalid value: 31"),
        ({"lifecycle": {"preStop": {}}}, "lifecycle.preStop: Required value"),
        (sized({"cpu": "2"}, {"cpu": "1"}), 'resources.requests: Invalid value: "2": must be less than or equal to'),
        (sized({"cpu": "-1"}), 'resources.requests[cpu]: Invalid value: "-1"'),
        (sized({"cpu": "x"}), 'resources.requests[cpu]: Invalid value: "x"'),
        (sized(None, {"cpu": "x"}), 'resources.limits[cpu]: Invalid value: "x"'),
        (sized({"gpu": "1"}), 'resources.requests[gpu]: Invalid value: "gpu"'),
        (sized(None, {"hugepages-x": "1"}), 'resources.limits[hugepages-x]: Invalid value: "hugepages-x"'),
        (sized({"example.com/gpu": "1"}), "resources.limits: Required value: Limit must be set"),
        (
            sized({"example.com/gpu": "1"}, {"example.com/gpu": "2"}),
            'resources.requests: Invalid value: "1": must be equal to example.com/gpu limit of 2',
        ),
        (sized(None, {"-/a": "1"}), 'resources.limits[-/a]: Invalid value: "-/a"'),
        ({"securityContext": {"runAsUser": -1}}, "securityContext.runAsUser: Invalid value"),
        ({"securityContext": {"procMount": "X"}}, "securityContext.procMount: Unsupported value"),
        ({"securityContext": {"procMount": "Unmasked"}}, "securityContext.procMount: Invalid value"),
        ({"securityContext": {"seccompProfile": {"type": "X"}}}, "securityContext.seccompProfile.type: Unsupported"),
        (
            {"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}},
            "securityContext: Invalid value",
        ),
    ],
)
def test_containers(container: dict[str, Any], problem: str) -> None:
    """One thing wrong is one problem, with its place."""
    fields = {**a_container(), **container}
    pod = a_pod(fields, volumes=[{"name": "v", "emptyDir": {}}])
    found = [problem.removeprefix("spec.containers[0].") for problem in _problems(pod)]
    assert len({text.replace("requests[", "limits[") for text in found}) == 1
    assert found[0].startswith(problem)


def test_fractions_of_devices() -> None:
    """Nobody has half a device."""
    assert _of_container(sized(None, {"example.com/gpu": "500m"}))[0] == (
        'resources.limits[example.com/gpu]: Invalid value: "500m": must be an integer'
    )


def test_mounts_without_volumes() -> None:
    """The message says that there are none."""
    assert _of_container({"volumeMounts": [{"name": "v", "mountPath": "/x"}]}) == [
        'volumeMounts[0].name: Not found: "v": the pod has no volumes'
    ]


def test_host_network_ports() -> None:
    """On the host's network a port is its host port."""
    ports = [{"containerPort": 1, "hostPort": 2}]
    assert _of_container({"ports": ports}, hostNetwork=True) == [
        "ports[0].containerPort: Invalid value: 1: must match `hostPort` when `hostNetwork`"
    ]


def test_unmasked_proc_needs_a_user_namespace() -> None:
    """With one it is fine."""
    assert _of_container({"securityContext": {"procMount": "Unmasked"}}, hostUsers=False) == []


def test_init_containers_have_no_probes_or_hooks() -> None:
    """Unless they keep running."""
    init = a_container("i", livenessProbe=_PROBE, lifecycle={"preStop": _PROBE})
    assert [p.split(":")[0] for p in _problems(a_pod(initContainers=[init]))] == [
        "spec.initContainers[0].livenessProbe",
        "spec.initContainers[0].lifecycle",
    ]


@pytest.mark.parametrize(
    ("volume", "problem"),
    [
        ({"name": ""}, "name: Required value"),
        ({"name": "A"}, "name: Invalid value"),
        ({"emptyDir": {}, "hostPath": {"path": "/x"}}, ": Forbidden: may not specify more than 1 volume type, found e"),
        ({"emptyDir": {"medium": "Tape"}}, "emptyDir.medium: Unsupported value"),
        ({"emptyDir": {"sizeLimit": "x"}}, "emptyDir.sizeLimit: Invalid value"),
        ({"emptyDir": {"sizeLimit": "-1"}}, "emptyDir.sizeLimit: Forbidden"),
        ({"hostPath": {"path": ""}}, "hostPath.path: Required value"),
        ({"hostPath": {"path": "/a/../b"}}, "hostPath.path: Invalid value"),
        ({"hostPath": {"path": "/a", "type": "Dir"}}, 'hostPath.type: Unsupported value: "Dir"'),
        ({"configMap": {}}, "configMap.name: Required value"),
        ({"secret": {}}, "secret.secretName: Required value"),
        ({"secret": {"secretName": "s", "defaultMode": 512}}, "secret.defaultMode: Invalid value: 512"),
        ({"secret": {"secretName": "s", "items": [{"key": "/", "path": "p"}]}}, "secret.items[0].key: Invalid"),
        ({"secret": {"secretName": "s", "items": [{"key": "k", "path": ""}]}}, "secret.items[0].path: Required"),
        ({"secret": {"secretName": "s", "items": [{"key": "k", "path": "/p"}]}}, "secret.items[0].path: Invalid"),
        ({"secret": {"secretName": "s", "items": [{"key": "k", "path": "..p"}]}}, "secret.items[0].path: Invalid"),
        ({"downwardAPI": {"items": [{"path": "p"}]}}, "downwardAPI.items[0]: Required value"),
        (
            {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "spec.nodeName"}}]}},
            "downwardAPI.items[0].fieldRef.fieldPath: Unsupported value",
        ),
        (
            {"downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"resource": "limits.cpu"}}]}},
            "downwardAPI.items[0].resourceFieldRef.containerName: Required value",
        ),
        ({"projected": {"sources": [{}]}}, "projected.sources[0]: Forbidden: must specify exactly one"),
        (
            {"projected": {"sources": [{"configMap": {"items": [{"key": "/", "path": "p"}]}}]}},
            "projected.sources[0].configMap.items[0].key: Invalid value",
        ),
        (
            {"projected": {"sources": [{"downwardAPI": {"items": [{"path": "p"}]}}]}},
            "projected.sources[0].downwardAPI.items[0]: Required value",
        ),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}},
            "projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5",
        ),
        ({"image": {}}, "image.reference: Required value"),
        ({"image": {"reference": "a", "pullPolicy": "X"}}, "image.pullPolicy: Unsupported value"),
        ({"nfs": {"server": "s", "path": ""}}, "nfs.path: Required value"),
        ({"persistentVolumeClaim": {"claimName": ""}}, "persistentVolumeClaim.claimName: Required value"),
    ],
)
def test_volumes(volume: dict[str, Any], problem: str) -> None:
    """One thing wrong is one problem, with its place."""
    (found,) = _problems(a_pod(volumes=[{"name": "v", **volume}]))
    assert found.removeprefix("spec.volumes[0]").removeprefix(".").startswith(problem)


def test_volume_names_are_unique() -> None:
    """The second one is the problem."""
    assert _problems(a_pod(volumes=[{"name": "v"}, {"name": "v"}])) == ['spec.volumes[1].name: Duplicate value: "v"']


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
