"""Loop, workers and PLEG around the fake runtime: an agent whose sources are the test's."""

import asyncio
from dataclasses import replace
from typing import Any

from kubelet_py.api import core_v1
from kubelet_py.core.admission import NodeState
from kubelet_py.core.pod_worker import Phase, is_content_removable
from kubelet_py.core.source_merge import PodSet, SourceProblem
from kubelet_py.core.sysctl_rules import SysctlAllowlist
from kubelet_py.errors import ApiUnavailable
from kubelet_py.managers.container_gc import ContainerGc, GcSettings, PodKnowledge
from kubelet_py.managers.pleg import Pleg
from kubelet_py.sync.loop import Admission, LoopServices, SyncLoop
from kubelet_py.sync.observer import PodObserver
from kubelet_py.sync.pod_sync import PodSync
from kubelet_py.sync.pod_workers import PodWorkers
from kubelet_py.sync.preemptions import Preemptions
from kubelet_py.sync.sources.merge import SourceMerge
from tests.unit.kubelet_py.sync.rig import UID, Rig


class Agent:
    """Loop, workers and PLEG around the fake runtime."""

    def __init__(self, rig: Rig, sources: tuple[str, ...] = ("api",)) -> None:
        self.rig = rig
        self.node = NodeState("node-1", allocatable={"pods": "2", "cpu": "4", "memory": "4Gi"})
        self.node_at_server: NodeState | None = None
        """What a look at the API server shows; None while it cannot be reached."""
        self.looks_at_server = 0
        self.problems: list[SourceProblem] = []
        self.heard: list[tuple[int, bool]] = []
        self.pleg = Pleg(rig.fake, lambda *news: self.workers.wake_to_look(*news))
        observer = PodObserver(rig.fake, self.pleg.learn, rig.clock)
        preemptions = Preemptions(rig.event, asyncio.get_running_loop().time)
        self.workers = PodWorkers(
            PodSync(replace(rig.sync._services, observer=observer)),
            rig.statuses,
            preemptions=preemptions,
            alive_namesakes=self.pleg.alive_uids_named,
        )
        self.merge = SourceMerge(sources)
        self.loop = SyncLoop(
            LoopServices(
                workers=self.workers,
                preemptions=preemptions,
                merge=self.merge,
                pleg=self.pleg,
                volumes=rig.volumes,
                user_namespaces=rig.user_namespaces,
                cgroups=rig.cgroups,
                allocations=rig.allocations,
                statuses=rig.statuses,
                events=rig.event,
                node=rig.node,
                admission=Admission(lambda: self.node, SysctlAllowlist(frozenset()), self.look_at_server),
                on_static_pods=lambda all_pods, ready: self.heard.append((len(all_pods), ready)),
                on_problem=self.problems.append,
                clock_ns=rig.clock,
            )
        )

    async def look_at_server(self) -> None:
        self.looks_at_server += 1
        await asyncio.sleep(0.1)
        if self.node_at_server is None:
            raise ApiUnavailable(0, "Unreachable", "GET nodes/node-1: connection refused")
        self.node = self.node_at_server

    def container_gc(self) -> ContainerGc:
        """As the agent has it; it is not part of `run`, since most tests are over before it looks."""

        def is_gone(uid: str) -> bool:
            return is_content_removable(self.workers.state(uid), self.merge.ready)

        knowledge = PodKnowledge(is_gone, lambda: self.merge.ready)
        return ContainerGc(self.rig.fake, knowledge, GcSettings(self.rig.logs, self.rig.links))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for work in (self.pleg.run(), self.workers.run(), self.loop.run()):
                tasks.create_task(work)

    async def has(self, *given: core_v1.Pod, **fields: Any) -> None:
        """The API server has these pods now."""
        await self.loop.accept(PodSet("api", given, **fields))
        await asyncio.sleep(0.5)

    def phase(self, uid: str = UID) -> Phase | None:
        state = self.workers.state(uid)
        return state.phase if state is not None else None
