"""What containers find in their environment, under which name they run and whom they ask for names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cluster.objects import SLEEP, container, pod
from tests.integration.cluster.stage import NODE, Stage
from tests.lab.cluster import CLUSTER_DNS

pytestmark = pytest.mark.lab


def environment_of(stage: Stage, name: str) -> dict[str, str]:
    """The environment that the main container printed."""
    lines = stage.wait_logs(name, "@end").partition("@end")[0].splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def printing(*env: dict[str, Any], script: str = "env", **fields: Any) -> dict[str, Any]:
    return container(f"{script}; echo @end; {SLEEP}", env=list(env), **fields)


def from_file(name: str, path: str, key: str, optional: bool = False) -> dict[str, Any]:
    reference = {"volumeName": "files", "path": path, "key": key, "optional": optional}
    return {"name": name, "valueFrom": {"fileKeyRef": reference}}


def with_files(name: str, script: str, main: dict[str, Any]) -> dict[str, Any]:
    """A pod whose init container writes into a volume that the main one takes its variables from."""
    writer = container(script, "writer", volumeMounts=[{"name": "files", "mountPath": "/files"}])
    return pod(name, main, initContainers=[writer], volumes=[{"name": "files", "emptyDir": {}}])


def test_variables_from_files(stage: Stage) -> None:
    """Of several lines, expanded nowhere; an optional one that is not there sets nothing."""
    name = stage.unique("files")
    script = r"""mkdir /files/d; printf "# comment\nONE='1'\nTWO='a \$(ONE)\nb' # more\n" > /files/d/env"""
    main = printing(
        from_file("FIRST", "d/env", "ONE"),
        from_file("SECOND", "d/env", "TWO"),
        from_file("NONE", "d/env", "THREE", optional=True),
        script='env; echo "second:$SECOND"',
    )
    stage.create_pod(with_files(name, script, main))
    found = environment_of(stage, name)
    assert found["FIRST"] == "1"
    assert "NONE" not in found
    assert "second:a $(ONE)\nb\n" in stage.logs(name)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo ONE=1 > /files/env", "couldn't parse env file"),
        ("ln -s /etc/shadow /files/env", "couldn't parse env file"),
        ("echo \"TWO='2'\" > /files/env", 'environment variable key "ONE" not found in file'),
    ],
)
def test_files_that_give_no_variable(stage: Stage, script: str, message: str) -> None:
    """Neither a broken file, nor one that a link leads to outside of the volume, nor one without the key."""
    name = stage.unique("bad-file")
    stage.create_pod(with_files(name, script, printing(from_file("ONE", "env", "ONE"))))
    waiting = stage.wait_waiting(name, "CreateContainerConfigError")
    assert message in waiting["message"]


def test_resources_with_divisors_and_what_stands_in_for_limits(stage: Stage) -> None:
    """Rounded up; without a limit the node's allocatable counts."""
    name = stage.unique("resources")

    def resource(variable: str, named: str, divisor: str) -> dict[str, Any]:
        reference = {"resource": named, "divisor": divisor}
        return {"name": variable, "valueFrom": {"resourceFieldRef": reference}}

    main = printing(
        resource("CPU", "limits.cpu", "1m"),
        resource("CORES", "limits.cpu", "1"),
        resource("MEMORY", "requests.memory", "1Mi"),
        resource("GIB", "limits.memory", "1Gi"),
        resources={"limits": {"cpu": "250m"}, "requests": {"memory": "64Mi"}},
    )
    stage.create_pod(pod(name, main))
    found = environment_of(stage, name)
    assert (found["CPU"], found["CORES"], found["MEMORY"]) == ("250", "1", "64")
    allocatable = stage.node()["status"]["allocatable"]["memory"]
    kibibytes = int(allocatable.removesuffix("Ki"))
    assert int(found["GIB"]) == -(-kibibytes // 2**20)


@pytest.mark.parametrize("links", [True, False])
def test_services_of_the_namespace(stage: Stage, links: bool) -> None:
    """As variables where the pod wants them; the API server's always."""
    name = stage.unique("links")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{name}-shop"},
        "spec": {"selector": {"app": "none"}, "ports": [{"name": "web", "port": 80}]},
    }
    created = stage.cluster.create("/api/v1/namespaces/default/services", service)
    # The list of services comes by a watch, which a pod does not wait for.
    stage.create_pod(pod(f"{name}-early", enableServiceLinks=False))
    stage.wait_ready(f"{name}-early")
    stage.create_pod(pod(name, printing(), enableServiceLinks=links))
    found = environment_of(stage, name)
    prefix = f"{name}-shop".replace("-", "_").upper()
    assert found["KUBERNETES_SERVICE_HOST"]
    assert found.get(f"{prefix}_SERVICE_HOST") == (created["spec"]["clusterIP"] if links else None)
    assert found.get(f"{prefix}_SERVICE_PORT_WEB") == ("80" if links else None)


