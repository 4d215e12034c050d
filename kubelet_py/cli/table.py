"""Pods as text: the table of `get pods` and the paragraphs of `describe`.

Pure: objects as the HTTP API gives them, and the time, are arguments. The columns are kubectl's, so that they read the
same with and without an API server. Control characters in them, which a pod may have put there, are spelled out.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from kubelet_py.text import to_terminal_text

Pod = Mapping[str, Any]

_COLUMNS = ("NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "IP", "AGE")


def pod_table(pods: Iterable[Pod], now: datetime) -> str:
    """One line for each pod, sorted by namespace and name."""
    rows = [_COLUMNS, *sorted(_row(pod, now) for pod in pods)]
    if len(rows) == 1:
        return "No pods."
    return "\n".join(_aligned(rows))


def pod_description(pod: Pod, now: datetime) -> str:
    """What a person wants to know of one pod."""
    metadata, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    lines = [
        f"Name:       {metadata['name']}",
        f"Namespace:  {metadata.get('namespace', '')}",
        f"UID:        {metadata.get('uid', '')}",
        f"Node:       {spec.get('nodeName', '')}",
        f"Status:     {pod_status(pod)}",
        f"IP:         {status.get('podIP', '')}",
        f"Age:        {age(_started(pod), now)}",
        f"Labels:     {_pairs(metadata.get('labels'))}",
    ]
    if status.get("message"):
        lines.append(f"Message:    {status['message']}")
    states = {entry["name"]: entry for entry in _all_statuses(status)}
    lines.append("Containers:")
    for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
        lines += _container_lines(container, states.get(container["name"], {}))
    lines.append("Conditions:")
    for condition in status.get("conditions") or []:
        why = " ".join(condition.get(key, "") for key in ("reason", "message")).strip()
        lines.append(f"  {condition['type']}: {condition['status']}{f'  ({why})' if why else ''}")
    return to_terminal_text("\n".join(lines))


def pod_status(pod: Pod) -> str:
    """The word of kubectl's STATUS column: the phase, or why it is not as it should be."""
    metadata, status = pod["metadata"], pod.get("status", {})
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    word = str(status.get("reason") or status.get("phase") or "Unknown")
    initial = status.get("initContainerStatuses") or []
    for done, entry in enumerate(initial):
        reason = _reason(entry)
        if entry.get("state", {}).get("terminated", {}).get("exitCode") == 0 or entry.get("started"):
            continue
        return f"Init:{reason}" if reason not in ("", "PodInitializing") else f"Init:{done}/{len(initial)}"
    for entry in reversed(status.get("containerStatuses") or []):
        word = _reason(entry) or word
    return word


def age(start: datetime | None, now: datetime) -> str:
    """The time since then in kubectl's short form; `<unknown>` when there is no start."""
    if start is None:
        return "<unknown>"
    seconds = max(0, int((now - start).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    return f"{hours}h" if hours < 48 else f"{hours // 24}d"


def _row(pod: Pod, now: datetime) -> tuple[str, ...]:
    metadata, status = pod["metadata"], pod.get("status", {})
    entries = status.get("containerStatuses") or []
    ready = sum(1 for entry in entries if entry.get("ready"))
    restarts = sum(entry.get("restartCount", 0) for entry in _all_statuses(status))
    cells = (
        metadata.get("namespace", ""),
        metadata["name"],
        f"{ready}/{len(pod.get('spec', {}).get('containers', []))}",
        pod_status(pod),
        str(restarts),
        status.get("podIP") or "<none>",
        age(_started(pod), now),
    )
    return tuple(to_terminal_text(cell) for cell in cells)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _started(pod: Pod) -> datetime | None:
    text = pod.get("status", {}).get("startTime") or pod["metadata"].get("creationTimestamp")
    return datetime.fromisoformat(text) if text else None


def _all_statuses(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    names = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    return [entry for name in names for entry in status.get(name) or []]


def _reason(entry: Mapping[str, Any]) -> str:
    """Why a container waits or how it ended; empty while it runs."""
    state = entry.get("state") or {}
    if waiting := state.get("waiting"):
        return str(waiting.get("reason", ""))
    if ended := state.get("terminated"):
        return str(ended.get("reason") or f"ExitCode:{ended.get('exitCode', 0)}")
    return ""


def _container_lines(container: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
    state = next(iter((entry.get("state") or {"waiting": {}}).items()))
    detail = " ".join(f"{key}={value}" for key, value in state[1].items() if key != "containerID")
    lines = [
        f"  {container['name']}:",
        f"    Image:     {container.get('image', '')}",
        f"    State:     {state[0]}{f' ({detail})' if detail else ''}",
        f"    Ready:     {str(entry.get('ready', False)).lower()}",
        f"    Restarts:  {entry.get('restartCount', 0)}",
    ]
    if last := (entry.get("lastState") or {}).get("terminated"):
        lines.append(f"    Last end:  exit code {last.get('exitCode')} ({last.get('reason', '')})")
    if entry.get("containerID"):
        lines.append(f"    ID:        {entry['containerID']}")
    return lines


def _pairs(values: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((values or {}).items())) or "<none>"
