"""Pods and other objects as the tests write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.lab.lab import BUSYBOX

# What the stages' registry has; nothing of it is on the nodes before a test pulls it.
SERVED = tuple(
    f"gcr.io/k8s-staging-cri-tools/{name}"
    for name in ("test-image-tag:test", "test-image-2:latest", "test-image-3:latest")
)

# Ends at once on SIGTERM: a shell as process 1 would ignore it.
SLEEP = 'trap "exit 0" TERM; sleep 3600 & wait'


def container(script: str = SLEEP, name: str = "main", **fields: Any) -> dict[str, Any]:
    """A busybox that runs a shell script."""
    return {"name": name, "image": BUSYBOX, "command": ["sh", "-c", script], **fields}


def pod(
    name: str,
    *containers: Mapping[str, Any],
    restart: str = "Always",
    metadata: Mapping[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A pod; without containers one that sleeps. It has a second to stop unless told otherwise."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **(metadata or {})},
        "spec": {
            "restartPolicy": restart,
            "terminationGracePeriodSeconds": 1,
            "containers": [*(containers or (container(),))],
            **spec,
        },
    }


def echo_server(script: str = "while true; do nc -ll -p 8080 -e cat; sleep 0.1; done", **fields: Any) -> dict[str, Any]:
    """A container that sends back what comes to port 8080, and is Ready once it listens."""
    listens = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    return container(script, readinessProbe=listens, **fields)


def job(name: str, script: str, **spec: Any) -> dict[str, Any]:
    """A Job of one pod."""
    template = pod(name, container(script), restart="Never")["spec"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": template}, **spec},
    }


def deployment(name: str, replicas: int) -> dict[str, Any]:
    """A Deployment of sleeping pods with the label app=NAME."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod(name)["spec"]},
        },
    }


def mortal_pod(name: str, exit_code: int, **fields: Any) -> dict[str, Any]:
    """A pod whose container ends with this code each time that Stage.tell_to_end is called."""
    script = f"until [ -e /v/end ]; do sleep 0.1; done; rm /v/end; exit {exit_code}"
    main = container(script, volumeMounts=[{"name": "v", "mountPath": "/v"}])
    return pod(name, main, volumes=[{"name": "v", "emptyDir": {}}], **fields)
