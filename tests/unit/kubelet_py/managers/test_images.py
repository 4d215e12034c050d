"""Images are there when their containers start, by the policies, with back-off, and with the events people look for."""

import asyncio

import pytest
from structlog.testing import capture_logs

from cri_proto import runtime_v1 as cri
from kubelet_py.api import codec, core_v1
from kubelet_py.errors import RuntimeCallError, RuntimeNotFound, SyncError
from kubelet_py.kube.rate_limit import TokenBucket
from kubelet_py.managers.images import ImageRequest, Images, PullBackOff
from tests.fakes.runtime import FakeRuntimeClient

IMAGE = "registry.example/app:1"


class Node:
    """A runtime, its image manager and a clock that stands still."""

    def __init__(self, max_parallel: int | None = 1, pull_rate: TokenBucket | None = None) -> None:
        self.now = 1000.0
        self.fake = FakeRuntimeClient()
        self.events: list[tuple[str, str, str]] = []
        self.images = Images(self.fake, self.event, max_parallel, pull_rate=pull_rate, clock=lambda: self.now)

    def event(self, pod: core_v1.Pod, kind: str, reason: str, message: str, container_name: str = "", /) -> None:
        assert container_name == "main"
        self.events.append((kind, reason, message))

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason, _ in self.events]


def a_request(
    image: str = IMAGE, policy: str = "IfNotPresent", uid: str = "u-1", credentials: tuple[cri.AuthConfig, ...] = ()
) -> ImageRequest:
    pod = codec.from_builtins(core_v1.Pod, {"metadata": {"name": "web", "namespace": "shop", "uid": uid}})
    return ImageRequest(pod, "main", image, policy, credentials=credentials)


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
    message = f'Container image "{IMAGE}" already present on machine and can be accessed by the pod'
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
        ("RegistryUnavailable: no route to host", "RegistryUnavailable", "no route to host"),
        ("SignatureValidationFailed: no signature", "SignatureValidationFailed", "no signature"),
        ("connection refused", "ErrImagePull", "connection refused"),
        ("", "ErrImagePull", "PullImage:  (UNKNOWN)"),
    ],
)
async def test_the_runtimes_reason_is_kept(detail: str, reason: str, message: str) -> None:
    node = Node()
    node.fake.fail("PullImage", RuntimeCallError("PullImage", "UNKNOWN", detail))
    error = await refusal(node, a_request())
    assert (error.reason, error.message) == (reason, message)


async def test_credentials_are_tried_in_turn() -> None:
    node = Node()
    node.fake.add_image(IMAGE, present=False)
    node.fake.fail("PullImage", RuntimeCallError("PullImage", "UNKNOWN", "401 unauthorized"))
    with capture_logs() as logs:
        accounts = (cri.AuthConfig(username="one"), cri.AuthConfig(username="two"))
        await node.images.ensure(a_request(credentials=accounts))
    assert [pull.auth.username for pull in node.fake.pulls] == ["one", "two"]
    assert node.reasons == ["Pulling", "Pulled"]
    assert "one" not in str([entry for entry in logs if entry["event"] == "image_pull_credential_failed"])


async def test_the_last_credential_says_what_is_wrong() -> None:
    node = Node()
    node.fake.fail("PullImage", RuntimeNotFound("PullImage", "NOT_FOUND", "first"))
    node.fake.fail("PullImage", RuntimeNotFound("PullImage", "NOT_FOUND", "second"))
    with capture_logs():
        error = await refusal(node, a_request(credentials=(cri.AuthConfig(), cri.AuthConfig())))
    assert error.message == "second"


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
    node = Node(max_parallel)
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
    bucket = TokenBucket(1.0, 1)
    node = Node(pull_rate=bucket)
    node.fake.add_image(IMAGE, present=False)
    node.fake.add_image("registry.example/app:2", present=False)
    await node.images.ensure(a_request())
    assert (await refusal(node, a_request("registry.example/app:2"))).message == "pull QPS exceeded"
    assert len(node.fake.pulls) == 1
