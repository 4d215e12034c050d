"""Makes the image of a container present, by its pull policy, and says why when it is not.

Owns: the order and the number of pulls at a time, pull back-off per (pod, image), the events Pulling, Pulled, BackOff
and Failed. Must not know: where credentials come from, garbage collection of images.
Upstream counterpart: pkg/kubelet/images/image_manager.go. Difference: pods that wait for the same image under
IfNotPresent look again when their turn comes, so one pull serves them all.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

import structlog

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.api.durations import format_duration
from kubelet_py.core import image_rules
from kubelet_py.core.backoff import IMAGE_BACKOFF, BackoffEntry, BackoffPolicy, next_entry, remaining_seconds
from kubelet_py.core.event_rules import EventSink
from kubelet_py.core.image_rules import PullPolicy
from kubelet_py.core.keyring import Credential, InvalidLogins
from kubelet_py.core.pull_records import Access
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import RuntimeCallError, RuntimeUnavailable, SyncError
from kubelet_py.kube.rate_limit import TokenBucket
from kubelet_py.managers.images.credentials import Found
from kubelet_py.managers.images.records import PullRecords

log = structlog.get_logger()

ERR_IMAGE_NEVER_PULL = "ErrImageNeverPull"
ERR_IMAGE_PULL = "ErrImagePull"
ERR_IMAGE_INSPECT = "ImageInspectError"
IMAGE_PULL_BACK_OFF = "ImagePullBackOff"

# CRI runtimes put these in front of the message when they know more than "it failed".
_RUNTIME_REASONS = {
    "RegistryUnavailable": "the registry is unavailable",
    "SignatureValidationFailed": "the signature validation failed",
}


class PullBackOff(SyncError):
    """The image is not asked for again before `remaining_seconds` are over."""

    def __init__(self, message: str, container_name: str, remaining_seconds: float) -> None:
        super().__init__(IMAGE_PULL_BACK_OFF, message, container_name)
        self.remaining_seconds = remaining_seconds


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """Which image, and for whom."""

    pod: core_v1.Pod
    container_name: str
    image: str
    pull_policy: str
    runtime_handler: str = ""
    sandbox_config: cri.PodSandboxConfig | None = None


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """How pulls are held back, and what the runtime is told."""

    max_parallel: int | None = 1
    """None: as many pulls at a time as pods ask for."""
    backoff: BackoffPolicy = IMAGE_BACKOFF
    pull_qps: float = 0.0
    pull_burst: int = 1
    per_handler: bool = False
    """Each runtime handler has images of its own (feature gate RuntimeClassInImageCriApi)."""


class CredentialFinder(Protocol):
    """Who knows the pods' credentials."""

    async def find(self, pod: core_v1.Pod, name: str) -> Found:
        """Those for an image name with its registry and without tag."""


