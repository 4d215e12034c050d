"""Everything that the API server would refuse in a container is named, with its place and what would be right."""

from typing import Any

import pytest

from kubelet_py.core.name_rules import DNS_LABEL_MESSAGE
from tests.unit.kubelet_py.core.pod_builder import NO_QUANTITY, a_container, a_pod, problems_of, sized


def _of_container(container: dict[str, Any] | None = None, **spec: Any) -> list[str]:
    """Problems of one container's fields, its path cut away."""
    found = problems_of(a_pod(a_container(**(container or {})), **spec))
    return [problem.removeprefix("spec.containers[0].") for problem in found]


_PROBE = {"exec": {"command": ["x"]}}


@pytest.mark.parametrize(
    ("container", "problem"),
    [
        ({"name": ""}, "name: Required value"),
        ({"name": "A"}, f'name: Invalid value: "A": {DNS_LABEL_MESSAGE}'),
        ({"image": None}, "image: Required value"),
        ({"image": " a"}, 'image: Invalid value: " a": must not have leading or trailing whitespace'),
        (
            {"imagePullPolicy": "X"},
            'imagePullPolicy: Unsupported value: "X": supported values: "Always", "IfNotPresent", "Never"',
        ),
        (
            {"terminationMessagePolicy": "X"},
            ('terminationMessagePolicy: Unsupported value: "X": supported values: "File", "FallbackToLogsOnError"'),
        ),
        (
            {"restartPolicy": "X"},
            'restartPolicy: Unsupported value: "X": supported values: "Always", "OnFailure", "Never"',
        ),
        (
            {"ports": [{"containerPort": 0}]},
            "ports[0].containerPort: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            {"ports": [{"containerPort": 1, "hostPort": 70000}]},
            "ports[0].hostPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            {"ports": [{"containerPort": 1, "name": "80"}]},
            (
                'ports[0].name: Invalid value: "80": must be at most 15 lower case alphanumeric characters '
                "or single inner '-', with at least one letter"
            ),
        ),
        ({"ports": [{"containerPort": 1, "name": "a"}] * 2}, 'ports[1].name: Duplicate value: "a"'),
        (
            {"ports": [{"containerPort": 1, "protocol": "X"}]},
            'ports[0].protocol: Unsupported value: "X": supported values: "TCP", "UDP", "SCTP"',
        ),
        (
            {"ports": [{"containerPort": 1, "hostIP": "x"}]},
            ('ports[0].hostIP: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'),
        ),
        ({"ports": [{"containerPort": 1, "hostPort": 5}] * 2}, "ports[1].hostPort: Duplicate value: 5"),
        ({"env": [{"name": ""}]}, "env[0].name: Required value"),
        (
            {"env": [{"name": "a=b"}]},
            "env[0].name: Invalid value: \"a=b\": must be printable ASCII characters other than '='",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {}}]},
            (
                'env[0].valueFrom: Invalid value: "": must specify exactly one of: configMapKeyRef, '
                "fieldRef, fileKeyRef, resourceFieldRef, secretKeyRef"
            ),
        ),
        (
            {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
            'env[0].valueFrom: Invalid value: "A": may not be specified when `value` is not empty',
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]},
            (
                'env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.x": supported values: '
                '"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", '
                '"spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", '
                '"status.podIPs"'
            ),
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": ""}}}]},
            "env[0].valueFrom.resourceFieldRef.resource: Required value",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]},
            (
                'env[0].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.gpu": supported '
                'values: "limits.cpu", "limits.memory", "limits.ephemeral-storage", '
                '"limits.hugepages-<size>", "requests.cpu", "requests.memory", "requests.ephemeral-storage", '
                '"requests.hugepages-<size>"'
            ),
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "x"}}}]},
            f'env[0].valueFrom.resourceFieldRef.divisor: Invalid value: "x": {NO_QUANTITY}',
        ),
        (
            {"envFrom": [{}]},
            'envFrom[0]: Invalid value: "": must specify exactly one of: `configMapRef` or `secretRef`',
        ),
        (
            {"envFrom": [{"prefix": "=", "configMapRef": {}}]},
            "envFrom[0].prefix: Invalid value: \"=\": must be printable ASCII characters other than '='",
        ),
        ({"volumeMounts": [{"name": "", "mountPath": "/x"}]}, "volumeMounts[0].name: Required value"),
        (
            {"volumeMounts": [{"name": "no", "mountPath": "/x"}]},
            'volumeMounts[0].name: Not found: "no": the pod has the volumes v',
        ),
        ({"volumeMounts": [{"name": "v", "mountPath": ""}]}, "volumeMounts[0].mountPath: Required value"),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x"}] * 2},
            'volumeMounts[1].mountPath: Invalid value: "/x": must be unique',
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "a", "subPathExpr": "b"}]},
            ('volumeMounts[0].subPathExpr: Invalid value: "b": subPathExpr and subPath are mutually exclusive'),
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "../a"}]},
            "volumeMounts[0].subPath: Invalid value: \"../a\": must not contain '..'",
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x", "mountPropagation": "X"}]},
            (
                'volumeMounts[0].mountPropagation: Unsupported value: "X": supported values: '
                '"Bidirectional", "HostToContainer", "None"'
            ),
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x", "mountPropagation": "Bidirectional"}]},
            "volumeMounts[0].mountPropagation: Forbidden: Bidirectional is only for privileged containers",
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x", "recursiveReadOnly": "X"}]},
            (
                'volumeMounts[0].recursiveReadOnly: Unsupported value: "X": supported values: "Disabled", '
                '"IfPossible", "Enabled"'
            ),
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x", "recursiveReadOnly": "Enabled"}]},
            "volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
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
            ("volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None"),
        ),
        (
            {"volumeDevices": [{"name": "no", "devicePath": "/x"}]},
            'volumeDevices[0].name: Not found: "no": the pod has the volumes v',
        ),
        ({"volumeDevices": [{"name": "v", "devicePath": ""}]}, "volumeDevices[0].devicePath: Required value"),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x"}], "volumeDevices": [{"name": "v", "devicePath": "/x"}]},
            'volumeDevices[0].devicePath: Invalid value: "/x": must not already exist in volumeMounts',
        ),
        (
            {"livenessProbe": {}},
            ("livenessProbe: Required value: must specify a handler type out of exec, httpGet, tcpSocket, grpc"),
        ),
        (
            {"livenessProbe": {**_PROBE, "tcpSocket": {"port": 1}}},
            (
                "livenessProbe: Forbidden: may not specify more than 1 handler type out of exec, httpGet, "
                "tcpSocket, grpc"
            ),
        ),
        (
            {"livenessProbe": {**_PROBE, "successThreshold": 2}},
            "livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            {"livenessProbe": {**_PROBE, "periodSeconds": -1}},
            "livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {"readinessProbe": {**_PROBE, "terminationGracePeriodSeconds": 1}},
            ("readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes"),
        ),
        ({"startupProbe": {"exec": {}}}, "startupProbe.exec.command: Required value"),
        (
            {"startupProbe": {"httpGet": {"port": 0}}},
            "startupProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        ({"startupProbe": {"httpGet": {"port": ""}}}, "startupProbe.httpGet.port: Required value"),
        (
            {"startupProbe": {"httpGet": {"port": "80"}}},
            (
                'startupProbe.httpGet.port: Invalid value: "80": must be at most 15 lower case alphanumeric '
                "characters or single inner '-', with at least one letter"
            ),
        ),
        (
            {"startupProbe": {"httpGet": {"port": 1, "scheme": "FTP"}}},
            'startupProbe.httpGet.scheme: Unsupported value: "FTP": supported values: "HTTP", "HTTPS"',
        ),
        (
            {"startupProbe": {"httpGet": {"port": 1, "httpHeaders": [{"name": ":", "value": ""}]}}},
            "startupProbe.httpGet.httpHeaders[0].name: Invalid value: \":\": must be letters, digits or '-'",
        ),
        (
            {"startupProbe": {"tcpSocket": {"port": 0}}},
            "startupProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            {"startupProbe": {"grpc": {"port": 0}}},
            "startupProbe.grpc.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            {"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}},
            (
                "lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and at most "
                "terminationGracePeriodSeconds (30)"
            ),
        ),
        (
            {"lifecycle": {"preStop": {}}},
            ("lifecycle.preStop: Required value: must specify a handler type out of exec, httpGet, tcpSocket, sleep"),
        ),
        (
            sized({"cpu": "2"}, {"cpu": "1"}),
            'resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
        ),
        (
            {"securityContext": {"runAsGroup": 2**31}},
            "securityContext.runAsGroup: Invalid value: 2147483648: must be between 0 and 2147483647, inclusive",
        ),
        (
            {"lifecycle": {"postStart": {"sleep": {"seconds": -1}}}},
            (
                "lifecycle.postStart.sleep: Invalid value: -1: must be non-negative and at most "
                "terminationGracePeriodSeconds (30)"
            ),
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a"}}}]},
            (
                'env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "metadata.labels[\'a": supported values: '
                '"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", '
                '"spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", '
                '"status.podIPs"'
            ),
        ),
        (sized({"cpu": "-1"}), 'resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0'),
        (sized({"cpu": "x"}), f'resources.requests[cpu]: Invalid value: "x": {NO_QUANTITY}'),
        (sized(None, {"cpu": "x"}), f'resources.limits[cpu]: Invalid value: "x": {NO_QUANTITY}'),
        (
            sized({"gpu": "1"}),
            (
                'resources.requests[gpu]: Invalid value: "gpu": must be cpu, memory, ephemeral-storage, '
                "hugepages-<size> or <domain>/<name>"
            ),
        ),
        (
            sized(None, {"hugepages-x": "1"}),
            (
                'resources.limits[hugepages-x]: Invalid value: "hugepages-x": must be hugepages-<size>, such '
                "as hugepages-2Mi"
            ),
        ),
        (
            sized({"example.com/gpu": "1"}),
            ("resources.limits: Required value: Limit must be set for non overcommitable resources (example.com/gpu)"),
        ),
        (
            sized({"example.com/gpu": "1"}, {"example.com/gpu": "2"}),
            'resources.requests: Invalid value: "1": must be equal to example.com/gpu limit of 2',
        ),
        (
            sized(None, {"-/a": "1"}),
            (
                'resources.limits[-/a]: Invalid value: "-/a": the prefix part must be a DNS subdomain such '
                "as 'example.com'"
            ),
        ),
        (
            {"securityContext": {"runAsUser": -1}},
            "securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            {"securityContext": {"procMount": "X"}},
            'securityContext.procMount: Unsupported value: "X": supported values: "Default", "Unmasked"',
        ),
        (
            {"securityContext": {"procMount": "Unmasked"}},
            ('securityContext.procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`'),
        ),
        (
            {"securityContext": {"seccompProfile": {"type": "X"}}},
            (
                'securityContext.seccompProfile.type: Unsupported value: "X": supported values: "Localhost", '
                '"RuntimeDefault", "Unconfined"'
            ),
        ),
        (
            {"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}},
            (
                'securityContext: Invalid value: "allowPrivilegeEscalation: false": cannot set '
                "`allowPrivilegeEscalation` to false and `privileged` to true"
            ),
        ),
    ],
)
def test_containers(container: dict[str, Any], problem: str) -> None:
    """One thing wrong is one problem, with its place."""
    fields = {**a_container(), **container}
    pod = a_pod(fields, volumes=[{"name": "v", "emptyDir": {}}])
    found = [problem.removeprefix("spec.containers[0].") for problem in problems_of(pod)]
    assert len({text.replace("requests[", "limits[") for text in found}) == 1
    assert found[0] == problem


