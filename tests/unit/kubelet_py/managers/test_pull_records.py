"""What was pulled with which credentials outlives the agent wherever it is killed, and says who may use an image."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kubelet_py.api import codec, core_v1
from kubelet_py.core.keyring import Credential, Login, SecretSource
from kubelet_py.core.pull_records import (
    Access,
    Verification,
    VerificationPolicy,
    decode_record,
    encode_intent,
    file_name,
)
from kubelet_py.errors import RuntimeCallError, RuntimeUnavailable, SyncError
from kubelet_py.managers.images import ImageRequest, Images, ImageSettings
from kubelet_py.managers.images.credentials import Found
from kubelet_py.managers.images.records import PullRecords
from tests.fakes.runtime import FakeRuntimeClient

IMAGE = "r.example/app:1"
NOW = datetime(2026, 11, 26, 2, 3, 4, tzinfo=UTC)
ONE = Credential(Login("u", "p"), SecretSource("uid-1", "shop", "one"))
TWO = Credential(Login("v", "q"), SecretSource("uid-2", "shop", "two"))


class Node:
    """A runtime, files, and an agent that can be killed."""

    def __init__(self, root: Path, verification: Verification = Verification.NOT_PRELOADED) -> None:
        self.root = root
        self.policy = VerificationPolicy(verification)
        self.now = NOW
        self.fake = FakeRuntimeClient()
        self.events: list[tuple[str, str]] = []
        self.own: tuple[Credential, ...] = ()
        self.found = 0

    async def boot(self) -> None:
        """An agent that remembers nothing but the files."""
        self.records = PullRecords(self.root, self.policy, lambda: self.now)
        self.images = Images(self.fake, self.event, self, ImageSettings(max_parallel=None), self.records)
        await self.images.prepare()

    async def find(self, pod: core_v1.Pod, name: str) -> Found:
        self.found += 1
        return Found(self.own)

    def event(self, pod: core_v1.Pod, kind: str, reason: str, message: str, container_name: str = "", /) -> None:
        self.events.append((reason, message))

    async def start(self, *own: Credential, policy: str = "IfNotPresent") -> int:
        """A pod with these credentials gets the image; how many pulls that took."""
        self.own = own
        pod = codec.from_builtins(core_v1.Pod, {"metadata": {"name": "a", "namespace": "shop", "uid": "u"}})
        before = len(self.fake.pulls)
        await self.images.ensure(ImageRequest(pod, "main", IMAGE, policy))
        return len(self.fake.pulls) - before

    @property
    def intents(self) -> list[str]:
        return sorted(os.listdir(self.root / "image_manager/pulling"))

    @property
    def pulled(self) -> list[str]:
        return sorted(os.listdir(self.root / "image_manager/pulled"))


@pytest.fixture
async def node(tmp_path: Path) -> Node:
    node = Node(tmp_path)
    await node.boot()
    return node


async def test_an_image_that_was_there_before_is_everybodys(node: Node) -> None:
    node.fake.add_image(IMAGE)
    assert await node.start() == 0
    assert node.events == [
        ("Pulled", f'Container image "{IMAGE}" already present on machine and can be accessed by the pod')
    ]
    assert node.found == 0


async def test_a_secret_opens_what_it_pulled_and_another_pod_must_pull_itself(node: Node) -> None:
    node.fake.add_image(IMAGE, present=False)
    assert await node.start(ONE) == 1
    assert await node.start(ONE) == 0
    assert await node.start(TWO) == 1
    assert await node.start(TWO) == 0
    node.fake.fail("PullImage", RuntimeCallError("PullImage", "UNKNOWN", "denied"), times=None)
    with pytest.raises(SyncError) as caught:
        await node.start()
    assert caught.value.reason == "ErrImagePull"
    assert await node.start(ONE) == 0


async def test_never_does_not_tell_whether_a_foreign_image_is_there(node: Node) -> None:
    node.fake.add_image(IMAGE, present=False)
    await node.start(ONE)
    assert await node.start(ONE, policy="Never") == 0
    with pytest.raises(SyncError) as caught:
        await node.start(TWO, policy="Never")
    assert caught.value.reason == "ErrImageNeverPull"
    assert caught.value.message == f'Container image "{IMAGE}" is not present with pull policy of Never'
    assert node.events[-1] == ("ErrImageNeverPull", caught.value.message)


async def test_what_needed_no_credential_is_everybodys(node: Node) -> None:
    node.fake.add_image(IMAGE, present=False)
    assert await node.start() == 1
    assert await node.start(TWO) == 0
    assert await node.start() == 0


async def test_the_record_outlives_the_agent(node: Node) -> None:
    image = node.fake.add_image(IMAGE, present=False)
    await node.start(ONE)
    await node.boot()
    assert (node.intents, node.pulled) == ([], [file_name(image.id)])
    file = node.root / "image_manager/pulled" / file_name(image.id)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert await node.start(ONE) == 0
    assert await node.start(TWO) == 1


async def test_a_renewed_secret_and_a_copy_are_learned(node: Node) -> None:
    image = node.fake.add_image(IMAGE, present=False)
    await node.start(ONE)
    renewed = Credential(Login("u", "new"), ONE.source)
    copy = Credential(renewed.login, SecretSource("uid-3", "other", "copy"))
    assert await node.start(renewed) == 0
    await node.boot()
    assert await node.start(copy) == 0
    record = decode_record((node.root / "image_manager/pulled" / file_name(image.id)).read_bytes())
    assert [secret.name for secret in record.credentialMapping["r.example/app"].kubernetesSecrets] == ["copy", "one"]


async def test_killed_while_the_pull_ran_the_image_belongs_to_nobody(node: Node) -> None:
    """The runtime finished it: the intent becomes a record that names no credentials."""
    node.fake.add_image(IMAGE, present=False)
    await node.records.begin(IMAGE)
    node.fake.add_image(IMAGE)
    await node.boot()
    assert (len(node.intents), len(node.pulled)) == (0, 1)
    assert await node.start(ONE) == 1
    assert await node.start(ONE) == 0


async def test_killed_before_the_image_came_the_intent_stays(node: Node) -> None:
    await node.records.begin(IMAGE)
    await node.boot()
    assert (len(node.intents), len(node.pulled)) == (1, 0)
    node.fake.add_image(IMAGE)
    assert await node.start(ONE) == 1
    assert (len(node.intents), len(node.pulled)) == (0, 1)


async def test_killed_between_the_record_and_the_end_of_the_intent(node: Node) -> None:
    node.fake.add_image(IMAGE, present=False)
    await node.start(ONE)
    intent = node.root / "image_manager/pulling" / file_name(IMAGE)
    intent.write_bytes(encode_intent(IMAGE))
    await node.boot()
    assert node.intents == []
    assert await node.start(ONE) == 0


async def test_a_runtime_that_cannot_list_leaves_the_intents(node: Node) -> None:
    await node.records.begin(IMAGE)
    node.fake.fail("ListImages")
    with capture_logs() as logs:
        await node.boot()
    assert [entry["event"] for entry in logs] == ["unfinished_pulls_not_looked_up"]
    assert node.records.access(IMAGE, "sha256:abc") is Access.DENIED


@pytest.mark.parametrize(
    ("error", "intents"),
    [
        (RuntimeCallError("PullImage", "UNKNOWN", "denied"), 0),
        (RuntimeUnavailable("PullImage", "UNAVAILABLE", "gone"), 1),
    ],
)
async def test_a_failed_pull_leaves_an_intent_only_where_nobody_knows_the_end(
    node: Node, error: Exception, intents: int
) -> None:
    node.fake.add_image(IMAGE, present=False)
    node.fake.fail("PullImage", error)
    with pytest.raises(SyncError):
        await node.start(ONE)
    assert len(node.intents) == intents


async def test_a_pull_that_is_broken_off_leaves_its_intent(node: Node) -> None:
    node.fake.add_image(IMAGE, present=False)
    gate = node.fake.hang("PullImage")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(node.start(ONE))
        await gate.reached.wait()
        task.cancel()
    assert len(node.intents) == 1
    node.fake.add_image(IMAGE)
    assert await node.start(TWO) == 1
    assert node.intents == []


async def test_the_intent_stays_while_another_pod_pulls(node: Node) -> None:
    node.fake.add_image(IMAGE, present=False)
    gate = node.fake.hang("PullImage")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(node.start(ONE, policy="Always"))
        await gate.reached.wait()
        assert await node.start(TWO, policy="Always") == 1
        assert (len(node.intents), len(node.pulled)) == (1, 1)
        gate.release()
    assert node.intents == []
    assert await node.start(ONE) == await node.start(TWO) == 0


async def test_what_cannot_be_written_down_is_not_pulled(node: Node) -> None:
    node.fake.add_image(IMAGE, present=False)
    pulling = node.root / "image_manager/pulling"
    pulling.rmdir()
    pulling.write_text("in the way")
    with pytest.raises(SyncError, match="Failed to record image pull intent") as caught:
        await node.start(ONE)
    assert caught.value.reason == "ErrImagePull"
    assert node.fake.pulls == []


async def test_a_pull_that_cannot_be_recorded_works_and_closes_the_image(node: Node) -> None:
    node.fake.add_image(IMAGE, present=False)
    pulled = node.root / "image_manager/pulled"
    pulled.rmdir()
    pulled.write_text("in the way")
    with capture_logs() as logs:
        assert await node.start(ONE) == 1
    assert [entry["event"] for entry in logs] == ["pull_not_recorded"]
    assert len(node.intents) == 1
    pulled.unlink()
    assert await node.start(ONE) == 1
    assert (len(node.intents), len(node.pulled)) == (0, 1)


async def test_an_intent_that_cannot_be_removed_is_told(node: Node) -> None:
    node.fake.add_image(IMAGE, present=False)
    gate = node.fake.hang("PullImage")
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(node.start(ONE))
            await gate.reached.wait()
            intent = node.root / "image_manager/pulling" / file_name(IMAGE)
            intent.unlink()
            intent.mkdir()
            gate.release()
    assert [entry["event"] for entry in logs] == ["pull_record_stays"]


async def test_files_that_cannot_be_read_close_their_images(node: Node) -> None:
    image = node.fake.add_image(IMAGE)
    file = node.root / "image_manager/pulled" / file_name(image.id)
    file.write_text("{")
    (node.root / "image_manager/pulling/sha256-0").write_text("{")
    (node.root / "image_manager/pulled/sha256-1").mkdir()
    (node.root / "image_manager/pulled/sha256-2.tmp").write_text("{")
    with capture_logs() as logs:
        await node.boot()
    assert sorted(Path(entry["file"]).name for entry in logs) == ["sha256-0", file.name]
    assert await node.start(ONE) == 1
    assert await node.start(ONE) == 0
    assert decode_record(file.read_bytes()).imageRef == image.id


async def test_records_go_with_their_images(node: Node) -> None:
    image = node.fake.add_image(IMAGE, present=False)
    await node.start(ONE)
    file = node.root / "image_manager/pulled" / file_name(image.id)
    broken = node.root / "image_manager/pulled/sha256-0"
    broken.write_text("{")
    with capture_logs():
        await node.boot()
    await node.records.prune([image.id], NOW + timedelta(hours=1))
    assert file.exists()
    assert not broken.exists()
    await node.records.prune([], NOW)
    assert file.exists()
    kept = file.read_bytes()
    file.unlink()
    file.mkdir()
    with capture_logs() as logs:
        await node.records.prune([], NOW + timedelta(seconds=1))
    assert [entry["event"] for entry in logs] == ["pull_record_stays"]
    file.rmdir()
    file.write_bytes(kept)
    await node.records.prune([], NOW + timedelta(seconds=1))
    assert not file.exists()
    assert await node.start(TWO) == 0


async def test_a_record_of_another_image_opens_nothing(node: Node) -> None:
    assert not await node.records.opens(IMAGE, "sha256:abc", (ONE,))


async def test_always_verify_closes_also_what_was_there_before(tmp_path: Path) -> None:
    node = Node(tmp_path, Verification.ALWAYS)
    await node.boot()
    node.fake.add_image(IMAGE)
    assert await node.start(ONE) == 1
    assert await node.start(ONE) == 0