class Images:
    """The image manager; one for the node. `records` None: an image that is there is everybody's."""

    def __init__(
        self,
        client: RuntimeClient,
        events: EventSink,
        credentials: CredentialFinder,
        settings: ImageSettings = ImageSettings(),
        records: PullRecords | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._events = events
        self._credentials = credentials
        self._settings = settings
        self._records = records
        self._turns = asyncio.Semaphore(settings.max_parallel) if settings.max_parallel is not None else None
        self._pull_rate = TokenBucket(settings.pull_qps, settings.pull_burst)
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
            image=reference,
            annotations=pods.metadata_of(request.pod).annotations,
            user_specified_image=request.image,
            runtime_handler=request.runtime_handler if self._settings.per_handler else "",
        )
        wallet = _Wallet(lambda: self._find_credentials(request, spec))
        if request.pull_policy != PullPolicy.ALWAYS:
            usable = await self._find_usable(request, spec, wallet)
            if usable is not None:
                return usable
        if request.pull_policy == PullPolicy.NEVER:
            # Said also of an image that the pod may not use: whether it is there is nothing for this pod.
            message = f'Container image "{request.image}" is not present with pull policy of Never'
            self._events(request.pod, "Warning", ERR_IMAGE_NEVER_PULL, message, request.container_name)
            raise SyncError(ERR_IMAGE_NEVER_PULL, message, request.container_name)
        return await self._pull_in_turn(request, spec, wallet)

    async def prepare(self) -> None:
        """Reads what is recorded of earlier pulls; before the first `ensure`, with a runtime that answers."""
        if self._records is not None:
            await self._records.prepare(self._client)

    def forget_pod(self, pod_uid: str) -> None:
        """Drops the back-off of a pod that is gone."""
        for key in [key for key in self._backoff if key[0] == pod_uid]:
            del self._backoff[key]

    async def _find_usable(self, request: ImageRequest, spec: cri.ImageSpec, wallet: "_Wallet") -> cri.Image | None:
        """The image, when it is there and the pod may use it without asking the registry."""
        present = await self._inspect(request, spec)
        if present is None or not await self._may_use(request, present, wallet):
            return None
        message = f'Container image "{request.image}" already present on machine'
        if self._records is not None:
            message += " and can be accessed by the pod"
        self._events(request.pod, "Normal", "Pulled", message, request.container_name)
        return present

    async def _may_use(self, request: ImageRequest, present: cri.Image, wallet: "_Wallet") -> bool:
        if self._records is None:
            return True
        access = self._records.access(request.image, present.id)
        if access is not Access.BY_CREDENTIAL:
            return access is Access.GRANTED
        return await self._records.opens(request.image, present.id, (await wallet.open()).credentials)

    async def _inspect(self, request: ImageRequest, spec: cri.ImageSpec) -> cri.Image | None:
        try:
            return await self._client.image_status(spec)
        except RuntimeCallError as error:
            message = f'Failed to inspect image "{request.image}": {error}'
            self._events(request.pod, "Warning", "InspectFailed", message, request.container_name)
            raise SyncError(ERR_IMAGE_INSPECT, message, request.container_name) from error

    async def _pull_in_turn(self, request: ImageRequest, spec: cri.ImageSpec, wallet: "_Wallet") -> cri.Image:
        entry = self._backoff.get(_backoff_key(request))
        left_seconds = remaining_seconds(entry, self._clock())
        if entry is not None and left_seconds > 0:
            message = f'Back-off pulling image "{request.image}"'
            self._events(request.pod, "Normal", "BackOff", message, request.container_name)
            raise PullBackOff(f"{message}: {entry.cause}", request.container_name, left_seconds)
        asked_at = self._clock()
        if self._turns is None:
            return await self._pull(request, spec, wallet, asked_at)
        async with self._turns:
            if request.pull_policy == PullPolicy.IF_NOT_PRESENT:
                meanwhile = await self._find_usable(request, spec, wallet)
                if meanwhile is not None:
                    return meanwhile
            return await self._pull(request, spec, wallet, asked_at)

    async def _pull(self, request: ImageRequest, spec: cri.ImageSpec, wallet: "_Wallet", asked_at: float) -> cri.Image:
        found = await wallet.open()
        self._events(request.pod, "Normal", "Pulling", f'Pulling image "{request.image}"', request.container_name)
        started_at = self._clock()
        try:
            if not self._pull_rate.try_take(started_at):
                raise RuntimeCallError("PullImage", "", "pull QPS exceeded")
            image = await self._pull_on_record(request, spec, found.credentials)
        except RuntimeCallError as error:
            self._fail(request, error, found.missing_secrets)
        self._backoff.pop(_backoff_key(request), None)
        now = self._clock()
        message = (
            f'Successfully pulled image "{request.image}" in {_milliseconds(now - started_at)} '
            f"({_milliseconds(now - asked_at)} including waiting). Image size: {image.size} bytes."
        )
        self._events(request.pod, "Normal", "Pulled", message, request.container_name)
        return image

    async def _pull_on_record(
        self, request: ImageRequest, spec: cri.ImageSpec, credentials: Sequence[Credential]
    ) -> cri.Image:
        """Pulls, with the record of it written around."""
        records, name = self._records, request.image
        if records is None:
            return (await self._pull_and_inspect(request, spec, credentials))[0]
        try:
            await records.begin(name)
        except OSError as error:
            message = f'Failed to record image pull intent for container image "{name}": {error}'
            raise SyncError(ERR_IMAGE_PULL, message, request.container_name) from error
        try:
            image, used = await self._pull_and_inspect(request, spec, credentials)
        except RuntimeCallError as error:
            if isinstance(error, RuntimeUnavailable):
                records.break_off(name)
            else:
                await records.fail(name)
            raise
        except BaseException:
            records.break_off(name)
            raise
        await records.succeed(name, image.id, used)
        return image

    async def _pull_and_inspect(
        self, request: ImageRequest, spec: cri.ImageSpec, credentials: Sequence[Credential]
    ) -> tuple[cri.Image, Credential | None]:
        reference, used = await self._pull_with_credentials(request, spec, credentials)
        image = await self._inspect(request, cri.ImageSpec(image=reference, runtime_handler=spec.runtime_handler))
        if image is None:
            message = f'Failed to inspect image "{request.image}": the runtime pulled it but does not have it'
            raise SyncError(ERR_IMAGE_INSPECT, message, request.container_name)
        return image, used

    async def _find_credentials(self, request: ImageRequest, spec: cri.ImageSpec) -> Found:
        try:
            return await self._credentials.find(request.pod, image_rules.parse_image(spec.image).name)
        except InvalidLogins as error:
            message = f'Failed to pull image "{request.image}": {error}'
            self._events(request.pod, "Warning", "Failed", message, request.container_name)
            raise SyncError(ERR_IMAGE_PULL, str(error), request.container_name) from error

    async def _pull_with_credentials(
        self, request: ImageRequest, spec: cri.ImageSpec, credentials: Sequence[Credential]
    ) -> tuple[str, Credential | None]:
        """Tries each credential in turn and says which one it was; raises what they met, all of it."""
        if not credentials:
            return await self._client.pull_image(spec, None, request.sandbox_config), None
        errors: list[RuntimeCallError] = []
        for credential in credentials:
            auth = cri.AuthConfig(username=credential.login.username, password=credential.login.password)
            try:
                return await self._client.pull_image(spec, auth, request.sandbox_config), credential
            except RuntimeCallError as error:
                log.info("image_pull_credential_failed", image=request.image, error=str(error))
                errors.append(error)
        details = list(dict.fromkeys(error.detail for error in errors))
        if len(details) == 1:
            raise errors[-1]
        raise RuntimeCallError("PullImage", errors[-1].code, f"[{', '.join(details)}]")

    def _fail(self, request: ImageRequest, error: RuntimeCallError, missing_secrets: Sequence[str]) -> NoReturn:
        pod, detail = request.pod, error.detail or str(error)
        reason = next((prefix for prefix in _RUNTIME_REASONS if detail.startswith(prefix)), ERR_IMAGE_PULL)
        self._events(
            pod, "Warning", "Failed", f'Failed to pull image "{request.image}": {detail}', request.container_name
        )
        if reason in _RUNTIME_REASONS:
            why = _RUNTIME_REASONS[reason]
            detail = f"image pull failed for {request.image} because {why}{detail.removeprefix(reason)}"
        elif missing_secrets:
            message = (
                f"Unable to retrieve some image pull secrets ({', '.join(missing_secrets)}); "
                "attempting to pull the image may not succeed."
            )
            self._events(pod, "Warning", "FailedToRetrieveImagePullSecret", message)
        key, cause = _backoff_key(request), f"{reason}: {detail}"
        self._backoff[key] = next_entry(self._backoff.get(key), self._settings.backoff, self._clock(), cause=cause)
        raise SyncError(reason, detail, request.container_name) from error


class _Wallet:
    """The pod's credentials, looked up when they are first needed, and once."""

    def __init__(self, look_up: Callable[[], Awaitable[Found]]) -> None:
        self._look_up = look_up
        self._found: Found | None = None

    async def open(self) -> Found:
        if self._found is None:
            self._found = await self._look_up()
        return self._found


def _backoff_key(request: ImageRequest) -> tuple[str, str]:
    return pods.uid_of(request.pod), request.image


def _milliseconds(seconds: float) -> str:
    """As Go prints a duration cut to milliseconds: `12ms`, `1.234s`, `1m2.5s`."""
    return format_duration(int(seconds * 1000) / 1000)
