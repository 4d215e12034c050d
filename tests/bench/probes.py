"""`python -m tests.bench.probes`: what many probes cost the agent, and how late they come.

The scheduler and the transport are the agent's own; the containers are one small server in a process of its own, so
that only the agent's side is counted. One second is the shortest period that Kubernetes allows.
"""

import argparse
import asyncio
import contextlib
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import Process, Queue
from typing import Any

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.core.observed import ContainerState, ObservedContainer
from kubelet_py.cri import connect
from kubelet_py.managers.prober import NetworkProbes, ProbeHooks, ProbeManager
from kubelet_py.managers.prober.transport import ProbeAnswer, ProbeTarget

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nok"
WARM_UP_SECONDS = 3.0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.probes", description=__doc__)
    parser.add_argument("--probes", type=int, default=500, help="probes with a period of one second (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each kind is measured (%(default)s)")
    options = parser.parse_args()
    print("| kind | probes a second | of one core | late p50 | late p99 |\n|---|---|---|---|---|")
    with _server() as port:
        for kind, probe in (
            ("TCP", core_v1.Probe(tcpSocket=core_v1.TCPSocketAction(port=port))),
            ("HTTP", core_v1.Probe(httpGet=core_v1.HTTPGetAction(port=port, path="/healthz"))),
        ):
            probe.periodSeconds = 1
            print(asyncio.run(_measure(kind, probe, options.probes, options.seconds)))
    return 0


async def _measure(kind: str, probe: core_v1.Probe, count: int, seconds: float) -> str:
    client = connect("unix:///nonexistent")
    clocked = _Clocked(NetworkProbes(client))
    manager = ProbeManager(clocked, ProbeHooks(_nothing, _nothing, lambda uid: None, time.time_ns()))
    for number in range(count):
        manager.sync_pod(_pod(number, probe), [_container(number)], ("127.0.0.1",))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(manager.run())
        await asyncio.sleep(WARM_UP_SECONDS)
        clocked.begun.clear()
        cpu, began = _cpu_seconds(), time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        share = (_cpu_seconds() - cpu) / took
        running.cancel()
    await client.close()
    late = sorted(clocked.lateness())
    p50, p99 = statistics.median(late), late[int(len(late) * 0.99)]
    return f"| {kind} | {len(late) / took:.0f} | {share:.1%} | {p50 * 1000:.0f} ms | {p99 * 1000:.0f} ms |"


class _Clocked:
    """Notes when each probe begins."""

    def __init__(self, transport: NetworkProbes) -> None:
        self._transport = transport
        self.begun: dict[str, list[float]] = {}

    async def ask(self, target: ProbeTarget) -> ProbeAnswer:
        self.begun.setdefault(target.container_id, []).append(time.monotonic())
        return await self._transport.ask(target)

    def lateness(self) -> Iterator[float]:
        """How much later each came than the most punctual of its probe, whole periods left aside."""
        for times in self.begun.values():
            offsets = [(moment - times[0] + 0.5) % 1.0 - 0.5 for moment in times]
            for offset in offsets:
                yield offset - min(offsets)


def _pod(number: int, probe: core_v1.Probe) -> core_v1.Pod:
    container = core_v1.Container(name="main", image="i", livenessProbe=probe)
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(name=f"p{number}", namespace="default", uid=f"uid-{number}"),
        spec=core_v1.PodSpec(containers=[container]),
    )


def _container(number: int) -> ObservedContainer:
    return ObservedContainer(
        id=f"c{number}",
        name="main",
        sandbox_id=f"s{number}",
        state=ContainerState.RUNNING,
        started_at_ns=time.time_ns() - 10**9,
    )


def _nothing(*_: Any) -> None:
    pass


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def _server() -> Iterator[int]:
    ports: Queue[int] = Queue()
    process = Process(target=_serve, args=(ports.put,), daemon=True)
    process.start()
    try:
        yield ports.get(timeout=10)
    finally:
        process.terminate()
        process.join()


def _serve(tell: Callable[[int], None]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            if await reader.read(4096):
                writer.write(ANSWER)
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
        tell(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    sys.exit(main())
