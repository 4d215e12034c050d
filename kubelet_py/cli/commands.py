"""The commands for a node without an API server: get, describe, logs, exec, apply, why.

Owns what each prints. `main` says which one is meant; where pods and logs are, `local_node` knows.
"""

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from kubelet_py.cli.local_node import CommandError, LocalNode, container_of, statuses_of
from kubelet_py.cli.log_reader import follow_log, read_log
from kubelet_py.cli.output import write_both
from kubelet_py.cli.table import pod_description, pod_table
from kubelet_py.errors import RuntimeCallError
from kubelet_py.text import to_terminal_text


def get(node: LocalNode, arguments: argparse.Namespace) -> int:
    """Pods as a table, or whole as JSON or YAML."""
    pods = [node.pod(arguments.name, arguments.namespace)] if arguments.name else node.pods(arguments.namespace)
    if arguments.output == "table":
        _write(pod_table(pods, datetime.now(UTC)))
        return 0
    shown: Any = pods[0] if arguments.name else {"apiVersion": "v1", "kind": "PodList", "items": pods}
    as_json = arguments.output == "json"
    _write(json.dumps(shown, indent=2) if as_json else yaml.safe_dump(shown, sort_keys=False).rstrip())
    return 0


def describe(node: LocalNode, arguments: argparse.Namespace) -> int:
    """One pod in words."""
    _write(pod_description(node.pod(arguments.name, arguments.namespace), datetime.now(UTC)))
    return 0


def logs(node: LocalNode, arguments: argparse.Namespace) -> int:
    """What a container wrote."""
    pod = node.pod(arguments.name, arguments.namespace)
    container = container_of(pod, arguments.container)
    path = node.log_file(pod, container, previous=arguments.previous)
    tail_lines = arguments.tail if arguments.tail is not None and arguments.tail >= 0 else None
    if arguments.follow:
        is_over = partial(node.is_run_over, pod["metadata"]["uid"], container, int(path.stem))
        texts = follow_log(path, is_over=is_over, tail_lines=tail_lines)
    else:
        texts = read_log(path, tail_lines=tail_lines)
    for text in texts:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    return 0


def execute(node: LocalNode, arguments: argparse.Namespace) -> int:
    """Run a command in a container, without a terminal; its exit code is ours."""
    from kubelet_py.cri.client import connect  # gRPC is slow to load, and no other command needs it

    pod = node.pod(arguments.name, arguments.namespace)
    name = container_of(pod, arguments.container)
    identity = next((entry.get("containerID", "") for entry in statuses_of(pod) if entry["name"] == name), "")
    if not identity:
        raise CommandError(f"container {name!r} of pod {pod['metadata']['name']!r} has not been started yet")

    async def run() -> int:
        client = connect(node.config.containerRuntimeEndpoint)
        try:
            container_id = identity.partition("://")[2]
            reply = await client.exec_sync(container_id, arguments.command, timeout_seconds=arguments.timeout)
        finally:
            await client.close()
        write_both(reply.stdout, reply.stderr)
        return int(reply.exit_code)

    try:
        return asyncio.run(run())
    except RuntimeCallError as error:
        raise CommandError(str(error)) from error


def apply(node: LocalNode, arguments: argparse.Namespace) -> int:
    """Put a manifest into the agent's manifest directory, once it has passed the agent's own checks."""
    directory = Path(node.config.staticPodPath or "")
    if not node.config.staticPodPath or not directory.is_dir():
        raise CommandError("the agent has no manifest directory: set staticPodPath in its configuration")
    from kubelet_py.cli.manifest_file import checked_pod, holder_of, put_manifest  # no other command checks pods

    is_stdin = arguments.filename == "-"
    data = sys.stdin.buffer.read() if is_stdin else Path(arguments.filename).read_bytes()
    pod = checked_pod(data, arguments.filename)
    for warning in pod.warnings:
        sys.stderr.write(to_terminal_text(f"{arguments.filename}: warning: {warning}\n"))
    target = directory / f"{pod.namespace}-{pod.name}.yaml"
    if (holder := holder_of(directory, pod, target)) is not None:
        raise CommandError(
            f"{arguments.filename}: the pod {pod.namespace}/{pod.name} is in {holder} already: "
            "change or remove that file, or give this pod another name"
        )
    known = target.exists()
    put_manifest(data, target)
    _write(f"pod/{pod.name} {'changed' if known else 'added'}: {target}")
    return 0


def why(node: LocalNode, arguments: argparse.Namespace) -> int:
    """What the agent did for a pod, step by step, and what it waits for."""
    _write(to_terminal_text(node.story(node.pod(arguments.name, arguments.namespace)).rstrip()))
    return 0


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
