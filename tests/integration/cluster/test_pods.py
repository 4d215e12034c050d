"""Single pods: what kubectl does with them, and what a container finds inside."""

from __future__ import annotations

import base64
import json
import time
from datetime import datetime

import pytest

from tests.integration.cluster.objects import SLEEP, container, pod
from tests.integration.cluster.stage import NODE, PLAYS_GO, PODS, Stage, condition, container_status
from tests.integration.cluster.waiting import eventually, holds
from tests.lab.cluster import CLUSTER_DNS
from tests.lab.lab import BUSYBOX

pytestmark = pytest.mark.lab


def test_kubectl_runs_shows_and_deletes_a_pod(stage: Stage) -> None:
    """`kubectl run`, `wait`, `logs` and `delete` work on this node, and the pod's status is complete."""
    name, kubectl = stage.unique("run"), stage.cluster.kubectl
    kubectl("run", name, f"--image={BUSYBOX}", "--grace-period=1", "--", "sh", "-c", f"echo hello from {name}; {SLEEP}")
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    stage.wait_logs(name, "hello")  # the container runs: what it says comes a moment later
    assert kubectl("logs", name) == f"hello from {name}\n"
    seen = stage.pod(name)
    status = seen["status"]
    assert status["phase"] == "Running"
    assert status["hostIP"] == stage.lab.node_address
    assert status["podIP"].startswith("10.201.1.")
    assert status["podIPs"] == [{"ip": status["podIP"]}]
    assert status["qosClass"] == "BestEffort"
    for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"):
        assert condition(seen, kind) == "True", status["conditions"]
    main = container_status(seen, name)
    assert main["containerID"].startswith(f"{stage.runtime}://")
    assert (main["ready"], main["started"], main["restartCount"]) == (True, True, 0)
    for reason in ("Scheduled", "Started"):
        stage.wait_event(name, reason)
    told = [event["reason"] for event in stage.events(name) if event["source"].get("component") == "kubelet"]
    assert told == ["Pulled", "Created", "Started"]
    kubectl("delete", "pod", name, "--grace-period=1", "--timeout=60s")
    assert stage.find_pod(name) is None
    stage.wait_event(name, "Killing")
    holds_nothing(stage, seen["metadata"]["uid"])


def holds_nothing(stage: Stage, uid: str) -> None:
    """The runtime has nothing of the pod, soon after it is gone."""
    # The Go kubelet leaves dead containers to its garbage collection, each minute.
    limit_seconds = 90 if PLAYS_GO else 40
    eventually(
        "an empty runtime",
        lambda: not stage.containers(uid) and not stage.sandboxes(uid),
        within_seconds=limit_seconds,
    )


def test_logs_can_be_cut_to_size_and_dated(stage: Stage) -> None:
    """--tail, --limit-bytes, --timestamps, --since and --since-time choose from the log of a container."""
    name = stage.unique("logs")
    stage.create_pod(pod(name, container(f"for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2; {SLEEP}")))
    stage.wait_logs(name, "line 5")
    stage.wait_logs(name, "bad")  # of another stream: it may be there before the lines written ahead of it
    everything = "".join(f"line {number}\n" for number in range(1, 6))
    assert sorted(stage.logs(name).splitlines()) == sorted([*everything.splitlines(), "bad"])
    assert stage.logs(name, "tailLines=0") == ""
    assert stage.logs(name, "tailLines=2").count("\n") == 2
    assert len(stage.logs(name, "limitBytes=9")) == 9
    stamp, _, rest = stage.logs(name, "timestamps=true").splitlines()[0].partition(" ")
    datetime.fromisoformat(stamp)
    assert rest in (*everything.splitlines(), "bad")
    assert stage.logs(name, "sinceSeconds=3600").count("\n") == 6
    assert stage.logs(name, "sinceTime=2100-01-01T00:00:00Z") == ""


