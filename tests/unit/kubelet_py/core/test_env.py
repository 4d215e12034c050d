"""A container's environment is put together as by the Go kubelet."""

import base64
from typing import Any

import pytest

from kubelet_py.api import codec, core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.core.env import EnvSources, compute_env, read_env_file
from kubelet_py.errors import SyncError
from tests.unit.kubelet_py.core.pod_builder import UID, a_container, a_pod, sized


def _map(**data: str) -> core_v1.ConfigMap:
    return core_v1.ConfigMap(data=data)


def _secret(**data: str) -> core_v1.Secret:
    return core_v1.Secret(data={k: base64.b64encode(v.encode()).decode() for k, v in data.items()})


def _service(name: str, namespace: str = "shop", **spec: Any) -> core_v1.Service:
    body = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}], **spec},
    }
    return codec.from_builtins(core_v1.Service, body)


def _env(sources: EnvSources | None = None, pod: core_v1.Pod | None = None, **fields: Any) -> dict[str, str]:
    pod = pod or a_pod(a_container(**fields))
    return compute_env(pod, podlib.containers_of(pod)[0], sources or EnvSources())


def _refusal(sources: EnvSources | None = None, pod: core_v1.Pod | None = None, **fields: Any) -> str:
    with pytest.raises(SyncError) as caught:
        _env(sources, pod, **fields)
    assert caught.value.reason == "CreateContainerConfigError"
    assert caught.value.container_name == "main"
    return caught.value.message


def test_values_see_what_came_before() -> None:
    """A value expands over earlier variables; later entries of one name win; no value is an empty one."""
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)$(LATER)$$(A)"},
        {"name": "LATER", "value": "x"},
        {"name": "A", "value": "$(A)2"},
        {"name": "EMPTY"},
    ]
    assert _env(env=env) == {"A": "12", "B": "1$(LATER)$(A)", "LATER": "x", "EMPTY": ""}


def test_whole_objects_come_first() -> None:
    """With their prefix; env entries of the same name win."""
    sources = EnvSources(config_maps={"cm": _map(A="cm", K="v")}, secrets={"s": _secret(P="pass")})
    env_from = [
        {"configMapRef": {"name": "cm"}},
        {"prefix": "S_", "secretRef": {"name": "s"}},
        {"configMapRef": {"name": "gone", "optional": True}},
        {"secretRef": {"name": "gone", "optional": True}},
        {},
    ]
    env = [{"name": "A", "value": "own-$(S_P)"}]
    assert _env(sources, envFrom=env_from, env=env) == {"A": "own-pass", "K": "v", "S_P": "pass"}
    assert _env(sources, envFrom=[{}, *env_from], env=env) == {"A": "own-pass", "K": "v", "S_P": "pass"}


def test_keys_of_objects() -> None:
    """One key each; optional ones that lead nowhere set nothing."""
    sources = EnvSources(config_maps={"cm": _map(k="v"), "empty": core_v1.ConfigMap()}, secrets={"s": _secret(k="t")})
    env = [
        {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
        {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "X1", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no", "optional": True}}},
        {"name": "X2", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k", "optional": True}}},
        {"name": "X3", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": True}}},
        {"name": "X4", "valueFrom": {"configMapKeyRef": {"name": "empty", "key": "k", "optional": True}}},
        {"name": "NOTHING", "valueFrom": {}},
    ]
    assert _env(sources, env=env) == {"C": "v", "S": "t", "NOTHING": ""}


def test_secret_bytes_survive() -> None:
    """What is no UTF-8 comes out as the same bytes."""
    raw = bytes(range(256))
    secret = core_v1.Secret(data={"k": base64.b64encode(raw).decode()})
    env = [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    value = _env(EnvSources(secrets={"s": secret}), env=env)["S"]
    assert value.encode("utf-8", "surrogateescape") == raw


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"envFrom": [{"configMapRef": {"name": "x"}}]}, 'configmap "x" not found'),
        ({"envFrom": [{"secretRef": {"name": "x"}}]}, 'secret "x" not found'),
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x", "key": "k"}}}]}, 'secret "x" not found'),
        (
            {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no"}}}]},
            "couldn't find key no in ConfigMap shop/cm",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "no"}}}]},
            "couldn't find key no in Secret shop/s",
        ),
    ],
)
def test_missing_references(fields: dict[str, Any], message: str) -> None:
    """Are named in the Go kubelet's words."""
    sources = EnvSources(config_maps={"cm": _map()}, secrets={"s": _secret()})
    assert _refusal(sources, **fields) == message


def test_without_an_api_server() -> None:
    """References cannot be followed."""
    sources = EnvSources(has_api=False)
    assert _refusal(sources, envFrom=[{"configMapRef": {"name": "x", "optional": True}}]) == (
        "couldn't get configMap shop/x, no kubeClient defined"
    )
    env = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x", "key": "k"}}}]
    assert _refusal(sources, env=env) == "couldn't get secret shop/x, no kubeClient defined"
    assert _refusal(sources, envFrom=[{"secretRef": {"name": "x"}}]) == (
        "couldn't get secret shop/x, no kubeClient defined"
    )
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "k"}}}]
    assert _refusal(sources, env=env) == "couldn't get configMap shop/x, no kubeClient defined"


