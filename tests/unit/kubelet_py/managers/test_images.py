"""Images are there when their containers start, by the policies, with back-off, and with the events people look for."""

import asyncio

import pytest
from structlog.testing import capture_logs

from kubelet_py.api import codec, core_v1
from kubelet_py.core.keyring import Credential, InvalidLogins, Login
from kubelet_py.errors import RuntimeCallError, RuntimeNotFound, SyncError
from kubelet_py.managers.images import ImageRequest, Images, ImageSettings, PullBackOff
from kubelet_py.managers.images.credentials import Found
from tests.fakes.runtime import FakeRuntimeClient

IMAGE = "registry.example/app:1"


class Node:
    """A runtime, its image manager and a clock that stands still."""

    def __init__(self, settings: ImageSettings | None = None) -> None:
        self.now = 1000.0
        self.fake = FakeRuntimeClient()
        self.events: list[tuple[str, str, str]] = []
        self.found: Found | InvalidLogins = Found()
        self.asked_for: list[str] = []
        self.images = Images(self.fake, self.event, self, settings or ImageSettings(), clock=lambda: self.now)

    async def find(self, pod: core_v1.Pod, name: str) -> Found:
        self.asked_for.append(name)
        if isinstance(self.found, InvalidLogins):
            raise self.found
        return self.found

    def event(self, pod: core_v1.Pod, kind: str, reason: str, message: str, container_name: str = "", /) -> None:
        assert container_name == ("" if reason == "FailedToRetrieveImagePullSecret" else "main")
        self.events.append((kind, reason, message))

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason, _ in self.events]


def a_request(image: str = IMAGE, policy: str = "IfNotPresent", uid: str = "u-1", handler: str = "") -> ImageRequest:
    metadata = {"name": "web", "namespace": "shop", "uid": uid, "annotations": {"a": "b"}}
    return ImageRequest(codec.from_builtins(core_v1.Pod, {"metadata": metadata}), "main", image, policy, handler)


def accounts(*names: str) -> Found:
    return Found(tuple(Credential(Login(name, f"{name}-password")) for name in names))


async def refusal(node: Node, request: ImageRequest) -> SyncError:
    with pytest.raises(SyncError) as caught:
        await node.images.ensure(request)
    assert caught.value.container_name in ("", "main")
    return caught.value


@pytest.mark.parametrize("policy", ["IfNotPresent", "Never"])
async def test_an_image_that_is_there_is_not_pulled(policy: str) -> None:
    node = Node()
    image = node.fake.add_image(IMAGE)
    assert await node.images.ensure(a_request(policy=policy)) == image
    assert node.fake.pulls == []
    message = f'Container image "{IMAGE}" already present on machine'
    assert node.events == [("Normal", "Pulled", message)]


async def test_always_asks_the_registry() -> None:
    node = Node()
    node.fake.add_image(IMAGE)
    await node.images.ensure(a_request(policy="Always"))
    assert len(node.fake.pulls) == 1


async def test_never_without_the_image_is_an_error() -> None:
    node = Node()
    error = await refusal(node, a_request(policy="Never"))
    assert error.reason == "ErrImageNeverPull"
    assert node.events == [("Warning", "ErrImageNeverPull", error.message)]
    assert error.message == f'Container image "{IMAGE}" is not present with pull policy of Never'


async def test_a_pull_says_how_long_it_took_and_how_large_the_image_is() -> None:
    node = Node()
    node.fake.add_image(IMAGE, present=False, size=12345)
    gate = node.fake.hang("PullImage")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(node.images.ensure(a_request()))
        await gate.reached.wait()
        node.now += 1.25
        gate.release()
    assert task.result().size == 12345
    assert node.events == [
        ("Normal", "Pulling", f'Pulling image "{IMAGE}"'),
        (
            "Normal",
            "Pulled",
            f'Successfully pulled image "{IMAGE}" in 1.25s (1.25s including waiting). Image size: 12345 bytes.',
        ),
    ]


async def test_a_name_without_a_tag_is_latest_for_the_runtime_and_stays_for_people() -> None:
    node = Node()
    node.fake.add_image("registry.example/app:latest", present=False)
    await node.images.ensure(a_request("registry.example/app"))
    (pull,) = node.fake.pulls
    assert (pull.image.image, pull.image.user_specified_image) == (
        "registry.example/app:latest",
        "registry.example/app",
    )
    assert 'Pulling image "registry.example/app"' in node.events[0][2]


async def test_an_impossible_name_is_not_asked_for() -> None:
    node = Node()
    error = await refusal(node, a_request("Registry.example/UPPER case"))
    assert error.reason == "InvalidImageName"
    assert node.reasons == ["InspectFailed"]
    assert node.fake.calls == []


