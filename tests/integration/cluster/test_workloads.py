"""Controllers' pods, and pods that fail: Deployments, Jobs, crashes, init containers, images, missing objects."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.cluster.objects import SLEEP, container, deployment, job, mortal_pod, pod
from tests.integration.cluster.stage import Stage, container_status
from tests.integration.cluster.waiting import eventually, holds

pytestmark = pytest.mark.lab

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
JOBS = "/apis/batch/v1/namespaces/default/jobs"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def test_a_deployment_grows_to_twenty_and_shrinks_to_none(stage: Stage) -> None:
    """All twenty pods become Ready with addresses of their own; scaled to none, they all go."""
    name = stage.unique("many")
    stage.cluster.create(DEPLOYMENTS, deployment(name, 2))
    stage.cluster.request("PATCH", f"{DEPLOYMENTS}/{name}/scale", {"spec": {"replicas": 20}})

    def replicas() -> int:
        status: dict[str, int] = stage.cluster.request("GET", f"{DEPLOYMENTS}/{name}")[1]["status"]
        return status.get("readyReplicas", 0)

    eventually("twenty ready replicas", lambda: replicas() == 20, within_seconds=120)
    addresses = {each["status"]["podIP"] for each in stage.pods(f"app={name}")}
    assert len(addresses) == 20
    stage.cluster.request("PATCH", f"{DEPLOYMENTS}/{name}/scale", {"spec": {"replicas": 0}})
    eventually("the end of all pods", lambda: not stage.pods(f"app={name}"), within_seconds=90)
    stage.cluster.request("DELETE", f"{DEPLOYMENTS}/{name}")


def delete_job(stage: Stage, name: str) -> None:
    """The Job, and its pods with it."""
    stage.cluster.request("DELETE", f"{JOBS}/{name}", {"propagationPolicy": "Background"})
    eventually("the end of the Job's pods", lambda: not stage.pods(f"job-name={name}"), within_seconds=40)


def test_a_job_completes_and_its_pod_stays_until_it_is_deleted(stage: Stage) -> None:
    """The pod Succeeded, is there with its logs, and goes with the Job."""
    name = stage.unique("job")
    stage.cluster.create(JOBS, job(name, "echo the answer is 42"))

    def succeeded() -> int:
        status: dict[str, int] = stage.cluster.request("GET", f"{JOBS}/{name}")[1]["status"]
        return status.get("succeeded", 0)

    eventually("the Job's success", lambda: succeeded() == 1, within_seconds=40)
    (one,) = stage.pods(f"job-name={name}")
    assert one["status"]["phase"] == "Succeeded"
    ended = container_status(one)["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
    assert stage.logs(one["metadata"]["name"]) == "the answer is 42\n"
    delete_job(stage, name)


def test_a_failing_job_gives_up_at_its_limit(stage: Stage) -> None:
    """Each failed pod counts; past backoffLimit the Job has failed."""
    name = stage.unique("failing")
    stage.cluster.create(JOBS, job(name, "exit 3", backoffLimit=1))

    def failed() -> dict[str, Any]:
        status: dict[str, Any] = stage.cluster.request("GET", f"{JOBS}/{name}")[1]["status"]
        conditions = [(c["type"], c["reason"]) for c in status.get("conditions", ())]
        assert ("Failed", "BackoffLimitExceeded") in conditions, status
        return status

    assert holds(failed, within_seconds=60)["failed"] == 2
    assert {each["status"]["phase"] for each in stage.pods(f"job-name={name}")} == {"Failed"}
    delete_job(stage, name)


def test_a_crashing_container_waits_longer_and_longer(stage: Stage) -> None:
    """CrashLoopBackOff: the reason, the count, the event, the last state and the log of the previous run."""
    name = stage.unique("crash")
    stage.create_pod(pod(name, container("echo I was; exit 5")))
    waiting = stage.wait_waiting(name, "CrashLoopBackOff")
    uid = stage.pod(name)["metadata"]["uid"]
    assert waiting["message"] == f"back-off 10s restarting failed container=main pod={name}_default({uid})"
    event = stage.wait_event(name, "BackOff")
    assert event["message"] == f"Back-off restarting failed container main in pod {name}_default({uid})"
    assert event["involvedObject"]["fieldPath"] == "spec.containers{main}"

    def crashed_twice() -> dict[str, Any]:
        main = container_status(stage.pod(name))
        assert main["restartCount"] == 2, main
        assert main["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
        return main

    main = holds(crashed_twice, within_seconds=40)
    assert main["lastState"]["terminated"]["exitCode"] == 5
    assert stage.logs(name, "previous=true") == "I was\n"
    waiting = stage.wait_waiting(name, "CrashLoopBackOff")
    assert waiting["message"].startswith("back-off 20s restarting failed container=main")


def test_restart_policies_never_and_on_failure(stage: Stage) -> None:
    """Never leaves a failed container dead; OnFailure restarts until it succeeds."""
    never, on_failure = stage.unique("never"), stage.unique("onfailure")
    stage.create_pod(pod(never, container("exit 9"), restart="Never"))
    script = "if [ -e /v/again ]; then exit 0; fi; touch /v/again; exit 1"
    main = container(script, volumeMounts=[{"name": "v", "mountPath": "/v"}])
    stage.create_pod(pod(on_failure, main, restart="OnFailure", volumes=[{"name": "v", "emptyDir": {}}]))
    seen = container_status(stage.wait_phase(never, "Failed"))
    assert (seen["restartCount"], seen["state"]["terminated"]["exitCode"]) == (0, 9)
    seen = container_status(stage.wait_phase(on_failure, "Succeeded"))
    assert (seen["restartCount"], seen["state"]["terminated"]["exitCode"]) == (1, 0)
    assert seen["lastState"]["terminated"]["exitCode"] == 1


def test_init_containers_run_one_after_another(stage: Stage) -> None:
    """Each begins when the one before has ended, and the main container begins last."""
    name = stage.unique("init")
    mounts = [{"name": "v", "mountPath": "/v"}]
    inits = [
        container("echo one >>/v/order; sleep 1; echo one ends >>/v/order", "one", volumeMounts=mounts),
        container("echo two >>/v/order", "two", volumeMounts=mounts),
    ]
    main = container(f"cat /v/order; {SLEEP}", volumeMounts=mounts)
    stage.create_pod(pod(name, main, initContainers=inits, volumes=[{"name": "v", "emptyDir": {}}]))
    assert stage.wait_logs(name, "two\n") == "one\none ends\ntwo\n"
    seen = stage.wait_ready(name)
    for each in ("one", "two"):
        status = container_status(seen, each)
        assert status["state"]["terminated"]["reason"] == "Completed"
        assert status["ready"] is True


def test_a_failing_init_container_holds_the_pod_or_ends_it(stage: Stage) -> None:
    """With Always it is tried again under back-off; with Never the pod has failed. The main container never runs."""
    stubborn, final = stage.unique("initloop"), stage.unique("initend")
    inits = [container("exit 4", "setup")]
    stage.create_pod(pod(stubborn, container(), initContainers=inits))
    stage.create_pod(pod(final, container(), initContainers=inits, restart="Never"))
    seen = stage.wait_phase(final, "Failed")
    assert container_status(seen, "setup")["state"]["terminated"]["exitCode"] == 4
    assert container_status(seen)["state"]["waiting"]["reason"] == "PodInitializing"
    stage.wait_waiting(stubborn, "CrashLoopBackOff")
    seen = stage.pod(stubborn)
    assert seen["status"]["phase"] == "Pending"
    assert container_status(seen)["state"]["waiting"]["reason"] == "PodInitializing"


def test_a_sidecar_starts_first_and_ends_last(stage: Stage) -> None:
    """A sidecar runs beside the main container, does not hold the pod open, and stops after it."""
    name = stage.unique("sidecar")
    sidecar = container(SLEEP, "beside", restartPolicy="Always")
    created = mortal_pod(name, 0, initContainers=[sidecar], restart="Never")
    uid = stage.create_pod(created)["metadata"]["uid"]

    def both_run() -> None:
        seen = stage.pod(name)
        beside, main = (container_status(seen, each)["state"] for each in ("beside", "main"))
        assert beside["running"]["startedAt"] <= main["running"]["startedAt"]

    holds(both_run, within_seconds=30)
    stage.tell_to_end(uid)
    seen = stage.wait_phase(name, "Succeeded")
    beside, main = (container_status(seen, each)["state"]["terminated"] for each in ("beside", "main"))
    assert main["finishedAt"] <= beside["finishedAt"]


def test_an_image_that_cannot_be_pulled_is_tried_again_later(stage: Stage) -> None:
    """ErrImagePull, then ImagePullBackOff, each with its events."""
    name = stage.unique("noimage")
    image = "registry.k8s.io/no-such-image:1"
    stage.create_pod(pod(name, container() | {"image": image}))
    stage.wait_waiting(name, "ImagePullBackOff", within_seconds=60)
    stage.wait_event(name, "Pulling", f'Pulling image "{image}"')
    stage.wait_event(name, "Failed", f'Failed to pull image "{image}": ')
    stage.wait_event(name, "Failed", "Error: ErrImagePull")
    stage.wait_event(name, "BackOff", f'Back-off pulling image "{image}"')
    stage.wait_event(name, "Failed", "Error: ImagePullBackOff")
    assert stage.pod(name)["status"]["phase"] == "Pending"


def test_image_names_and_policies_that_cannot_work_are_said(stage: Stage) -> None:
    """InvalidImageName and ErrImageNeverPull are waiting reasons with their events."""
    invalid, never = stage.unique("badname"), stage.unique("neverpull")
    stage.create_pod(pod(invalid, container() | {"image": "Not A Name"}))
    absent = container() | {"image": "registry.k8s.io/absent:1", "imagePullPolicy": "Never"}
    stage.create_pod(pod(never, absent))
    waiting = stage.wait_waiting(invalid, "InvalidImageName")
    assert "Not A Name" in waiting["message"]
    stage.wait_event(invalid, "InspectFailed", 'Failed to apply default image tag "Not A Name"')
    waiting = stage.wait_waiting(never, "ErrImageNeverPull")
    assert waiting["message"] == 'Container image "registry.k8s.io/absent:1" is not present with pull policy of Never'
    stage.wait_event(never, "ErrImageNeverPull")


def test_a_missing_config_map_is_waited_for(stage: Stage) -> None:
    """CreateContainerConfigError names the ConfigMap; once it is there the container starts with its value."""
    name = stage.unique("config")
    env = [{"name": "WORD", "valueFrom": {"configMapKeyRef": {"name": name, "key": "word"}}}]
    stage.create_pod(pod(name, container(f"echo the word is $WORD; {SLEEP}", env=env)))
    waiting = stage.wait_waiting(name, "CreateContainerConfigError")
    assert waiting["message"] == f'configmap "{name}" not found'
    stage.wait_event(name, "Failed", f'Error: configmap "{name}" not found')
    stage.cluster.create(CONFIG_MAPS, {"metadata": {"name": name}, "data": {"word": "hello"}})
    stage.wait_logs(name, "the word is hello\n", within_seconds=40)
    assert container_status(stage.pod(name))["restartCount"] == 0


def test_a_command_that_is_not_there_is_an_error_of_the_start(stage: Stage) -> None:
    """The runtime's refusal to start a container shows as a waiting or terminated reason, and as an event."""
    name = stage.unique("nocommand")
    stage.create_pod(pod(name, container() | {"command": ["/no/such/program"]}))
    event = stage.wait_event(name, "Failed", "/no/such/program")
    assert event["message"].startswith("Error: ")

    def said() -> None:
        main = container_status(stage.pod(name))
        words = (main["state"].get("waiting", {}).get("reason"), main["state"].get("terminated", {}).get("reason"))
        assert set(words) & {"RunContainerError", "CreateContainerError", "CrashLoopBackOff", "StartError"}, main

    holds(said, within_seconds=15)
