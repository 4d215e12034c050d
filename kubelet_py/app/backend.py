"""What the HTTP server shows: the ServerBackend over workers, statuses and runtime."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1, meta_v1
from kubelet_py.api import pod as pods
from kubelet_py.config import Settings
from kubelet_py.core.pod_story import PodStories, StoryEntry
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import RuntimeNotFound
from kubelet_py.managers.pleg import Pleg
from kubelet_py.sync.ports import StatusSink

NS_PER_SECOND = 1_000_000_000
CHECKPOINTS = "checkpoints"


class NodeBackend:
    """The ServerBackend of the real node."""

    def __init__(
        self,
        settings: Settings,
        client: RuntimeClient,
        pleg: Pleg,
        statuses: StatusSink,
        stories: PodStories,
        source_pods: Callable[[], list[core_v1.Pod]],
    ) -> None:
        self._settings = settings
        self._client = client
        self._pleg = pleg
        self._statuses = statuses
        self._stories = stories
        self._source_pods = source_pods

    def pods(self) -> Iterable[core_v1.Pod]:
        """All pods with the newest status. Mirror pods are left out where their static pod is shown."""
        return [self._with_status(pod) for pod in self._source_pods() if not pods.is_mirror(pod)]

    def find_pod(self, namespace: str, name: str) -> core_v1.Pod | None:
        """One of them."""
        for pod in self._source_pods():
            metadata = pods.metadata_of(pod)
            if metadata.name == name and metadata.namespace == namespace and not pods.is_mirror(pod):
                return self._with_status(pod)
        return None

    async def running_pods(self) -> Iterable[core_v1.Pod]:
        """Pods as the runtime has them."""
        return [
            core_v1.Pod(
                metadata=meta_v1.ObjectMeta(name=record.name, namespace=record.namespace, uid=record.uid),
                spec=core_v1.PodSpec(
                    containers=[core_v1.Container(name=c.name) for c in record.containers if c.state == "running"]
                ),
            )
            for record in self._pleg.records.values()
            if record.is_alive
        ]

    async def container_log_path(self, pod: core_v1.Pod, container_id: str) -> str:
        """Where the runtime says that the log is."""
        return (await self._client.container_status(_bare(container_id))).log_path

    async def is_container_running(self, container_id: str) -> bool:
        """Whether its log can still grow."""
        try:
            status = await self._client.container_status(_bare(container_id))
        except RuntimeNotFound:
            return False
        return status.state == cri.CONTAINER_RUNNING

    async def running_container_id(self, pod: core_v1.Pod, name: str) -> str | None:
        """The newest."""
        found = await self._client.list_containers(pods.uid_of(pod))
        running = [each for each in found if each.metadata.name == name and each.state == cri.CONTAINER_RUNNING]
        return max(running, key=lambda container: container.created_at).id if running else None

    async def sandbox_id(self, pod: core_v1.Pod) -> str | None:
        """The newest that is ready."""
        found = await self._client.list_pod_sandboxes(pods.uid_of(pod))
        ready = [sandbox for sandbox in found if sandbox.state == cri.SANDBOX_READY]
        return max(ready, key=lambda sandbox: sandbox.created_at).id if ready else None

    async def streaming_url(self, request: cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest) -> str:
        """As the runtime says."""
        return await self._client.streaming_url(request)

    async def run(self, container_id: str, command: list[str]) -> cri.ExecSyncResponse:
        """Takes as long as it takes."""
        return await self._client.exec_sync(container_id, command, 0)

    async def checkpoint(self, pod: core_v1.Pod, container: str, container_id: str, timeout_seconds: int) -> str:
        """In a directory of the node's root; the name has the second in which it was asked for."""
        directory = Path(self._settings.flags.root_dir) / CHECKPOINTS
        await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
        now = datetime.now().astimezone().isoformat(timespec="seconds").replace("+00:00", "Z")
        path = directory / f"checkpoint-{pods.full_name(pod)}-{container}-{now}.tar"
        await self._client.checkpoint_container(container_id, str(path), timeout_seconds)
        return str(path)

    def health_problems(self) -> Mapping[str, str]:
        """The PLEG is what would hang first."""
        return {"syncloop": "", "pleg": self._pleg.problem() or ""}

    def configuration(self) -> Mapping[str, Any]:
        """The effective configuration."""
        return self._settings.configz()

    def flags(self) -> Mapping[str, str]:
        """The flags of this start."""
        return self._settings.flagz()

    def story(self, pod: core_v1.Pod) -> str:
        """What was done for a pod and why, oldest first, a line for each pass and one for each action."""
        lines: list[str] = []
        for entry in self._stories.tell(pods.uid_of(pod)):
            lines.extend(_story_lines(entry))
        return "\n".join(lines) + "\n" if lines else "nothing has happened to this pod yet\n"

    def _with_status(self, pod: core_v1.Pod) -> core_v1.Pod:
        status = self._statuses.status_of(pods.uid_of(pod))
        return msgspec.structs.replace(pod, status=status) if status is not None else pod


def _bare(container_id: str) -> str:
    return container_id.rpartition("://")[2]


def _story_lines(entry: StoryEntry) -> list[str]:
    when = datetime.fromtimestamp(entry.at_ns / NS_PER_SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    again = f" ({entry.repeats} more like it)" if entry.repeats else ""
    head = f"{when}  woken by: {entry.stimulus}; saw: {entry.observation}; result: {entry.result}{again}"
    return [head, *(f"    {action}" for action in entry.actions)]
