"""The numbers of dockershim itself, for Prometheus: calls served, calls to Docker, events, what the store has.

Owns the names of these metrics and the endpoint. Imported, and prometheus_client with it, only when a flag asks for
it: without the flag it costs no memory. Who has something to tell gets a plain callable. Upstream counterpart:
cri-dockerd registers metrics of its own that no endpoint shows. Deliberate difference: they can be had.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram, PlatformCollector, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cri_proto import runtime_v1 as cri
from dockershim.errors import ConfigError
from dockershim.store import Store
from dockershim.store.feeder import Feeder

_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)


class Metrics:
    """The registry, and what fills it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._rpcs = Histogram(
            "dockershim_rpc_duration_seconds",
            "Time of CRI calls by method and gRPC code; a stream counts when it ends.",
            ("method", "code"),
            buckets=_CALL_BUCKETS,
            registry=self.registry,
        )
        self._docker = Histogram(
            "dockershim_docker_call_duration_seconds",
            "Time of calls to Docker by kind and outcome.",
            ("call", "outcome"),
            buckets=_CALL_BUCKETS,
            registry=self.registry,
        )
        self._lag = Histogram(
            "dockershim_event_lag_seconds",
            "Time from Docker's stamp on an event until dockershim read it.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )

    def rpc_ended(self, method: str, code: str, seconds: float) -> None:
        """A CRI call was answered."""
        self._rpcs.labels(method, code).observe(seconds)

    def docker_called(self, call: str, failed: bool, seconds: float) -> None:
        """Docker answered, or failed to."""
        self._docker.labels(call, "error" if failed else "ok").observe(seconds)

    def event_read(self, lag_seconds: float) -> None:
        """An event arrived. The clocks of one host differ by nothing, but may be set back in between."""
        self._lag.observe(max(lag_seconds, 0.0))

    def show(self, store: Store, feeder: Feeder) -> None:
        """Show what the store has, as it is when somebody looks."""
        self.registry.register(_StoreCollector(store, feeder))

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """Answer GET /metrics until the returned function is called. Both block for a moment."""
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise ConfigError(f"--metrics-bind-addr {host}:{port}: {error.strerror or error}") from error

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return close


class _StoreCollector(Collector):
    """Reads the store in the thread of whoever asks."""

    def __init__(self, store: Store, feeder: Feeder) -> None:
        self._store = store
        self._feeder = feeder

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        sandboxes = Tally("ready" if view.ready else "notready" for view in list(self._store.sandboxes.values()))
        containers = Tally(
            cri.ContainerState.Name(view.item.state).removeprefix("CONTAINER_").lower()
            for view in list(self._store.containers.values())
        )
        yield _by_state("dockershim_sandboxes", "Sandboxes in the store.", sandboxes, ("ready", "notready"))
        yield _by_state(
            "dockershim_containers", "Containers in the store.", containers, ("created", "running", "exited", "unknown")
        )
        yield GaugeMetricFamily("dockershim_images", "Images in the store.", value=len(self._store.images))
        healthy = not self._feeder.trouble
        yield GaugeMetricFamily("dockershim_docker_ready", "Whether Docker answers.", value=float(healthy))


def _by_state(name: str, text: str, counts: Tally[str], states: tuple[str, ...]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=("state",))
    for state in states:
        family.add_metric((state,), counts[state])
    return family
