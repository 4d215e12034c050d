"""A CRI runtime in memory: pods, containers and images without processes, and failures on demand.

`FakeRuntimeClient` is a RuntimeClient of kubelet_py; `tests.fakes.runtime_server` puts the same state behind gRPC.
tests/contract/cri runs against it and against containerd and dockershim, so what it promises is what they do.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from cri_proto import runtime_v1 as cri
from kubelet_py.api.pod import POD_UID_LABEL
from kubelet_py.errors import (
    RuntimeCallError,
    RuntimeNotFound,
    RuntimeTimeout,
    RuntimeUnavailable,
    RuntimeUnimplemented,
)
from tests.fakes.runtime_objects import (
    Call,
    FakeContainer,
    FakeSandbox,
    Fault,
    Gate,
    container_state,
    container_status,
    sandbox_state,
    sandbox_status,
    strike,
)

KILLED = 137
TERMINATED = 143
ANY = "*"
"""A fault for every call."""
MUTATIONS = frozenset(
    (
        "RunPodSandbox",
        "StopPodSandbox",
        "RemovePodSandbox",
        "CreateContainer",
        "StartContainer",
        "StopContainer",
        "RemoveContainer",
        "PullImage",
    )
)
ANY_MUTATION = "mutation"
"""A fault for every call that changes something."""


class FakeRuntimeClient:
    """The RuntimeClient, and what the test does to the runtime behind its back."""

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.clock_ns = clock_ns
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.containers: dict[str, FakeContainer] = {}
        self.images: dict[str, cri.Image] = {}
        self.registry: dict[str, cri.Image] = {}
        """What can be pulled, by the reference that is asked for."""
        self.calls: list[Call] = []
        self.pulls: list[cri.PullImageRequest] = []
        self.exits: dict[str, int] = {}
        """Container name to the exit code with which it ends as soon as it was started."""
        self.programs: dict[tuple[str, ...], int] = {}
        """The same by command."""
        self.stubborn: set[str] = set()
        """Names of containers that end only when killed."""
        self.stubborn_commands: set[tuple[str, ...]] = set()
        """The same by command."""
        self.exec_results: dict[tuple[str, ...], tuple[bytes, bytes, int]] = {}
        self.exec_hangs: set[tuple[str, ...]] = set()
        self.checkpoints: list[tuple[str, int]] | None = None
        self.sandbox_updates: list[tuple[cri.LinuxContainerResources, cri.LinuxContainerResources]] | None = None
        self.has_events = False
        self.down = False
        self.closed = False
        self.network_problem = ""
        self.runtime_version = "1.0-fake"
        self.cgroup_driver: int | None = cri.CGROUPFS
        self._faults: list[Fault] = []
        self._listeners: set[asyncio.Queue[cri.ContainerEventResponse | None]] = set()
        self._numbers = 0
        self._last_ns = 0

    # What a test arranges

    def add_image(self, reference: str, *, present: bool = True, size: int = 1000, uid: int | None = None) -> cri.Image:
        """An image that can be pulled, and is there already unless told otherwise."""
        digest = f"{self._number():064x}"
        repository = reference.partition("@")[0].rpartition(":")[0] or reference
        image = cri.Image(
            id=f"sha256:{digest}",
            repo_tags=[reference] if "@" not in reference else [],
            repo_digests=[f"{repository}@sha256:{digest}"],
            size=size,
        )
        if uid is not None:
            image.uid.value = uid
        self.registry[reference] = image
        if present:
            self.images[image.id] = image
        return image

    def fail(
        self, call: str, error: Exception | None = None, *, skip: int = 0, times: int | None = 1, after: bool = False
    ) -> None:
        """It fails `times` times (None: always) after `skip` that go well; `after`: it works and the reply is lost."""
        error = error or RuntimeCallError(call, "UNKNOWN", "as the test wants it")
        self._faults.append(Fault(call, error, skip, times, after))

    def hang(self, call: str, *, skip: int = 0, times: int | None = 1, after: bool = False) -> Gate:
        """The call waits at the gate; `after`: when it has done its work."""
        gate = Gate()
        self._faults.append(Fault(call, None, skip, times, after, gate))
        return gate

    def heal(self) -> None:
        """No more faults."""
        self._faults.clear()
        self.down = False

    def called(self, *names: str) -> list[str]:
        """What was called, those of these names, or every change."""
        wanted = names or MUTATIONS
        return [call.name for call in self.calls if call.name in wanted]

    def container(self, name: str, pod_uid: str | None = None) -> FakeContainer:
        """The newest container of a name."""
        found = [c for c in self.containers.values() if c.name == name and pod_uid in (None, self._uid_of(c))]
        return max(found, key=lambda c: c.created_at)

    def running(self, pod_uid: str | None = None) -> list[str]:
        """Names of what runs."""
        return sorted(c.name for c in self.containers.values() if c.runs and pod_uid in (None, self._uid_of(c)))

    def ready_sandboxes(self, pod_uid: str | None = None) -> list[FakeSandbox]:
        """Those that are ready."""
        return [s for s in self.sandboxes.values() if s.ready and pod_uid in (None, s.uid)]

    def exit(self, container: FakeContainer, exit_code: int = 0, reason: str = "") -> None:
        """It ends by itself."""
        if container.runs:
            container.state = cri.CONTAINER_EXITED
            container.exit_code = exit_code
            container.reason = reason or ("Completed" if exit_code == 0 else "Error")
            container.finished_at = self._now()
            container.ended.set()
            self.tell(container, cri.CONTAINER_STOPPED_EVENT)

    def kill_sandbox(self, sandbox: FakeSandbox) -> None:
        """The pause process dies, and what is in the sandbox with it."""
        sandbox.ready = False
        for container in self.containers.values():
            if container.sandbox_id == sandbox.id:
                self.exit(container, KILLED)

    def drop_event_streams(self) -> None:
        """Every stream of events ends with an error."""
        for listener in self._listeners:
            listener.put_nowait(None)

    # The RuntimeClient

    async def version(self) -> cri.VersionResponse:
        """Version."""
        async with self._rpc("Version"):
            return cri.VersionResponse(
                version="0.1.0",
                runtime_name="fake",
                runtime_version=self.runtime_version,
                runtime_api_version="v1",
            )

    async def status(self, verbose: bool = False) -> cri.StatusResponse:
        """Status."""
        async with self._rpc("Status"):
            network = cri.RuntimeCondition(type="NetworkReady", status=not self.network_problem)
            if self.network_problem:
                network.reason, network.message = "NetworkPluginNotReady", self.network_problem
            conditions = [cri.RuntimeCondition(type="RuntimeReady", status=True), network]
            return cri.StatusResponse(
                status=cri.RuntimeStatus(conditions=conditions), info={"config": "{}"} if verbose else {}
            )

    async def runtime_config(self) -> cri.RuntimeConfigResponse:
        """RuntimeConfig."""
        async with self._rpc("RuntimeConfig"):
            if self.cgroup_driver is None:
                raise RuntimeUnimplemented("RuntimeConfig", "UNIMPLEMENTED", "unknown method RuntimeConfig")
            driver = cri.SYSTEMD if self.cgroup_driver == cri.SYSTEMD else cri.CGROUPFS
            return cri.RuntimeConfigResponse(linux=cri.LinuxRuntimeConfiguration(cgroup_driver=driver))

    async def update_runtime_config(self, pod_cidr: str) -> None:
        """UpdateRuntimeConfig."""
        async with self._rpc("UpdateRuntimeConfig", pod_cidr):
            return

    async def run_pod_sandbox(self, config: cri.PodSandboxConfig, runtime_handler: str) -> str:
        """RunPodSandbox."""
        async with self._rpc("RunPodSandbox", config.metadata.uid):
            for other in self.sandboxes.values():
                if other.config.metadata == config.metadata:
                    raise _error("RunPodSandbox", "ALREADY_EXISTS", f"the name is reserved for {other.id}")
            number = self._number()
            copy = cri.PodSandboxConfig()
            copy.CopyFrom(config)
            ip = "" if config.linux.security_context.namespace_options.network == cri.NODE else f"10.88.0.{number}"
            sandbox = FakeSandbox(f"{number:064x}", copy, runtime_handler, self._now(), ip)
            self.sandboxes[sandbox.id] = sandbox
            return sandbox.id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """StopPodSandbox; again is fine. One that is not there is not found, as containerd says."""
        async with self._rpc("StopPodSandbox", sandbox_id):
            self.kill_sandbox(self._sandbox("StopPodSandbox", sandbox_id))

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """RemovePodSandbox with its containers; again is fine."""
        async with self._rpc("RemovePodSandbox", sandbox_id):
            sandbox = self.sandboxes.pop(sandbox_id, None)
            if sandbox is None:
                return
            self.kill_sandbox(sandbox)
            for container in [c for c in self.containers.values() if c.sandbox_id == sandbox_id]:
                del self.containers[container.id]

    async def update_pod_sandbox_resources(
        self, sandbox_id: str, overhead: cri.LinuxContainerResources, resources: cri.LinuxContainerResources
    ) -> None:
        """UpdatePodSandboxResources: most runtimes have none, unless `sandbox_updates` is a list to write into."""
        async with self._rpc("UpdatePodSandboxResources", sandbox_id):
            if self.sandbox_updates is None:
                raise RuntimeUnimplemented("UpdatePodSandboxResources", "UNIMPLEMENTED", "unknown method")
            self.sandbox_updates.append((overhead, resources))

    async def pod_sandbox_status(self, sandbox_id: str) -> cri.PodSandboxStatusResponse:
        """PodSandboxStatus."""
        async with self._rpc("PodSandboxStatus", sandbox_id):
            return cri.PodSandboxStatusResponse(status=sandbox_status(self._sandbox("PodSandboxStatus", sandbox_id)))

    async def list_pod_sandboxes(self, pod_uid: str | None = None) -> list[cri.PodSandbox]:
        """ListPodSandbox."""
        async with self._rpc("ListPodSandbox", pod_uid or ""):
            return [
                cri.PodSandbox(
                    id=sandbox.id,
                    metadata=sandbox.config.metadata,
                    state=sandbox_state(sandbox),
                    created_at=sandbox.created_at,
                    labels=sandbox.config.labels,
                    annotations=sandbox.config.annotations,
                    runtime_handler=sandbox.runtime_handler,
                )
                for sandbox in self.sandboxes.values()
                if pod_uid in (None, sandbox.config.labels.get(POD_UID_LABEL))
            ]

    async def create_container(
        self, sandbox_id: str, config: cri.ContainerConfig, sandbox_config: cri.PodSandboxConfig
    ) -> str:
        """CreateContainer."""
        async with self._rpc("CreateContainer", config.metadata.name):
            sandbox = self._sandbox("CreateContainer", sandbox_id)
            for other in self.containers.values():
                if other.sandbox_id == sandbox_id and other.config.metadata == config.metadata:
                    raise _error("CreateContainer", "ALREADY_EXISTS", f"the name is reserved for {other.id}")
            if not sandbox.ready:
                raise _error("CreateContainer", "UNKNOWN", f"sandbox {sandbox_id} is not running")
            image = self._image(config.image.image)
            if image is None:
                raise RuntimeNotFound("CreateContainer", "NOT_FOUND", f"no such image: {config.image.image}")
            copy = cri.ContainerConfig()
            copy.CopyFrom(config)
            container = FakeContainer(
                f"{self._number():064x}",
                sandbox_id,
                copy,
                f"{sandbox_config.log_directory}/{config.log_path}",
                self._now(),
                image.repo_digests[0],
            )
            self.containers[container.id] = container
            self.tell(container, cri.CONTAINER_CREATED_EVENT)
            return container.id

    async def start_container(self, container_id: str) -> None:
        """StartContainer; once only."""
        async with self._rpc("StartContainer", container_id):
            container = self._container("StartContainer", container_id)
            if container.state != cri.CONTAINER_CREATED:
                raise _error("StartContainer", "UNKNOWN", f"container {container_id} was started before")
            container.state = cri.CONTAINER_RUNNING
            container.started_at = self._now()
            self.tell(container, cri.CONTAINER_STARTED_EVENT)
            exit_code = self.exits.get(container.name, self.programs.get(tuple(container.config.command)))
            if exit_code is not None:
                self.exit(container, exit_code)

    async def stop_container(self, container_id: str, grace_period_seconds: int) -> None:
        """StopContainer: a signal, and after the grace period the other one."""
        async with self._rpc("StopContainer", container_id):
            container = self.containers.get(container_id)
            if container is None:
                return
            container.grace_periods.append(grace_period_seconds)
            if not container.runs:
                return
            if container.name in self.stubborn or tuple(container.config.command) in self.stubborn_commands:
                try:
                    async with asyncio.timeout(grace_period_seconds):
                        await container.ended.wait()
                except TimeoutError:
                    self.exit(container, KILLED)
            self.exit(container, TERMINATED if grace_period_seconds else KILLED)

    async def remove_container(self, container_id: str) -> None:
        """RemoveContainer, by force; again is fine."""
        async with self._rpc("RemoveContainer", container_id):
            container = self.containers.pop(container_id, None)
            if container is not None:
                self.exit(container, KILLED)
                self.tell(container, cri.CONTAINER_DELETED_EVENT)

    async def container_status(self, container_id: str) -> cri.ContainerStatus:
        """ContainerStatus."""
        async with self._rpc("ContainerStatus", container_id):
            return container_status(self._container("ContainerStatus", container_id))

    async def list_containers(self, pod_uid: str | None = None) -> list[cri.Container]:
        """ListContainers."""
        async with self._rpc("ListContainers", pod_uid or ""):
            return [
                cri.Container(
                    id=container.id,
                    pod_sandbox_id=container.sandbox_id,
                    metadata=container.config.metadata,
                    image=container.config.image,
                    image_ref=container.image_ref,
                    state=container_state(container),
                    created_at=container.created_at,
                    labels=container.config.labels,
                    annotations=container.config.annotations,
                )
                for container in self.containers.values()
                if pod_uid in (None, container.config.labels.get(POD_UID_LABEL))
            ]

    async def update_container_resources(self, container_id: str, resources: cri.LinuxContainerResources) -> None:
        """UpdateContainerResources."""
        async with self._rpc("UpdateContainerResources", container_id):
            self._container("UpdateContainerResources", container_id).config.linux.resources.MergeFrom(resources)

    async def reopen_container_log(self, container_id: str) -> None:
        """ReopenContainerLog of one that runs."""
        async with self._rpc("ReopenContainerLog", container_id):
            if not self._container("ReopenContainerLog", container_id).runs:
                raise _error("ReopenContainerLog", "UNKNOWN", "container is not running")

    async def exec_sync(self, container_id: str, command: list[str], timeout_seconds: int) -> cri.ExecSyncResponse:
        """ExecSync: what `exec_results` says; else nothing, with success."""
        async with self._rpc("ExecSync", container_id):
            container = self._container("ExecSync", container_id)
            if not container.runs:
                raise _error("ExecSync", "UNKNOWN", f"container {container_id} is not running")
            if tuple(command) in self.exec_hangs:
                try:
                    async with asyncio.timeout(timeout_seconds or None):
                        await container.ended.wait()
                except TimeoutError as error:
                    text = f"timeout {timeout_seconds}s exceeded"
                    raise RuntimeTimeout("ExecSync", "DEADLINE_EXCEEDED", text) from error
                return cri.ExecSyncResponse(exit_code=KILLED)
            stdout, stderr, exit_code = self.exec_results.get(tuple(command), (b"", b"", 0))
            return cri.ExecSyncResponse(stdout=stdout, stderr=stderr, exit_code=exit_code)

    async def checkpoint_container(self, container_id: str, location: str, timeout_seconds: int) -> None:
        """CheckpointContainer: most runtimes have none, unless `checkpoints` is a list to write locations into."""
        async with self._rpc("CheckpointContainer", container_id):
            if self.checkpoints is None:
                raise RuntimeUnimplemented("CheckpointContainer", "UNIMPLEMENTED", "no CRIU here")
            self._container("CheckpointContainer", container_id)
            self.checkpoints.append((location, timeout_seconds))

    async def streaming_url(self, request: cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest) -> str:
        """A URL where nobody listens."""
        call = type(request).__name__.removesuffix("Request")
        async with self._rpc(call, getattr(request, "container_id", "")):
            return f"http://127.0.0.1:1/{call.lower()}/token"

    async def list_images(self) -> list[cri.Image]:
        """ListImages."""
        async with self._rpc("ListImages"):
            return list(self.images.values())

    async def image_status(self, image: cri.ImageSpec) -> cri.Image | None:
        """ImageStatus."""
        async with self._rpc("ImageStatus", image.image):
            return self._image(image.image)

    async def pull_image(
        self, image: cri.ImageSpec, auth: cri.AuthConfig | None, sandbox_config: cri.PodSandboxConfig | None
    ) -> str:
        """PullImage from `registry`."""
        self.pulls.append(cri.PullImageRequest(image=image, auth=auth, sandbox_config=sandbox_config))
        async with self._rpc("PullImage", image.image):
            found = self.registry.get(image.image)
            if found is None:
                raise RuntimeNotFound("PullImage", "NOT_FOUND", f"{image.image}: not found")
            self.images[found.id] = found
            return found.id

    async def remove_image(self, image: cri.ImageSpec) -> None:
        """RemoveImage; again is fine."""
        async with self._rpc("RemoveImage", image.image):
            found = self._image(image.image)
            if found is not None:
                del self.images[found.id]

    async def image_fs_info(self) -> cri.ImageFsInfoResponse:
        """ImageFsInfo."""
        async with self._rpc("ImageFsInfo"):
            usage = cri.FilesystemUsage(
                timestamp=self._now(),
                fs_id=cri.FilesystemIdentifier(mountpoint="/var/lib/fake"),
                used_bytes=cri.UInt64Value(value=sum(image.size for image in self.images.values())),
            )
            return cri.ImageFsInfoResponse(image_filesystems=[usage])

    async def container_events(self) -> AsyncIterator[cri.ContainerEventResponse]:
        """GetContainerEvents, where `has_events`."""
        async with self._rpc("GetContainerEvents"):
            if not self.has_events:
                raise RuntimeUnimplemented("GetContainerEvents", "UNIMPLEMENTED", "unknown method")
        queue: asyncio.Queue[cri.ContainerEventResponse | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
            raise RuntimeUnavailable("GetContainerEvents", "UNAVAILABLE", "the stream broke")
        finally:
            self._listeners.discard(queue)

    async def close(self) -> None:
        """Nothing to close."""
        self.closed = True

    # Inside

    @asynccontextmanager
    async def _rpc(self, name: str, about: str = "") -> AsyncIterator[None]:
        self.calls.append(Call(name, about))
        await asyncio.sleep(0)
        if self.down:
            raise RuntimeUnavailable(name, "UNAVAILABLE", "connect: no such file or directory")
        fault = self._fault_for(name)
        if fault is not None and not fault.after:
            await strike(fault)
        yield
        if fault is not None and fault.after:
            await strike(fault)

    def _fault_for(self, name: str) -> Fault | None:
        for fault in self._faults:
            if fault.call not in (name, ANY) and not (fault.call == ANY_MUTATION and name in MUTATIONS):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.times is None:
                return fault
            if fault.times:
                fault.times -= 1
                return fault
        return None

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _now(self) -> int:
        """Later than ever before, so that newest first is never a question."""
        self._last_ns = max(self._last_ns + 1, self.clock_ns())
        return self._last_ns

    def _uid_of(self, container: FakeContainer) -> str:
        return container.config.labels.get(POD_UID_LABEL, "")

    def _sandbox(self, call: str, sandbox_id: str) -> FakeSandbox:
        if sandbox_id not in self.sandboxes:
            raise RuntimeNotFound(call, "NOT_FOUND", f"no such sandbox: {sandbox_id}")
        return self.sandboxes[sandbox_id]

    def _container(self, call: str, container_id: str) -> FakeContainer:
        if container_id not in self.containers:
            raise RuntimeNotFound(call, "NOT_FOUND", f"no such container: {container_id}")
        return self.containers[container_id]

    def _image(self, reference: str) -> cri.Image | None:
        for image in self.images.values():
            if reference in (image.id, image.id.removeprefix("sha256:"), *image.repo_tags, *image.repo_digests):
                return image
        return None

    def tell(self, container: FakeContainer, kind: cri.ContainerEventType) -> None:
        """An event of it, to whoever listens."""
        sandbox = self.sandboxes.get(container.sandbox_id)
        event = cri.ContainerEventResponse(container_id=container.id, container_event_type=kind, created_at=self._now())
        if sandbox is not None:
            event.pod_sandbox_status.CopyFrom(sandbox_status(sandbox))
        for listener in self._listeners:
            listener.put_nowait(event)


def _error(call: str, code: str, detail: str) -> RuntimeCallError:
    return RuntimeCallError(call, code, detail)