async def test_a_runtime_that_cannot_say_whether_the_image_is_there() -> None:
    node = Node()
    node.fake.fail("ImageStatus", RuntimeCallError("ImageStatus", "UNKNOWN", "database locked"))
    error = await refusal(node, a_request())
    assert error.reason == "ImageInspectError"
    assert "database locked" in error.message
    assert node.reasons == ["InspectFailed"]


async def test_a_pull_that_the_runtime_forgets_is_an_error() -> None:
    node = Node()
    node.fake.add_image(IMAGE, present=False)
    gate = node.fake.hang("PullImage", after=True)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(refusal(node, a_request()))
        await gate.reached.wait()
        node.fake.images.clear()
        gate.release()
    assert task.result().reason == "ImageInspectError"


async def test_a_failed_pull_backs_off_longer_each_time_and_says_why() -> None:
    node = Node()
    first = await refusal(node, a_request())
    assert (first.reason, first.message) == ("ErrImagePull", f"{IMAGE}: not found")
    assert node.events[-1] == ("Warning", "Failed", f'Failed to pull image "{IMAGE}": {IMAGE}: not found')
    waits = []
    for _ in range(7):
        waiting = await refusal(node, a_request())
        assert isinstance(waiting, PullBackOff)
        assert waiting.reason == "ImagePullBackOff"
        assert waiting.message == f'Back-off pulling image "{IMAGE}": ErrImagePull: {IMAGE}: not found'
        assert node.events[-1] == ("Normal", "BackOff", f'Back-off pulling image "{IMAGE}"')
        waits.append(waiting.remaining_seconds)
        node.now += waiting.remaining_seconds
        assert (await refusal(node, a_request())).reason == "ErrImagePull"
    assert waits == [10, 20, 40, 80, 160, 300, 300]


async def test_the_back_off_of_one_pod_is_not_that_of_another() -> None:
    node = Node()
    await refusal(node, a_request())
    assert (await refusal(node, a_request(uid="u-2"))).reason == "ErrImagePull"
    node.images.forget_pod("u-1")
    assert (await refusal(node, a_request())).reason == "ErrImagePull"
    assert (await refusal(node, a_request(uid="u-2"))).reason == "ImagePullBackOff"


async def test_a_pull_that_works_ends_the_back_off() -> None:
    node = Node()
    await refusal(node, a_request())
    node.now += 10
    image = node.fake.add_image(IMAGE, present=False)
    await node.images.ensure(a_request())
    node.fake.images.clear()
    del node.fake.registry[IMAGE]
    assert image.size
    await refusal(node, a_request())
    waiting = await refusal(node, a_request())
    assert isinstance(waiting, PullBackOff)
    assert waiting.remaining_seconds == 10


@pytest.mark.parametrize(
    ("detail", "reason", "message"),
    [
        (
            "RegistryUnavailable: no route to host",
            "RegistryUnavailable",
            f"image pull failed for {IMAGE} because the registry is unavailable: no route to host",
        ),
        (
            "SignatureValidationFailed: no signature",
            "SignatureValidationFailed",
            f"image pull failed for {IMAGE} because the signature validation failed: no signature",
        ),
        ("connection refused", "ErrImagePull", "connection refused"),
        ("", "ErrImagePull", "PullImage:  (UNKNOWN)"),
    ],
)
async def test_the_runtimes_reason_is_kept(detail: str, reason: str, message: str) -> None:
    node = Node()
    node.fake.fail("PullImage", RuntimeCallError("PullImage", "UNKNOWN", detail))
    error = await refusal(node, a_request())
    assert (error.reason, error.message) == (reason, message)
    waiting = await refusal(node, a_request())
    assert waiting.message == f'Back-off pulling image "{IMAGE}": {reason}: {message}'


async def test_credentials_are_tried_in_turn() -> None:
    node = Node()
    node.fake.add_image(IMAGE, present=False)
    node.fake.fail("PullImage", RuntimeCallError("PullImage", "UNKNOWN", "401 unauthorized"))
    node.found = accounts("one", "two", "three")
    with capture_logs() as logs:
        await node.images.ensure(a_request())
    assert [(pull.auth.username, pull.auth.password) for pull in node.fake.pulls] == [
        ("one", "one-password"),
        ("two", "two-password"),
    ]
    assert node.asked_for == ["registry.example/app"]
    assert node.reasons == ["Pulling", "Pulled"]
    assert "one-password" not in str(logs)


async def test_without_credentials_the_pull_is_anonymous() -> None:
    node = Node()
    node.fake.add_image(IMAGE, present=False)
    await node.images.ensure(a_request())
    assert [pull.HasField("auth") for pull in node.fake.pulls] == [False]


