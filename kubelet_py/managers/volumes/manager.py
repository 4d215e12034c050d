"""The volumes that each pod should have, made so.

Owns which volumes of which pod are ready, and the threads in which blocking file work is done, one of each pod at the
most: what hangs costs its own pod and no other. The pod's worker calls `ensure_volumes` on every pass: the first time
sets up, later ones refresh files whose sources changed and cost nothing when none did. What cannot be refreshed stays
mounted with what it held, and is tried again with growing pauses. Knows nothing of containers' lives; the worker calls
`teardown_volumes` when none is left.

Upstream counterpart: pkg/kubelet/volumemanager. Difference: no loop of its own; the pod's worker is the loop.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import structlog

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api.pod import display_name, uid_of
from kubelet_py.core import volume_plan as plan
from kubelet_py.core.backoff import BackoffEntry, BackoffPolicy, is_backing_off, next_entry, remaining_seconds
from kubelet_py.core.cgroup_rules import pod_memory_limit_bytes
from kubelet_py.core.volume_payload import NodeFacts, Payload, PayloadError
from kubelet_py.core.volume_plan import MountContext, MountedVolume, MountPlan, PlanError, VolumeKind
from kubelet_py.errors import ApiError, KubeletError, SyncError
from kubelet_py.host.files import RemovalRefused
from kubelet_py.host.mounts import ensure_shared
from kubelet_py.host.pod_dirs import PodDirs
from kubelet_py.managers.volumes import setup, teardown
from kubelet_py.managers.volumes.collect import PayloadCollector, VolumeSources
from kubelet_py.managers.volumes.subpath import bind_subpath
from kubelet_py.managers.volumes.threads import ThreadPerCall

FAILED_MOUNT: Final = "FailedMount"
FAILED_UNMOUNT: Final = "FailedUnMount"
CONFIG_ERROR: Final = "CreateContainerConfigError"
REFRESH_BACKOFF: Final = BackoffPolicy(0.5, 122.0)
"""Between two tries to refresh a mounted volume, and so between two events about it: the API server may be away."""

_log = structlog.get_logger()
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class VolumeSettings:
    """What the operator and the machine decide."""

    setup_timeout_seconds: float = 123.0
    selinux_enabled: bool = False
    make_root_shared: bool = True
    node_allocatable_memory_bytes: Callable[[], int | None] = field(default=lambda: None)
    node_facts: Callable[[], NodeFacts] = field(default=NodeFacts)


@dataclass(slots=True)
class _PodVolumes:
    """What is ready of one pod."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    mounted: dict[str, MountedVolume] = field(default_factory=dict)
    digests: dict[str, bytes] = field(default_factory=dict)
    stale: dict[str, BackoffEntry] = field(default_factory=dict)
    """The mounted volumes that could not be refreshed."""
    changes: int = 0
    """How often something that the volumes are made of was said to have changed."""
    work: "Future[Any] | None" = None

    @property
    def hangs(self) -> bool:
        """The last operation has not ended, though nobody waits for it any more; there is no second beside it."""
        return self.work is not None and not self.work.done()


@dataclass(frozen=True, slots=True)
class _Step:
    """A volume to set up or to refresh; `files` and `mount_points` are of the kinds whose content the agent writes."""

    volume: core_v1.Volume
    kind: VolumeKind
    files: Payload = field(default_factory=dict)
    mount_points: tuple[str, ...] = ()
    digest: bytes = b""


