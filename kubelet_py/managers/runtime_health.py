"""Asks the runtime how it is, each five seconds, and keeps the answer for everybody else.

Until the first good answer, and while something is wrong, it asks twice a second, so that pods start as soon as they
can. The images are listed by a task of their own: an image service that hangs says nothing about the runtime, and must
not keep it from being asked. Upstream counterparts: updateRuntimeUp in pkg/kubelet/kubelet.go, Start in
pkg/kubelet/images/image_gc_manager.go.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.core.node_rules import RuntimeState, runtime_state
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import RuntimeCallError

log = structlog.get_logger()

POLL_SECONDS = 5.0
POLL_WHILE_UNWELL_SECONDS = 0.5
DOWN_AFTER_SECONDS = 30.0
IMAGES_SECONDS = 60.0


class RuntimeHealth:
    """The runtime's last word about itself. `on_change` is told when it became well or unwell."""

    def __init__(
        self,
        client: RuntimeClient,
        endpoint: str,
        on_change: Callable[[bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._on_change = on_change
        self._clock = clock
        self._version: cri.VersionResponse | None = None
        self._state = RuntimeState()
        self._network_problem: str | None = "the runtime has not answered yet"
        self._last_good: float | None = None
        self._images: list[core_v1.ContainerImage] = []
        self._was_well = False
        self._may_be_another = False
        """The runtime was away: it may have been replaced by another version meanwhile."""
        self._said: set[str] = set()
        """The kinds of trouble that were told since the runtime was well."""
        self.answered = asyncio.Event()
        """Set once the runtime has answered for the first time."""

    @property
    def state(self) -> RuntimeState:
        """What the node status shows."""
        return self._state

    @property
    def images(self) -> list[core_v1.ContainerImage]:
        """The images of the node as of the last minute, or as of when its image service last answered."""
        return self._images

    @property
    def type(self) -> str:
        """What stands before :// in container ids."""
        return self._version.runtime_name if self._version is not None else "unknown"

    def network_problem(self) -> str | None:
        """Why no pod can get a network, or None."""
        return self._network_problem

    async def run(self) -> None:
        """Endless."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_state(), name="runtime-state")
            tasks.create_task(self._follow_images(), name="runtime-images")

    async def _follow_state(self) -> None:
        while True:
            await self._ask()
            well = not self._state.problems
            if well != self._was_well:
                self._was_well = well
                self._on_change(well)
            await asyncio.sleep(POLL_SECONDS if well else POLL_WHILE_UNWELL_SECONDS)

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(DOWN_AFTER_SECONDS):
                if self._version is None or self._may_be_another:
                    self._version = await self._client.version()
                status = await self._client.status()
        except RuntimeCallError as error:
            self._unwell(str(error))
            return
        except TimeoutError:
            self._unwell(f"no answer within {DOWN_AFTER_SECONDS:.0f} s")
            return
        self._may_be_another = False
        self._last_good = self._clock()
        self._state = runtime_state(self._version, status)
        network = next((c for c in status.status.conditions if c.type == "NetworkReady"), None)
        self._network_problem = None
        if network is None or not network.status:
            self._network_problem = network.message or network.reason if network is not None else "not reported"
        self.answered.set()
        if self._state.problems:
            unmet = sorted(condition.type for condition in status.status.conditions if not condition.status)
            self._say_trouble(" ".join(unmet), "; ".join(self._state.problems))
        else:
            self._say_well()

    async def _follow_images(self) -> None:
        await self.answered.wait()
        while True:
            listed = await self._list_images()
            await asyncio.sleep(IMAGES_SECONDS if listed else POLL_SECONDS)

    async def _list_images(self) -> bool:
        try:
            found = await self._client.list_images()
        except RuntimeCallError as error:
            log.debug("image_list_failed", error=str(error))
            return False
        self._images = [
            core_v1.ContainerImage(names=[*image.repo_digests, *image.repo_tags], sizeBytes=image.size)
            for image in found
        ]
        return True

    def _unwell(self, error: str) -> None:
        """One bad answer is no illness: only after half a minute the node says that the runtime is down."""
        self._may_be_another = True
        silent = self._last_good is None or self._clock() - self._last_good >= DOWN_AFTER_SECONDS
        if silent:
            self._state = replace(self._state, problems=(f"container runtime is down: {error}",))
            self._network_problem = f"container runtime is down: {error}"
        self._say_trouble("no answer", f"no answer: {error}")

    def _say_trouble(self, kind: str, problem: str) -> None:
        """Each kind of trouble once until the runtime is well, however it is worded and however often it comes back."""
        if kind not in self._said:
            self._said.add(kind)
            log.warning("runtime_not_ready", endpoint=self._endpoint, problem=problem, consequence="no pod can start")

    def _say_well(self) -> None:
        """The end of the trouble, when some was told."""
        if self._said:
            self._said.clear()
            version = self._version.runtime_version if self._version is not None else ""
            log.info("runtime_ready", endpoint=self._endpoint, runtime=self.type, version=version)
