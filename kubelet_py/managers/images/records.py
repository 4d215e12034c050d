"""Keeps the records of pulls: on disk where the Go kubelet keeps them, and in memory.

Owns the files below `image_manager` in the agent's directory and the order that makes a crash harmless: intent, pull,
record, intent gone. This agent is the only writer, so what is in memory is what is on disk. `core.pull_records` says
what a record means.

Upstream counterparts: pkg/kubelet/images/pullmanager (image_pull_manager.go, fs_pullrecords.go, mem_pullrecords.go).
Differences: an intent is left where a pull was broken off, because the runtime may finish it all the same; a record
goes when its image has left the node, and not when it is merely in use at a garbage collection.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol, TypeVar

import structlog

from cri_proto import runtime_v1 as cri
from kubelet_py.core import pull_records
from kubelet_py.core.image_rules import canonical, without_tag
from kubelet_py.core.keyring import Credential
from kubelet_py.core.pull_records import Access, InvalidRecord, PulledRecord, RecordedCredentials, VerificationPolicy
from kubelet_py.errors import RuntimeCallError
from kubelet_py.host.files import write_atomic

_FILE_PREFIX: Final = "sha256-"
_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600

log = structlog.get_logger()
T = TypeVar("T")


class ImageLister(Protocol):
    """The part of the CRI client that is needed."""

    async def list_images(self) -> list[cri.Image]:
        """All images."""


class PullRecords:
    """Which image was pulled with what. `prepare` comes first."""

    def __init__(
        self, root_dir: Path, policy: VerificationPolicy, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._pulling = root_dir / "image_manager" / "pulling"
        self._pulled = root_dir / "image_manager" / "pulled"
        self._policy = policy
        self._clock = clock
        self._records: dict[str, PulledRecord | None] = {}
        """By file name; None: a file that cannot be read, which proves that somebody pulled and nothing else."""
        self._intents: set[str] = set()
        self._under_way: Counter[str] = Counter()
        self._writing = asyncio.Lock()

    async def prepare(self, client: ImageLister) -> None:
        """Reads the files; pulls that a crash kept from being recorded become records without credentials."""
        await asyncio.to_thread(self._load)
        if not self._intents:
            return
        begun = {canonical(image): image for image in self._intents}
        try:
            images = await client.list_images()
        except RuntimeCallError as error:
            effect = "images of unfinished pulls stay closed to pods without credentials"
            log.warning("unfinished_pulls_not_looked_up", error=str(error), effect=effect)
            return
        for image in images:
            for spelling in (*image.repo_tags, *image.repo_digests):
                intent = begun.get(canonical(spelling))
                if intent is not None:
                    await self._write_record(image.id, without_tag(intent), None)
                    await self._forget_intent(intent)

    def access(self, image: str, image_ref: str) -> Access:
        """Whether a pod may use the image that is there; `image` as the pod spells it."""
        key = pull_records.file_name(image_ref)
        by_agent = key in self._records or image in self._intents
        return pull_records.compute_access(image, self._records.get(key), by_agent, self._policy)

    async def opens(self, image: str, image_ref: str, own: Sequence[Credential]) -> bool:
        """Whether one of the pod's credentials is on the record. A secret that is new to it is added."""
        record = self._records.get(pull_records.file_name(image_ref))
        known = record.credentialMapping.get(without_tag(image)) if record is not None else None
        match = pull_records.match_credentials(known or RecordedCredentials(), own)
        if match.learned is not None:
            await self._try_record(image_ref, without_tag(image), match.learned)
        return match.found

    async def begin(self, image: str) -> None:
        """A pull begins. OSError when that cannot be written down; then it must not begin."""
        async with self._writing:
            data = pull_records.encode_intent(image)
            await asyncio.to_thread(_write, self._pulling / pull_records.file_name(image), data)
            self._intents.add(image)
            self._under_way[image] += 1

    async def succeed(self, image: str, image_ref: str, credential: Credential | None) -> None:
        """It worked. What cannot be written down stays an intent, and the next start makes a record of it."""
        if await self._try_record(image_ref, without_tag(image), credential):
            await self.fail(image)
        else:
            self.break_off(image)

    async def fail(self, image: str) -> None:
        """It did not work."""
        self.break_off(image)
        if image not in self._under_way:
            await self._forget_intent(image)

    def break_off(self, image: str) -> None:
        """Nobody waits for it any more, and nobody knows how it ends."""
        self._under_way[image] -= 1
        if self._under_way[image] <= 0:
            del self._under_way[image]

    async def prune(self, image_refs: Collection[str], before: datetime) -> None:
        """Records of images that are gone, unless younger than the list of those that are there."""
        kept = {pull_records.file_name(image_ref) for image_ref in image_refs}
        async with self._writing:
            for key, record in list(self._records.items()):
                if key not in kept and (record is None or record.lastUpdatedTime < before):
                    if not await asyncio.to_thread(_unlink, self._pulled / key):
                        return
                    del self._records[key]

    async def _try_record(self, image_ref: str, name: str, credential: Credential | None) -> bool:
        try:
            await self._write_record(image_ref, name, pull_records.recorded(credential))
        except OSError as error:
            effect = "pods must show their credentials again"
            log.error("pull_not_recorded", image=name, image_ref=image_ref, error=str(error), effect=effect)
            return False
        return True

    async def _write_record(self, image_ref: str, name: str, credentials: RecordedCredentials | None) -> None:
        key = pull_records.file_name(image_ref)
        async with self._writing:
            old = self._records.get(key)
            new = pull_records.merge_record(old, image_ref, name, credentials, self._clock())
            if new is not old:
                await asyncio.to_thread(_write, self._pulled / key, pull_records.encode_record(new))
                self._records[key] = new

    async def _forget_intent(self, image: str) -> None:
        async with self._writing:
            if image in self._under_way:
                return
            if await asyncio.to_thread(_unlink, self._pulling / pull_records.file_name(image)):
                self._intents.discard(image)

    def _load(self) -> None:
        """Blocking."""
        for directory in (self._pulling, self._pulled):
            directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        self._records = _read_all(self._pulled, pull_records.decode_record)
        self._intents = {image for image in _read_all(self._pulling, pull_records.decode_intent).values() if image}


def _read_all(directory: Path, decode: Callable[[bytes], T]) -> dict[str, T | None]:
    found: dict[str, T | None] = {}
    for path in sorted(directory.glob(f"{_FILE_PREFIX}*")):
        if path.suffix == ".tmp" or not path.is_file():
            continue
        try:
            found[path.name] = decode(path.read_bytes())
        except (OSError, InvalidRecord) as error:
            log.warning(
                "pull_record_unreadable", file=str(path), error=str(error), effect="credentials are asked for again"
            )
            found[path.name] = None
    return found


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    write_atomic(path, data, _FILE_MODE)


def _unlink(path: Path) -> bool:
    """Whether the file is gone."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("pull_record_stays", file=str(path), error=str(error))
        return False
    return True