class VolumeManager:
    """Sets up, refreshes and takes down the volumes of pods."""

    def __init__(
        self,
        root: Path,
        sources: VolumeSources | None,
        settings: VolumeSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.dirs = PodDirs(root)
        self._settings = settings or VolumeSettings()
        self._clock = clock
        self._collector = PayloadCollector(sources, self._settings.node_facts)
        self._pods: dict[str, _PodVolumes] = {}
        self._threads: Executor = ThreadPerCall()
        self._complaints: dict[str, str] = {}

    def prepare(self) -> None:
        """Once at start: the directories, and mounts beneath the root that containers can see. Blocking, short."""
        self.dirs.ensure_pods()
        if self._settings.make_root_shared:
            try:
                ensure_shared(self.dirs.root)
            except OSError as error:
                _log.warning("root_not_shared", path=str(self.dirs.root), error=str(error), effect="mountPropagation")

    async def ensure_volumes(
        self, pod: core_v1.Pod, complain: Callable[[str], None] = lambda message: None
    ) -> Mapping[str, MountedVolume]:
        """Every volume that a container of the pod mounts, ready; SyncError says which is not and why.

        `complain` is told of each that is ready but could not be refreshed: containers go on with what it held.
        """
        record = self._pods.setdefault(uid_of(pod), _PodVolumes())
        async with record.lock:
            changes, now_seconds = record.changes, self._clock()
            wanted = [
                volume
                for volume in plan.volumes_to_set_up(pod)
                if not is_backing_off(record.stale.get(volume.name), now_seconds)
            ]
            steps, problems = await self._compute_steps(pod, wanted, record)
            if steps:
                problems |= await self._run(pod, steps, record)
            for volume in wanted:
                before = record.stale.pop(volume.name, None)
                if volume.name not in problems or volume.name not in record.mounted:
                    continue
                complain(problems.pop(volume.name))
                if record.changes == changes:
                    record.stale[volume.name] = next_entry(before, REFRESH_BACKOFF, self._clock())
            if problems:
                raise SyncError(FAILED_MOUNT, "; ".join(problems.values()))
            return dict(record.mounted)

    def note_change(self, pod_uid: str) -> None:
        """Something that the pod's volumes are made of is another: what could not be refreshed may be now."""
        record = self._pods.get(pod_uid)
        if record is not None:
            record.changes += 1
            record.stale.clear()

    def refresh_due_seconds(self, pod_uid: str) -> float | None:
        """The time until a volume of the pod that could not be refreshed is tried again; None when there is none."""
        record = self._pods.get(pod_uid)
        now_seconds = self._clock()
        stale = record.stale.values() if record is not None else ()
        return min((remaining_seconds(entry, now_seconds) for entry in stale), default=None)

    async def to_cri_mounts(
        self,
        pod: core_v1.Pod,
        container: core_v1.Container | core_v1.EphemeralContainer,
        mounted: Mapping[str, MountedVolume],
        context: MountContext | None = None,
    ) -> list[cri.Mount]:
        """The container's volumeMounts for the runtime, with their subPaths bound."""
        try:
            planned = plan.compute_mount_plans(container, mounted, context or MountContext())
        except PlanError as error:
            raise SyncError(CONFIG_ERROR, str(error), container.name) from error
        paths = {entry.index: entry.volume.host_path for entry in planned}
        with_sub_path = [entry for entry in planned if entry.sub_path and entry.image is None]
        if with_sub_path:
            try:
                paths.update(await self._bind_subpaths(uid_of(pod), container.name, with_sub_path))
            except (OSError, KubeletError, ValueError, TimeoutError) as error:  # a path with a NUL is a ValueError
                text = f'failed to prepare subPath for volumeMount of container "{container.name}": {_cause(error)}'
                raise SyncError(CONFIG_ERROR, text, container.name) from error
        return [
            cri.Mount(
                container_path=entry.container_path,
                host_path=paths[entry.index],
                readonly=entry.read_only,
                recursive_read_only=entry.recursive_read_only,
                propagation=entry.propagation,
                selinux_relabel=entry.volume.relabel and self._settings.selinux_enabled,
                image=entry.image,
                image_sub_path=entry.sub_path if entry.image is not None else "",
            )
            for entry in planned
        ]

    async def teardown_volumes(self, pod_uid: str) -> None:
        """Take down all volumes of a pod, whoever set them up; again is fine. SyncError names what is in the way."""
        await self._take_down(pod_uid, teardown.tear_down_volumes)

    async def remove_pod_directory(self, pod_uid: str) -> None:
        """The volumes and everything else of the pod on disk; for when no container of it is left."""
        await self._take_down(pod_uid, teardown.remove_pod_directory)

    async def cleanup_orphans(self, is_known: Callable[[str], bool]) -> None:
        """Remove the directories of pods that nobody knows any more. Complains once about each that must stay.

        `is_known` is asked when nothing else can happen to the pod: one with the same UID may come back.
        """
        on_disk = await asyncio.to_thread(self.dirs.list_pod_uids)
        for gone in set(self._complaints) - set(on_disk):
            del self._complaints[gone]
        for pod_uid in on_disk:
            if is_known(pod_uid):
                continue
            try:
                if await self._take_down(pod_uid, teardown.remove_pod_directory, unless=is_known):
                    _log.info("orphaned_pod_removed", pod_uid=pod_uid)
            except SyncError as error:
                if self._complaints.get(pod_uid) != error.message:
                    self._complaints[pod_uid] = error.message
                    _log.warning("orphaned_pod_stays", pod_uid=pod_uid, problem=error.message)

    async def _take_down(
        self,
        pod_uid: str,
        action: Callable[[PodDirs, str], None],
        unless: Callable[[str], bool] = lambda pod_uid: False,
    ) -> bool:
        """Whether it was done."""
        record = self._pods.setdefault(pod_uid, _PodVolumes())
        async with record.lock:
            if unless(pod_uid):
                return False
            if record.hangs:
                raise SyncError(FAILED_UNMOUNT, "an earlier operation on the pod's volumes still hangs")
            record.mounted.clear()
            record.digests.clear()
            record.stale.clear()
            try:
                await self._in_thread(record, action, self.dirs, pod_uid)
            except (OSError, RemovalRefused, TimeoutError, ValueError) as error:
                raise SyncError(FAILED_UNMOUNT, _cause(error)) from error
            self._pods.pop(pod_uid, None)
            return True

    async def _compute_steps(
        self, pod: core_v1.Pod, wanted: Iterable[core_v1.Volume], record: _PodVolumes
    ) -> tuple[list[_Step], dict[str, str]]:
        """What is to be done, and what is wrong with which volume."""
        steps: list[_Step] = []
        problems: dict[str, str] = {}
        for volume in wanted:
            try:
                kind = plan.kind_of(volume)
                if kind not in plan.FILE_KINDS:
                    if volume.name not in record.mounted:
                        steps.append(_Step(volume, kind))
                    continue
                files = await self._collector.collect(pod, volume)
            except (PlanError, PayloadError, ApiError) as error:
                problems[volume.name] = plan.setup_failure(volume.name, str(error))
                continue
            mount_points = plan.nested_mount_points(pod, volume.name)
            digest = _digest(files, mount_points)
            if record.digests.get(volume.name) != digest:
                steps.append(_Step(volume, kind, files, mount_points, digest))
        return steps, problems

    async def _run(self, pod: core_v1.Pod, steps: Sequence[_Step], record: _PodVolumes) -> dict[str, str]:
        """What is wrong with which volume."""
        if record.hangs:
            return _failures(steps, "an earlier attempt still hangs in a file operation")
        context = setup.SetupContext(
            dirs=self.dirs,
            pod_uid=uid_of(pod),
            fs_group=plan.fs_group_of(pod),
            only_on_root_mismatch=plan.fs_group_on_root_mismatch(pod),
            pod_memory_limit_bytes=pod_memory_limit_bytes(pod),
            node_allocatable_memory_bytes=self._settings.node_allocatable_memory_bytes(),
            now=datetime.now(UTC),
        )
        try:
            done, problems = await self._in_thread(record, _set_up_all, context, pod, steps)
        except TimeoutError:
            seconds = self._settings.setup_timeout_seconds
            return _failures(steps, f"timed out after {seconds:g} s waiting for the file system")
        for mounted, digest in done:
            record.mounted[mounted.name] = mounted
            record.digests[mounted.name] = digest
        if any(step.kind in plan.FILE_KINDS for step in steps):
            _log.debug("volume_files_written", pod=display_name(pod), volumes=[m.name for m, _ in done])
        return problems

    async def _in_thread(self, record: _PodVolumes, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What the call gives; TimeoutError when it takes too long, and then it goes on without us."""
        record.work = work = self._threads.submit(call, *args, **kwargs)
        async with asyncio.timeout(self._settings.setup_timeout_seconds):
            return await asyncio.wrap_future(work)

    async def _bind_subpaths(self, pod_uid: str, container: str, entries: Iterable[MountPlan]) -> dict[int, str]:
        record = self._pods.setdefault(pod_uid, _PodVolumes())
        async with record.lock:
            if record.hangs:
                raise TimeoutError
            return await self._in_thread(record, self._bind_all, pod_uid, container, entries)

    def _bind_all(self, pod_uid: str, container: str, entries: Iterable[MountPlan]) -> dict[int, str]:
        """In a thread."""
        bound = {}
        for entry in entries:
            target = self.dirs.subpath(pod_uid, entry.volume.name, container, entry.index)
            bind_subpath(Path(entry.volume.host_path), entry.sub_path, target)
            bound[entry.index] = os.fspath(target)
        return bound


def _set_up_all(
    context: setup.SetupContext, pod: core_v1.Pod, steps: Sequence[_Step]
) -> tuple[list[tuple[MountedVolume, bytes]], dict[str, str]]:
    """In a thread: all steps, those after a failure too, so that one event tells everything."""
    done: list[tuple[MountedVolume, bytes]] = []
    problems: dict[str, str] = {}
    try:
        context.dirs.ensure_pod(context.pod_uid)
    except OSError as error:
        return done, _failures(steps, _cause(error))
    for step in steps:
        volume = step.volume
        try:
            if step.kind is VolumeKind.EMPTY_DIR:
                mounted = setup.set_up_empty_dir(context, pod, volume)
            elif step.kind is VolumeKind.HOST_PATH:
                mounted = setup.set_up_host_path(volume)
            else:
                mounted = setup.set_up_files(context, volume.name, step.kind, step.files, step.mount_points)
            done.append((mounted, step.digest))
        except (OSError, KubeletError, ValueError) as error:
            problems[volume.name] = plan.setup_failure(volume.name, _cause(error))
    return done, problems


def _failures(steps: Iterable[_Step], why: str) -> dict[str, str]:
    """The same is wrong with all of them."""
    return {step.volume.name: plan.setup_failure(step.volume.name, why) for step in steps}


def _digest(files: Payload, mount_points: Iterable[str]) -> bytes:
    """A fingerprint, so that contents need not be kept to see a change."""
    digest = hashlib.blake2b("\0".join(mount_points).encode(), digest_size=16)
    for path in sorted(files):
        file = files[path]
        digest.update(f"{path}\0{file.mode}\0{file.owner}\0{len(file.data)}\0".encode())
        digest.update(file.data)
    return digest.digest()


def _cause(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, TimeoutError):
        return "timed out waiting for the file system"
    return str(error)
