"""Pods get the API server's defaults, and what they say themselves stays."""

from kubelet_py.api import codec, core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.core.pod_defaults import with_pod_defaults
from tests.unit.kubelet_py.core.pod_builder import a_container, a_pod, sized


def test_defaults_of_a_pod() -> None:
    """What the API server fills in."""
    spec = podlib.spec_of(with_pod_defaults(a_pod(serviceAccount="sa")))
    assert (spec.restartPolicy, spec.dnsPolicy, spec.terminationGracePeriodSeconds) == ("Always", "ClusterFirst", 30)
    assert (spec.schedulerName, spec.enableServiceLinks, spec.serviceAccountName) == ("default-scheduler", True, "sa")
    assert spec.securityContext is not None
    main = spec.containers[0]
    assert (main.imagePullPolicy, main.terminationMessagePath, main.terminationMessagePolicy) == (
        *("IfNotPresent", "/dev/termination-log", "File"),
    )


def test_defaults_keep_what_is_said() -> None:
    """And leave the given object alone."""
    pod = a_pod(restartPolicy="Never", enableServiceLinks=False, terminationGracePeriodSeconds=-1, securityContext={})
    before = codec.encode(pod)
    spec = podlib.spec_of(with_pod_defaults(pod))
    assert (spec.restartPolicy, spec.enableServiceLinks, spec.terminationGracePeriodSeconds) == ("Never", False, 1)
    assert codec.encode(pod) == before
    assert with_pod_defaults(core_v1.Pod()).spec is None


def test_defaults_of_containers() -> None:
    """Probes, handlers, ports, field references."""
    container = a_container(
        image="app",
        livenessProbe={"httpGet": {"port": 80}},
        readinessProbe={"grpc": {"port": 1}, "periodSeconds": 3},
        startupProbe={"grpc": {"port": 1, "service": "s"}},
        lifecycle={"postStart": {"httpGet": {"port": 1, "path": "/x"}}},
        ports=[{"containerPort": 80}, {"containerPort": 81, "hostPort": 9, "protocol": "UDP"}],
        env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "B", "value": "x"}],
    )
    main = podlib.containers_of(with_pod_defaults(a_pod(container, hostNetwork=True)))[0]
    assert main.imagePullPolicy == "Always"
    live, ready, start, cycle = main.livenessProbe, main.readinessProbe, main.startupProbe, main.lifecycle
    assert live is not None
    assert live.httpGet is not None
    assert (live.timeoutSeconds, live.periodSeconds, live.successThreshold, live.failureThreshold) == (1, 10, 1, 3)
    assert (live.httpGet.path, live.httpGet.scheme) == ("/", "HTTP")
    assert ready is not None
    assert ready.grpc is not None
    assert (ready.periodSeconds, ready.grpc.service) == (3, "")
    assert start is not None
    assert start.grpc is not None
    assert start.grpc.service == "s"
    assert cycle is not None
    assert cycle.postStart is not None
    assert cycle.postStart.httpGet is not None
    assert cycle.postStart.httpGet.path == "/x"
    assert [(p.hostPort, p.protocol) for p in main.ports or ()] == [(80, "TCP"), (9, "UDP")]
    assert main.env is not None
    assert main.env[0].valueFrom is not None
    assert main.env[0].valueFrom.fieldRef is not None
    assert main.env[0].valueFrom.fieldRef.apiVersion == "v1"


def test_defaults_of_volumes() -> None:
    """Modes, types, policies, and emptyDir for what has no source."""
    volumes = [
        {"name": "a"},
        {"name": "b", "secret": {"secretName": "s"}},
        {"name": "c", "configMap": {"name": "c", "defaultMode": 256}},
        {"name": "d", "downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {
            "name": "e",
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"path": "t"}},
                    {"downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"resource": "limits.cpu"}}]}},
                    {"serviceAccountToken": {"path": "t", "expirationSeconds": 700}},
                ]
            },
        },
        {"name": "f", "hostPath": {"path": "/x"}},
        {"name": "g", "image": {"reference": "app:1"}},
        {"name": "h", "image": {"reference": "app:1", "pullPolicy": "Never"}},
        {"name": "i", "projected": {}},
        {"name": "j", "hostPath": {"path": "/x", "type": "File"}},
    ]
    filled = codec.to_builtins(podlib.spec_of(with_pod_defaults(a_pod(volumes=volumes))).volumes)
    assert filled[0]["emptyDir"] == {}
    assert [filled[i][k]["defaultMode"] for i, k in ((1, "secret"), (2, "configMap"), (3, "downwardAPI"))] == [
        *(0o644, 256, 0o644),
    ]
    sources = filled[4]["projected"]["sources"]
    assert sources[0]["serviceAccountToken"]["expirationSeconds"] == 3600
    assert sources[2]["serviceAccountToken"]["expirationSeconds"] == 700
    assert filled[5]["hostPath"]["type"] == ""
    assert (filled[6]["image"]["pullPolicy"], filled[7]["image"]["pullPolicy"]) == ("IfNotPresent", "Never")


def test_defaults_of_resources() -> None:
    """Requests follow limits, amounts are canonical, pod-level requests follow containers and limits."""
    pod = with_pod_defaults(
        a_pod(
            a_container(**sized({"cpu": 0.5}, {"cpu": 1, "memory": "1024Mi"})),
            a_container("b", resources={"requests": {"cpu": "1u"}}),
            resources={"limits": {"cpu": "4", "memory": "4Gi"}},
            overhead={"cpu": 0.25},
        )
    )
    spec = podlib.spec_of(pod)
    assert spec.containers[0].resources is not None
    assert spec.containers[0].resources.requests == {"cpu": "500m", "memory": "1Gi"}
    assert spec.resources is not None
    assert spec.resources.requests == {"cpu": "501m", "memory": "1Gi"}
    assert spec.overhead == {"cpu": "250m"}
    only_limits = podlib.spec_of(with_pod_defaults(a_pod(resources={"limits": {"cpu": "2"}}))).resources
    assert only_limits is not None
    assert only_limits.requests == {"cpu": "2"}
    only_requests = podlib.spec_of(with_pod_defaults(a_pod(resources={"requests": {"cpu": "2"}}))).resources
    assert only_requests is not None
    assert only_requests.limits is None
    broken = podlib.spec_of(with_pod_defaults(a_pod(resources={"limits": {"cpu": "x"}}))).resources
    assert broken is not None
    assert broken.requests is None