@pytest.mark.parametrize(
    ("answers", "message"), [(("denied", "denied"), "denied"), (("denied", "gone"), "[denied, gone]")]
)
async def test_what_every_credential_met_is_told(answers: tuple[str, ...], message: str) -> None:
    node = Node()
    for answer in answers:
        node.fake.fail("PullImage", RuntimeNotFound("PullImage", "NOT_FOUND", answer))
    node.found = accounts("one", "two")
    with capture_logs():
        error = await refusal(node, a_request())
    assert (error.reason, error.message) == ("ErrImagePull", message)


async def test_a_failed_pull_names_the_secrets_that_could_not_be_read() -> None:
    node = Node()
    node.found = Found(missing_secrets=("regcred", "other"))
    await refusal(node, a_request())
    await refusal(node, a_request())
    assert node.reasons == ["Pulling", "Failed", "FailedToRetrieveImagePullSecret", "BackOff"]
    assert node.events[2] == (
        "Warning",
        "FailedToRetrieveImagePullSecret",
        "Unable to retrieve some image pull secrets (regcred, other); attempting to pull the image may not succeed.",
    )


async def test_a_pull_that_works_says_nothing_of_missing_secrets() -> None:
    node = Node()
    node.fake.add_image(IMAGE, present=False)
    node.found = Found(missing_secrets=("regcred",))
    await node.images.ensure(a_request())
    assert node.reasons == ["Pulling", "Pulled"]


async def test_a_secret_that_cannot_be_understood_fails_the_pull_and_is_named() -> None:
    node = Node()
    node.fake.add_image(IMAGE, present=False)
    node.found = InvalidLogins("secret shop/regcred, .dockercfg: no JSON")
    error = await refusal(node, a_request())
    assert (error.reason, error.message) == ("ErrImagePull", "secret shop/regcred, .dockercfg: no JSON")
    assert node.events == [("Warning", "Failed", f'Failed to pull image "{IMAGE}": {error.message}')]
    assert node.fake.pulls == []


@pytest.mark.parametrize(("per_handler", "told"), [(False, ""), (True, "gvisor")])
async def test_the_runtime_hears_of_the_pods_annotations_and_of_the_handler_where_images_differ(
    per_handler: bool, told: str
) -> None:
    node = Node(ImageSettings(per_handler=per_handler))
    node.fake.add_image(IMAGE, present=False)
    await node.images.ensure(a_request(handler="gvisor"))
    (pull,) = node.fake.pulls
    assert pull.image.runtime_handler == told
    assert dict(pull.image.annotations) == {"a": "b"}


async def test_pods_that_wait_for_the_same_image_are_served_by_one_pull() -> None:
    node = Node()
    node.fake.add_image(IMAGE, present=False)
    gate = node.fake.hang("PullImage")
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(node.images.ensure(a_request(uid=f"u-{n}"))) for n in range(5)]
        await gate.reached.wait()
        gate.release()
    assert len({task.result().id for task in asked}) == 1
    assert len(node.fake.pulls) == 1
    assert node.reasons.count("Pulled") == 5


@pytest.mark.parametrize(("max_parallel", "at_once"), [(1, 1), (3, 3), (None, 6)])
async def test_no_more_pulls_at_a_time_than_allowed(max_parallel: int | None, at_once: int) -> None:
    node = Node(ImageSettings(max_parallel))
    names = [f"registry.example/app:{number}" for number in range(6)]
    for name in names:
        node.fake.add_image(name, present=False)
    gate = node.fake.hang("PullImage", times=None)
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(node.images.ensure(a_request(name)))
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(node.fake.pulls) == at_once
        gate.release()
    assert len(node.fake.pulls) == 6


async def test_a_cancelled_pull_lets_the_next_one_go() -> None:
    node = Node()
    node.fake.add_image(IMAGE, present=False)
    gate = node.fake.hang("PullImage")
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(node.images.ensure(a_request()))
        await gate.reached.wait()
        first.cancel()
        image = await asyncio.wait_for(node.images.ensure(a_request(uid="u-2")), 5)
    assert image.id


async def test_more_pulls_than_the_rate_allows_fail_and_back_off() -> None:
    node = Node(ImageSettings(pull_qps=1.0, pull_burst=1))
    node.fake.add_image(IMAGE, present=False)
    node.fake.add_image("registry.example/app:2", present=False)
    await node.images.ensure(a_request())
    assert (await refusal(node, a_request("registry.example/app:2"))).message == "pull QPS exceeded"
    assert len(node.fake.pulls) == 1