def test_services_must_have_been_read() -> None:
    """For pods of the API server; static pods do not wait."""
    unknown = EnvSources(services_known=False)
    assert _refusal(unknown) == "services have not yet been read at least once, cannot construct envvars"
    static = a_pod(metadata={"annotations": {"kubernetes.io/config.source": "file"}})
    assert _env(unknown, static) == {}


def test_fields_of_the_pod() -> None:
    """Every one that environment variables may name."""
    pod = a_pod(
        a_container(
            env=[
                {"name": f"V{i}", "valueFrom": {"fieldRef": {"fieldPath": path}}}
                for i, path in enumerate(
                    (
                        "metadata.name",
                        "metadata.namespace",
                        "metadata.uid",
                        "metadata.labels['a/b']",
                        "metadata.annotations['C']",
                        "metadata.labels['none']",
                        "spec.nodeName",
                        "spec.host",
                        "spec.serviceAccountName",
                        "status.hostIP",
                        "status.hostIPs",
                        "status.podIP",
                        "status.podIPs",
                    )
                )
            ]
        ),
        metadata={"labels": {"a/b": "l"}, "annotations": {"C": "an"}},
        nodeName="n1",
        serviceAccountName="sa",
    )
    sources = EnvSources(pod_ips=("10.0.0.2", "fd00::2"), host_ips=("192.0.2.1", "fd01::1"))
    assert list(_env(sources, pod).values()) == [
        *("web", "shop", UID, "l", "an", "", "n1", "n1", "sa"),
        *("192.0.2.1", "192.0.2.1,fd01::1", "10.0.0.2", "10.0.0.2,fd00::2"),
    ]


def test_fields_that_are_not_there_yet() -> None:
    """No pod address is an empty value; no node address an error; unset names are empty."""
    env = [
        {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
    ]
    assert _env(env=env) == {"A": "", "B": "", "C": ""}
    assert "host IP unknown" in _refusal(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}])


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"apiVersion": "v2", "fieldPath": "metadata.name"}, "unsupported pod version: v2"),
        ({"fieldPath": "spec.hostname"}, "field label not supported: spec.hostname"),
        ({"fieldPath": "spec.x['a']"}, "field label does not support subscript: spec.x['a']"),
        ({"fieldPath": "['a']"}, "field label not supported: ['a']"),
        ({"fieldPath": "metadata.labels['-']"}, "invalid key subscript in metadata.labels['-']: "),
    ],
)
def test_fields_that_do_not_exist(reference: dict[str, str], message: str) -> None:
    """Are refused."""
    assert _refusal(env=[{"name": "A", "valueFrom": {"fieldRef": reference}}]).startswith(message)


def _resource(resource: str, pod: core_v1.Pod | None = None, allocatable: Any = None, **more: Any) -> str:
    reference = {"resource": resource, **more}
    pod = pod or a_pod(a_container(**sized({"cpu": "250m", "memory": "1Mi"}, {"cpu": "1500m", "memory": "3Mi"})))
    podlib.containers_of(pod)[0].env = [
        codec.from_builtins(core_v1.EnvVar, {"name": "R", "valueFrom": {"resourceFieldRef": reference}})
    ]
    return _env(EnvSources(node_allocatable=allocatable or {}), pod)["R"]


def test_resources_are_divided_and_rounded_up() -> None:
    """By one core or byte, or by the divisor."""
    assert _resource("requests.cpu") == "1"
    assert _resource("requests.cpu", divisor="1m") == "250"
    assert _resource("limits.cpu") == "2"
    assert _resource("limits.memory") == str(3 * 2**20)
    assert _resource("limits.memory", divisor="2Mi") == "2"
    assert _resource("requests.memory", divisor="0") == str(2**20)
    assert _resource("requests.ephemeral-storage") == "0"
    assert _resource("limits.hugepages-2Mi") == "0"


def test_missing_limits_are_the_nodes() -> None:
    """Or the pod's, where it has one."""
    node = {"cpu": "4", "memory": "8Gi"}
    assert _resource("limits.cpu", a_pod(), node) == "4"
    assert _resource("limits.memory", a_pod(), node) == str(8 * 2**30)
    assert _resource("limits.ephemeral-storage", a_pod(), node) == "0"
    assert _resource("limits.cpu", a_pod(a_container(), resources={"limits": {"cpu": "3"}}), node) == "3"


