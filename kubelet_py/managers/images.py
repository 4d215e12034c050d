"""Makes the image of a container present, by its pull policy, and says why when it is not.

Owns: the order and the number of pulls at a time, pull back-off per (pod, image), the events Pulling, Pulled, BackOff
and Failed. Must not know: credentials' sources (they come with the request), garbage collection of images.
Upstream counterpart: pkg/kubelet/images/image_manager.go. Difference: pods that wait for the same image under
IfNotPresent look again when their turn comes, so one pull serves them all.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import structlog

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.api.durations import format_duration
from kubelet_py.core import image_rules
from kubelet_py.core.backoff import IMAGE_BACKOFF, BackoffEntry, BackoffPolicy, next_entry, remaining_seconds
from kubelet_py.core.event_rules import EventSink
from kubelet_py.core.image_rules import PullPolicy
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import RuntimeCallError, SyncError
from kubelet_py.kube.rate_limit import TokenBucket

log = structlog.get_logger()

ERR_IMAGE_PULL = "ErrImagePull"
ERR_IMAGE_INSPECT = "ImageInspectError"
IMAGE_PULL_BACK_OFF = "ImagePullBackOff"

# CRI runtimes put these in front of the message when they know more than "it failed".
_REASON_PREFIXES = ("RegistryUnavailable", "SignatureValidationFailed")


class PullBackOff(SyncError):
    """The image is not asked for again before `remaining_seconds` are over."""

    def __init__(self, message: str, container_name: str, remaining_seconds: float) -> None:
        super().__init__(IMAGE_PULL_BACK_OFF, message, container_name)
        self.remaining_seconds = remaining_seconds


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """Which image, for whom, with which credentials to try in turn (none: anonymous)."""

    pod: core_v1.Pod
    container_name: str
    image: str
    pull_policy: str
    runtime_handler: str = ""
    credentials: Sequence[cri.AuthConfig] = ()
    sandbox_config: cri.PodSandboxConfig | None = None


class Images:
    """The image manager; one for the node. `max_parallel` None: as many pulls at a time as pods ask for."""

    def __init__(
        self,
        client: RuntimeClient,
        events: EventSink,
        max_parallel: int | None = 1,
        policy: BackoffPolicy = IMAGE_BACKOFF,
        pull_rate: TokenBucket | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._events = events
        self._turns = asyncio.Semaphore(max_parallel) if max_parallel is not None else None
        self._policy = policy
        self._pull_rate = pull_rate
        self._clock = clock
        self._backoff: dict[tuple[str, str], BackoffEntry] = {}

    async def ensure(self, request: ImageRequest) -> cri.Image:
        """The image, present; raises SyncError with the waiting reason when it is not and will not be now."""
        try:
            reference = image_rules.with_default_tag(request.image)
        except SyncError as error:
            self._events(request.pod, "Warning", "InspectFailed", error.message, request.container_name)
            raise
        spec = cri.ImageSpec(
            image=reference, user_specified_image=request.image, runtime_handler=request.runtime_handler
        )
        present = await self._inspect(request, spec)
        try:
            must_pull = image_rules.must_pull(request.image, request.pull_policy, present is not None)
        except SyncError as error:
            self._events(request.pod, "Warning", error.reason, error.message, request.container_name)
            raise
        if present is None or must_pull:
            return await self._pull_in_turn(request, spec)
        self._note_present(request)
        return present

    def forget_pod(self, pod_uid: str) -> None:
        """Drops the back-off of a pod that is gone."""
        for key in [key for key in self._backoff if key[0] == pod_uid]:
            del self._backoff[key]

    def _note_present(self, request: ImageRequest) -> None:
        message = f'Container image "{request.image}" already present on machine and can be accessed by the pod'
        self._events(request.pod, "Normal", "Pulled", message, request.container_name)

    async def _inspect(self, request: ImageRequest, spec: cri.ImageSpec) -> cri.Image | None:
        try:
            return await self._client.image_status(spec)
        except RuntimeCallError as error:
            message = f'Failed to inspect image "{request.image}": {error}'
            self._events(request.pod, "Warning", "InspectFailed", message, request.container_name)
            raise SyncError(ERR_IMAGE_INSPECT, message, request.container_name) from error

    async def _pull_in_turn(self, request: ImageRequest, spec: cri.ImageSpec) -> cri.Image:
        key = (pods.uid_of(request.pod), request.image)
        entry = self._backoff.get(key)
        left_seconds = remaining_seconds(entry, self._clock())
        if entry is not None and left_seconds > 0:
            message = f'Back-off pulling image "{request.image}"'
            self._events(request.pod, "Normal", "BackOff", message, request.container_name)
            raise PullBackOff(f"{message}: {entry.cause}", request.container_name, left_seconds)
        asked_at = self._clock()
        if self._turns is None:
            return await self._pull(request, spec, key, asked_at)
        async with self._turns:
            if request.pull_policy == PullPolicy.IF_NOT_PRESENT:
                meanwhile = await self._inspect(request, spec)
                if meanwhile is not None:
                    self._note_present(request)
                    return meanwhile
            return await self._pull(request, spec, key, asked_at)

    async def _pull(
        self, request: ImageRequest, spec: cri.ImageSpec, key: tuple[str, str], asked_at: float
    ) -> cri.Image:
        self._events(request.pod, "Normal", "Pulling", f'Pulling image "{request.image}"', request.container_name)
        started_at = self._clock()
        try:
            if self._pull_rate is not None and not self._pull_rate.try_take(started_at):
                raise RuntimeCallError("PullImage", "", "pull QPS exceeded")
            reference = await self._pull_with_credentials(request, spec)
        except RuntimeCallError as error:
            self._fail(request, key, error)
        image = await self._inspect(request, cri.ImageSpec(image=reference, runtime_handler=request.runtime_handler))
        if image is None:
            message = f'Failed to inspect image "{request.image}": the runtime pulled it but does not have it'
            raise SyncError(ERR_IMAGE_INSPECT, message, request.container_name)
        self._backoff.pop(key, None)
        now = self._clock()
        message = (
            f'Successfully pulled image "{request.image}" in {_milliseconds(now - started_at)} '
            f"({_milliseconds(now - asked_at)} including waiting). Image size: {image.size} bytes."
        )
        self._events(request.pod, "Normal", "Pulled", message, request.container_name)
        return image

    async def _pull_with_credentials(self, request: ImageRequest, spec: cri.ImageSpec) -> str:
        """Tries each credential in turn and raises what the last one met."""
        attempts: Sequence[cri.AuthConfig | None] = request.credentials or (None,)
        for auth in attempts[:-1]:
            try:
                return await self._client.pull_image(spec, auth, request.sandbox_config)
            except RuntimeCallError as error:
                log.info("image_pull_credential_failed", image=request.image, error=str(error))
        return await self._client.pull_image(spec, attempts[-1], request.sandbox_config)

    def _fail(self, request: ImageRequest, key: tuple[str, str], error: RuntimeCallError) -> NoReturn:
        reason = next((prefix for prefix in _REASON_PREFIXES if error.detail.startswith(prefix)), ERR_IMAGE_PULL)
        detail = error.detail.removeprefix(f"{reason}: ") or str(error)
        message = f'Failed to pull image "{request.image}": {detail}'
        cause = f"{reason}: {detail}"
        self._backoff[key] = next_entry(self._backoff.get(key), self._policy, self._clock(), cause=cause)
        self._events(request.pod, "Warning", "Failed", message, request.container_name)
        raise SyncError(reason, detail, request.container_name) from error


def _milliseconds(seconds: float) -> str:
    """As Go prints a duration cut to milliseconds: `12ms`, `1.234s`, `1m2.5s`."""
    return format_duration(int(seconds * 1000) / 1000)