def test_logs_can_be_followed_to_the_end_of_the_container(stage: Stage) -> None:
    """`kubectl logs -f` prints lines as they come and ends when the container does."""
    name = stage.unique("follow")
    stage.create_pod(pod(name, container("for i in 1 2 3; do echo tick $i; sleep 1; done"), restart="Never"))
    stage.wait_logs(name, "tick 1")
    assert stage.cluster.kubectl("logs", "-f", name, timeout_seconds=30).split("\n") == [
        "tick 1",
        "tick 2",
        "tick 3",
        "",
    ]
    stage.wait_phase(name, "Succeeded")


def test_logs_of_what_is_not_there_are_refused(stage: Stage) -> None:
    """Unknown containers, containers that wait and a previous run that never was get the words of the Go kubelet."""
    name = stage.unique("nologs")
    stage.create_pod(pod(name))
    stage.wait_ready(name)
    code, answer = stage.cluster.request("GET", f"{PODS}/{name}/log?previous=true")
    assert (code, answer["message"]) == (400, f'previous terminated container "main" in pod "{name}" not found')
    code, answer = stage.cluster.request("GET", f"{PODS}/{name}/log?container=other")
    assert (code, answer["message"]) == (400, f"container other is not valid for pod {name}")


def test_a_container_finds_the_pods_surroundings(stage: Stage) -> None:
    """Hostname, /etc/hosts, /etc/resolv.conf, service variables and service account token are those of the pod."""
    name = stage.unique("inside")
    script = "; ".join(
        (
            "echo @hostname; hostname",
            "echo @hosts; cat /etc/hosts",
            "echo @resolv; cat /etc/resolv.conf",
            "echo @env; env",
            "echo @namespace; cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo",
            "echo @ca; head -n 1 /var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
            "echo @token; cat /var/run/secrets/kubernetes.io/serviceaccount/token; echo",
            f"echo @end; {SLEEP}",
        )
    )
    aliases = [{"ip": "10.9.8.7", "hostnames": ["friend", "friend.example"]}]
    env = [
        {"name": "GREETING", "value": "hello"},
        {"name": "WHOLE", "value": "$(GREETING) world, $$(GREETING), $(NOBODY)"},
        {"name": "MY_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "MY_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    stage.create_pod(pod(name, container(script, env=env), hostAliases=aliases))
    text = stage.wait_logs(name, "@end")
    parts = {part.split("\n", 1)[0]: part.split("\n")[1:-1] for part in text.split("@")[1:]}
    status = stage.wait_ready(name)["status"]
    assert parts["hostname"] == [name]
    hosts = [line.split() for line in parts["hosts"] if not line.startswith("#")]
    assert [status["podIP"], name] in hosts
    assert ["127.0.0.1", "localhost"] in hosts
    assert ["10.9.8.7", "friend", "friend.example"] in hosts
    assert f"nameserver {CLUSTER_DNS}" in parts["resolv"]
    assert "options ndots:5" in parts["resolv"]
    search = next(line for line in parts["resolv"] if line.startswith("search "))
    assert search.split()[1:4] == ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]
    variables = dict(line.split("=", 1) for line in parts["env"])
    assert variables["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert variables["WHOLE"] == "hello world, $(GREETING), $(NOBODY)"
    assert variables["MY_NODE"] == NODE
    assert variables["MY_IP"] == status["podIP"]
    assert parts["namespace"] == ["default"]
    assert parts["ca"] == ["-----BEGIN CERTIFICATE-----"]
    payload = parts["token"][0].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["sub"] == "system:serviceaccount:default:default"
    assert claims["kubernetes.io"]["pod"]["name"] == name
    assert claims["kubernetes.io"]["node"]["name"] == NODE


def test_a_pod_on_the_hosts_network_has_the_nodes_address(stage: Stage) -> None:
    """hostNetwork: the node's address, hosts file and name; dnsPolicy Default: the node's resolv.conf."""
    name = stage.unique("hostnet")
    stage.lab.run(["sh", "-c", "grep -q lab-friend /etc/hosts || echo 10.1.2.3 lab-friend >>/etc/hosts"])
    script = f"hostname; cat /etc/hosts; cat /etc/resolv.conf; echo @end; {SLEEP}"
    stage.create_pod(pod(name, container(script), hostNetwork=True, dnsPolicy="Default"))
    text = stage.wait_logs(name, "@end")
    status = stage.wait_ready(name)["status"]
    assert status["podIP"] == status["hostIP"] == stage.lab.node_address
    assert text.splitlines()[0] == stage.lab.run(["hostname"]).stdout.strip()
    assert "lab-friend" in text
    assert CLUSTER_DNS not in text


def test_names_and_dns_of_a_pod_can_be_set(stage: Stage) -> None:
    """hostname and subdomain make the full name in /etc/hosts; dnsPolicy None takes all from dnsConfig."""
    name = stage.unique("named")
    dns = {"nameservers": ["10.1.1.1"], "searches": ["one.example"], "options": [{"name": "ndots", "value": "2"}]}
    script = f"hostname; cat /etc/hosts; cat /etc/resolv.conf; echo @end; {SLEEP}"
    fields = {"hostname": "short", "subdomain": "sub", "dnsPolicy": "None", "dnsConfig": dns}
    stage.create_pod({**pod(name, container(script)), "spec": {**pod(name, container(script))["spec"], **fields}})
    lines = [line.split() for line in stage.wait_logs(name, "@end").splitlines()]
    address = stage.wait_ready(name)["status"]["podIP"]
    assert lines[0] == ["short"]
    assert [address, "short.sub.default.svc.cluster.local", "short"] in lines
    assert ["nameserver", "10.1.1.1"] in lines
    assert ["search", "one.example"] in lines
    assert ["options", "ndots:2"] in lines


def test_a_host_port_leads_to_the_pod(stage: Stage) -> None:
    """A port of the node is the container's, as long as the pod is there."""
    name = stage.unique("port")
    script = "mkdir /www; echo served >/www/index.html; httpd -f -p 8080 -h /www"
    stage.create_pod(pod(name, container(script, ports=[{"containerPort": 8080, "hostPort": 18080}])))
    stage.wait_ready(name)

    def served() -> None:
        with stage.lab.connect(stage.lab.node_address, 18080) as connection:
            connection.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
            answer = connection.makefile("rb").read()
        assert b"served" in answer

    holds(served, within_seconds=15)
    stage.delete_pod(name)
    stage.wait_gone(name)
    with pytest.raises(OSError, match="refused"):
        stage.lab.connect(stage.lab.node_address, 18080)


def test_volumes_are_shared_kept_and_limited_to_the_pod(stage: Stage) -> None:
    """Two containers share an emptyDir, one in memory is a tmpfs, and a hostPath is the node's directory."""
    name = stage.unique("volumes")
    mounts = [
        {"name": "shared", "mountPath": "/shared"},
        {"name": "memory", "mountPath": "/memory"},
        {"name": "host", "mountPath": "/host"},
    ]
    write = "echo from the writer >/shared/new; mv /shared/new /shared/word"
    writer = container(f"grep ' /memory ' /proc/mounts; {write}; cat /host/word; {SLEEP}", volumeMounts=mounts)
    reader = container(
        f"until cat /shared/word; do sleep 0.1; done 2>/dev/null; {SLEEP}", "reader", volumeMounts=mounts[:1]
    )
    directory = f"/var/lib/{name}"
    stage.lab.run(["sh", "-c", f"mkdir {directory} && echo from the node >{directory}/word"])
    volumes = [
        {"name": "shared", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "host", "hostPath": {"path": directory, "type": "Directory"}},
    ]
    stage.create_pod(pod(name, writer, reader, volumes=volumes))
    stage.wait_logs(name, "from the writer\n", "container=reader")
    text = stage.wait_logs(name, "from the node\n", "container=main")
    mounted = text.split()
    assert (mounted[1], mounted[2]) == ("/memory", "tmpfs")
    assert "size=1024k" in text


def test_a_host_path_that_is_not_there_is_said(stage: Stage) -> None:
    """A hostPath of a wrong type keeps the pod waiting with FailedMount; it starts once the directory is there."""
    name = stage.unique("nohost")
    directory = f"/var/lib/{name}"
    volumes = [{"name": "host", "hostPath": {"path": directory, "type": "Directory"}}]
    main = container(volumeMounts=[{"name": "host", "mountPath": "/host"}])
    stage.create_pod(pod(name, main, volumes=volumes))
    event = stage.wait_event(name, "FailedMount")
    assert "hostPath type check failed" in event["message"]
    stage.lab.run(["mkdir", directory])
    stage.wait_ready(name, within_seconds=60)


def test_the_termination_message_is_reported(stage: Stage) -> None:
    """The message comes from the file, or from the log's end where the pod asks for it and the container failed."""
    name = stage.unique("message")
    of_file = container("echo from the file >/dev/termination-log")
    of_log = container(
        "echo first; echo from the log; exit 7", "loud", terminationMessagePolicy="FallbackToLogsOnError"
    )
    stage.create_pod(pod(name, of_file, of_log, restart="Never"))
    seen = stage.wait_phase(name, "Failed")
    main, loud = (container_status(seen, each)["state"]["terminated"] for each in ("main", "loud"))
    assert (main["exitCode"], main["reason"], main["message"]) == (0, "Completed", "from the file\n")
    assert (loud["exitCode"], loud["reason"], loud["message"]) == (7, "Error", "first\nfrom the log\n")


def test_the_grace_period_is_given_and_then_taken(stage: Stage) -> None:
    """A container that ignores SIGTERM lives for its grace period and no longer; one that obeys goes at once."""
    deaf, polite = stage.unique("deaf"), stage.unique("polite")
    stubborn = container('trap "" TERM; echo ready; while true; do sleep 1; done')
    stage.create_pod(pod(deaf, stubborn, terminationGracePeriodSeconds=4))
    obedient = container('trap "exit 0" TERM; echo ready; while true; do sleep 0.1; done')
    stage.create_pod(pod(polite, obedient, terminationGracePeriodSeconds=60))
    for name in (deaf, polite):
        stage.wait_logs(name, "ready")
    began = time.monotonic()
    stage.delete_pod(deaf)
    stage.delete_pod(polite)
    stage.wait_gone(polite, within_seconds=20)
    stage.wait_gone(deaf)
    assert time.monotonic() - began >= 4


def test_a_forced_deletion_frees_the_name_at_once(stage: Stage) -> None:
    """--force --grace-period=0 removes the object at once; the containers follow, and the name can be used again."""
    name = stage.unique("force")
    stubborn = container('trap "" TERM; echo ready; while true; do sleep 1; done')
    uid = stage.create_pod(pod(name, stubborn, terminationGracePeriodSeconds=120))["metadata"]["uid"]
    stage.wait_logs(name, "ready")
    stage.delete_pod(name, grace_seconds=0)
    assert stage.find_pod(name) is None
    stage.create_pod(pod(name))
    stage.wait_ready(name)

    def nothing_runs() -> None:
        assert [c for c in stage.containers(uid) if c.state == 1] == []

    # The Go kubelet gives such a pod its own grace period still; both end it.
    holds(nothing_runs, within_seconds=60)


def test_a_pod_past_its_deadline_fails(stage: Stage) -> None:
    """activeDeadlineSeconds ends the pod with DeadlineExceeded, and its containers with it."""
    name = stage.unique("deadline")
    uid = stage.create_pod(pod(name, activeDeadlineSeconds=2))["metadata"]["uid"]
    status = stage.wait_phase(name, "Failed")["status"]
    assert status["reason"] == "DeadlineExceeded"
    assert status["message"] == "Pod was active on the node longer than the specified deadline"
    stage.wait_event(name, "DeadlineExceeded")
    eventually(
        "the end of the containers", lambda: not [c for c in stage.containers(uid) if c.state == 1], within_seconds=15
    )


def test_a_pod_deleted_before_it_started_goes(stage: Stage) -> None:
    """A pod whose image cannot be had is deleted in no time."""
    name = stage.unique("unstarted")
    main = container() | {"image": "registry.k8s.io/no-such-image:1"}
    stage.create_pod(pod(name, main))
    stage.wait_event(name, "Pulling")
    stage.delete_pod(name)
    stage.wait_gone(name)