_RIGHT: list[dict[str, Any]] = [
    *({"imagePullPolicy": policy} for policy in ("Always", "IfNotPresent", "Never")),
    *({"terminationMessagePolicy": policy} for policy in ("File", "FallbackToLogsOnError")),
    *({"restartPolicy": policy} for policy in ("Always", "OnFailure", "Never")),
    *({"ports": [{"containerPort": port, "hostPort": port}]} for port in (1, 65535)),
    {"ports": [{"containerPort": 1, "hostPort": 5, "protocol": protocol} for protocol in ("TCP", "UDP", "SCTP")]},
    {"ports": [{"containerPort": 1, "hostPort": 5, "hostIP": ip} for ip in ("192.0.2.1", "192.0.2.2")]},
    *(
        {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}]}
        for path in (
            "metadata.annotations['a']",
            "metadata.labels['a']",
            "status.hostIPs",
            "spec.nodeName",
            "spec.host",
        )
    ),
    *(
        {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": resource}}}]}
        for resource in ("requests.cpu", "limits.memory", "requests.ephemeral-storage", "requests.hugepages-2Mi")
    ),
    *(
        {"volumeMounts": [{"name": "v", "mountPath": "/x", "mountPropagation": propagation}]}
        for propagation in ("None", "HostToContainer")
    ),
    *(
        {"volumeMounts": [{"name": "v", "mountPath": "/x", "readOnly": True, "recursiveReadOnly": mode, **more}]}
        for mode in ("Disabled", "IfPossible", "Enabled")
        for more in ({}, {"mountPropagation": "None"})
    ),
    *({"livenessProbe": {**_PROBE, name: 0}} for name in ("initialDelaySeconds", "periodSeconds", "timeoutSeconds")),
    {"livenessProbe": {**_PROBE, "successThreshold": 1, "terminationGracePeriodSeconds": 1}},
    *({"startupProbe": {"httpGet": {"port": 1, "scheme": scheme}}} for scheme in ("HTTP", "HTTPS")),
    *({"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}} for seconds in (0, 30)),
    *({"lifecycle": {"postStart": {kind: {"port": 1}}}} for kind in ("httpGet", "tcpSocket")),
    sized({"cpu": "0", "memory": "1"}, {"cpu": "0", "memory": "1"}),
    sized({"ephemeral-storage": "1"}),
    {"securityContext": {"procMount": "Default", "runAsUser": 0, "runAsGroup": 2**31 - 1}},
]


@pytest.mark.parametrize("container", _RIGHT)
def test_the_last_of_what_is_right(container: dict[str, Any]) -> None:
    """The words and the numbers at the ends."""
    assert problems_of(a_pod({**a_container(), **container}, volumes=[{"name": "v", "emptyDir": {}}])) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {}),
        ({"protocol": "TCP"}, {}),
        ({"hostIP": "192.0.2.1"}, {"hostIP": "192.0.2.1"}),
    ],
)
def test_a_host_port_is_given_once(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Between containers; the API server looks at init containers, sidecars too, each by itself."""
    port = {"containerPort": 1, "hostPort": 5}
    first, second = a_container("a", ports=[{**port, **one}]), a_container("b", ports=[{**port, **other}])
    assert problems_of(a_pod(first, second)) == ["spec.containers[1].ports[0].hostPort: Duplicate value: 5"]
    for init in (second, {**second, "restartPolicy": "Always"}):
        assert problems_of(a_pod(first, initContainers=[init])) == []
    twice = a_container("b", ports=[{**port, **one}, {**port, **other}])
    assert problems_of(a_pod(first, initContainers=[twice])) == [
        "spec.initContainers[0].ports[1].hostPort: Duplicate value: 5"
    ]


def test_all_that_is_wrong_is_told() -> None:
    """What is no quantity hides nothing after it, and neither does the port of an init container."""
    resources = {"limits": {"cpu": "x", "memory": "-1", "example.com/gpu": "500m"}}
    assert problems_of(a_pod(a_container(resources=resources)))[:3] == [
        f'spec.containers[0].resources.limits[cpu]: Invalid value: "x": {NO_QUANTITY}',
        'spec.containers[0].resources.limits[memory]: Invalid value: "-1": must be greater than or equal to 0',
        'spec.containers[0].resources.limits[example.com/gpu]: Invalid value: "500m": must be an integer',
    ]
    requests = {"requests": {"cpu": "x"}, "limits": {"memory": "1"}}
    assert problems_of(a_pod(a_container(resources=requests))) == [
        f'spec.containers[0].resources.requests[cpu]: Invalid value: "x": {NO_QUANTITY}'
    ]
    ports = [{"containerPort": 1, "hostPort": 5}, {"containerPort": 0}]
    assert problems_of(a_pod(initContainers=[a_container("i", ports=ports)])) == [
        "spec.initContainers[0].ports[1].containerPort: Invalid value: 0: must be between 1 and 65535, inclusive"
    ]


def test_mounts_name_all_volumes_that_there_are() -> None:
    mounts = [{"name": "no", "mountPath": "/x"}]
    pod = a_pod(a_container(volumeMounts=mounts), volumes=[{"name": "w"}, {"name": "v"}])
    assert problems_of(pod) == [
        'spec.containers[0].volumeMounts[0].name: Not found: "no": the pod has the volumes v, w'
    ]


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
    assert problems_of(a_pod(initContainers=[init])) == [
        f"spec.initContainers[0].{name}: Forbidden: may not be set for init containers without restartPolicy=Always"
        for name in ("livenessProbe", "lifecycle")
    ]