def test_a_missing_key_is_named(stage: Stage) -> None:
    """A ConfigMap that is there without the key, and the key that comes."""
    name = stage.unique("key")
    path = "/api/v1/namespaces/default/configmaps"
    settings: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"a.b-c": "dots"},
    }
    stage.cluster.create(path, settings)
    reference = {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": name, "key": "colour"}}}
    sources = [{"prefix": "p.", "configMapRef": {"name": name}}]
    # No shell: it would drop names that it could not use itself.
    main = {**container(env=[reference], envFrom=sources), "command": ["env"]}
    stage.create_pod(pod(name, main, restart="Never"))
    waiting = stage.wait_waiting(name, "CreateContainerConfigError")
    assert waiting["message"] == f"couldn't find key colour in ConfigMap default/{name}"
    settings["data"]["colour"] = "blue"
    code, answer = stage.cluster.request("PUT", f"{path}/{name}", settings)
    assert code == 200, answer
    stage.wait_phase(name, "Succeeded", within_seconds=100)
    assert {"COLOUR=blue", "p.a.b-c=dots"} <= set(stage.logs(name).splitlines())


NAMES = "hostname; cat /etc/hosts"


def test_a_hostname_that_overrides_all(stage: Stage) -> None:
    """hostnameOverride wins over hostname and subdomain, in the kernel and in /etc/hosts."""
    name = stage.unique("override")
    fields: dict[str, Any] = {"hostname": "short", "subdomain": "sub", "hostnameOverride": "a.whole.name"}
    stage.create_pod(pod(name, printing(script=NAMES), **fields))
    lines = stage.wait_logs(name, "@end").splitlines()
    assert lines[0] == "a.whole.name"
    assert any(line.split()[1:] == ["a.whole.name"] for line in lines)


def test_the_full_name_as_the_hostname(stage: Stage) -> None:
    """setHostnameAsFQDN; a name that is too long for the kernel makes no sandbox and is an event."""
    name = stage.unique("fqdn")
    fields: dict[str, Any] = {"subdomain": "sub", "setHostnameAsFQDN": True}
    stage.create_pod(pod(name, printing(script=NAMES), hostname="short", **fields))
    lines = stage.wait_logs(name, "@end").splitlines()
    assert lines[0] == "short.sub.default.svc.cluster.local"
    long = f"{name}-long"
    stage.create_pod(pod(long, hostname="x" * 40, **fields))
    event = stage.wait_event(long, "FailedCreatePodSandBox")
    assert "is too long (64 characters is the max, 70 characters requested)" in event["message"]


def test_more_nameservers_than_resolvers_use(stage: Stage) -> None:
    """The first three, and an event that names them."""
    name = stage.unique("nameservers")
    dns = {"nameservers": ["10.9.9.1", "10.9.9.2", "10.9.9.3"]}
    stage.create_pod(pod(name, printing(script="cat /etc/resolv.conf"), dnsConfig=dns))
    text = stage.wait_logs(name, "@end")
    kept = [CLUSTER_DNS, "10.9.9.1", "10.9.9.2"]
    assert [line.split()[1] for line in text.splitlines() if line.startswith("nameserver")] == kept
    event = stage.wait_event(name, "DNSConfigForming", "Nameserver limits were exceeded")
    assert event["message"].endswith(f"the applied nameserver line is: {' '.join(kept)}")


@pytest.fixture
def long_search_line(stage: Stage) -> Iterator[Stage]:
    """A node whose resolv.conf has more search domains than pods can get."""
    file = stage.inside("/etc/resolv.conf")
    before = file.read_text()
    file.write_text("nameserver 10.9.9.9\nsearch " + " ".join(f"d{number}.example" for number in range(31)) + "\n")
    stage.restart_kubelet()
    yield stage
    file.write_text(before)
    stage.restart_kubelet()


def test_a_search_line_that_is_too_long_is_an_event_of_the_node_and_of_the_pod(long_search_line: Stage) -> None:
    """Three of the 32 domains are the cluster's."""
    stage, name = long_search_line, long_search_line.unique("searches")
    stage.wait_event(NODE, "CheckLimitsForResolvConf", "search line consisting of more than 29 domains!")
    stage.create_pod(pod(name, printing(script="cat /etc/resolv.conf")))
    text = stage.wait_logs(name, "@end")
    (line,) = [line for line in text.splitlines() if line.startswith("search")]
    assert len(line.split()) == 33
    stage.wait_event(name, "DNSConfigForming", "Search Line limits were exceeded")


def test_text_of_any_kind_arrives_as_it_is_written(stage: Stage) -> None:
    """Quotes, lines, letters beyond ASCII; what no variable is called stays, and $$ is one $."""
    name = stage.unique("text")
    value = "a \"b\" 'c'\n$(NOT_SET) $$(VALUE) ü"
    stage.create_pod(pod(name, printing({"name": "VALUE", "value": value}, script='printf "%s" "$VALUE"')))
    assert stage.wait_logs(name, "@end").partition("@end")[0] == value.replace("$$(", "$(")