def test_resources_of_another_container() -> None:
    """By its name, init containers included."""
    pod = a_pod(a_container(), initContainers=[a_container("setup", **sized({"cpu": "7"}))])
    assert _resource("requests.cpu", pod, containerName="setup") == "7"
    env = [{"name": "R", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "containerName": "no"}}}]
    assert _refusal(env=env) == "container no not found"
    env = [{"name": "R", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]
    assert _refusal(env=env) == "unsupported container resource : limits.gpu"


def test_service_variables() -> None:
    """Of the pod's namespace, and of kubernetes in default; a name that is set stays."""
    services = [
        _service("headless", clusterIP="None"),
        _service("unset", clusterIP=""),
        _service("kubernetes", "default", clusterIP="10.96.0.1", ports=[{"port": 443, "name": "https"}]),
        _service("kubernetes", "default", clusterIP="10.96.0.2"),
        _service("my-db", ports=[{"port": 5432, "protocol": "UDP", "name": "pg-x"}, {"port": 1, "name": "b"}]),
        _service("v6", clusterIP="fd00::9"),
        _service("other", "elsewhere"),
        _service("outside", type="ExternalName"),
        core_v1.Service(),
    ]
    env = _env(EnvSources(services=services), env=[{"name": "MY_DB_PORT", "value": "own $(MY_DB_SERVICE_HOST)"}])
    assert env["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert env["KUBERNETES_SERVICE_PORT"] == env["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert env["KUBERNETES_PORT"] == env["KUBERNETES_PORT_443_TCP"] == "tcp://10.96.0.1:443"
    assert env["KUBERNETES_PORT_443_TCP_PROTO"] == "tcp"
    assert env["KUBERNETES_PORT_443_TCP_PORT"] == "443"
    assert env["KUBERNETES_PORT_443_TCP_ADDR"] == "10.96.0.1"
    assert env["MY_DB_PORT"] == "own 10.96.0.7"
    assert env["MY_DB_SERVICE_PORT_PG_X"] == "5432"
    assert env["MY_DB_PORT_5432_UDP"] == "udp://10.96.0.7:5432"
    assert env["MY_DB_SERVICE_PORT_B"] == "1"
    assert env["V6_PORT"] == "tcp://[fd00::9]:80"
    assert not [name for name in env if name.startswith(("OTHER", "HEADLESS", "OUTSIDE", "UNSET"))]


def test_service_links_off() -> None:
    """Only the API server's own address is left."""
    services = [_service("kubernetes", "default"), _service("db")]
    env = _env(EnvSources(services=services), a_pod(enableServiceLinks=False))
    assert all(name.startswith("KUBERNETES_") for name in env)
    assert env


FILE = "# comment\n\n  A='1'\nB='two\nlines' # why\nC= 'ignored'\nD=''\n"


@pytest.mark.parametrize(("key", "value"), [("A", "1"), ("B", "two\nlines"), ("C", ""), ("D", ""), ("E", "")])
def test_env_files(key: str, value: str) -> None:
    """Values in single quotes, over several lines, with comments."""
    assert read_env_file(FILE, key) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A='b=c'", "b=c"),
        ("A='1\n2\n3'\nB='x'", "1\n2\n3"),
        ("\t A='1'\t # 'quoted' comment", "1"),
        ("A=\t'ignored'", ""),
        ("A='#'", "#"),
        ("A='1'\r\nB='2'\r\n", "1"),
        ("# page\x0cbreak\nA='x\u2028y\rz'\n", "x\u2028y\rz"),
    ],
)
def test_the_first_quote_and_the_first_sign_count(text: str, value: str) -> None:
    assert read_env_file(text, "A") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A", "line 1: missing '='"),
        ("\n='1'", "line 2: empty variable name"),
        ("A ='1'", "line 1: whitespace before '=' is not allowed"),
        ("A\t='1'", "line 1: whitespace before '=' is not allowed"),
        ("XA='1' 'x", "line 1: unexpected content after closing quote"),
        ("\u00a0='1'\n=", "line 2: empty variable name"),
        ("A=1", "line 1: value must be enclosed in single quotes"),
        ("A='1' x", "line 1: unexpected content after closing quote"),
        ("A='1\n2' x", "line 2: unexpected content after closing quote"),
        ("A='1\n2", "starting at line 1: unclosed single quote"),
    ],
)
def test_bad_env_files(text: str, message: str) -> None:
    """The line is named."""
    with pytest.raises(ValueError, match=message):
        read_env_file(text, "Z")


def test_file_references() -> None:
    """One key of a file on a volume."""

    def fields(key: str, **more: Any) -> dict[str, Any]:
        return {
            "env": [{"name": "F", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "e", "key": key, **more}}}]
        }

    sources = EnvSources(env_files={("v", "e"): FILE})
    assert _env(sources, **fields("A")) == {"F": "1"}
    assert _env(sources, **fields("no", optional=True)) == {}
    assert _env(EnvSources(), **fields("A", optional=True)) == {}
    assert _refusal(sources, **fields("no")) == 'environment variable key "no" not found in file "e"'
    assert _refusal(EnvSources(), **fields("A")) == "couldn't parse env file"
    assert _refusal(EnvSources(env_files={("v", "e"): "A"}), **fields("A")) == "couldn't parse env file"
