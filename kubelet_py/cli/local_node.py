"""The node agent of this machine as a person's commands find it: its configuration file, its pods, its log files.

Owns the way to the running agent: the configuration named by --config or KUBELET_PY_CONFIG says on which read-only port
it answers, where its logs are and which runtime it uses. Talks to loopback and to files only; needs no API server.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kubelet_py.config import HostTraits, KubeletConfiguration, load
from kubelet_py.errors import KubeletError

CONFIG_VARIABLE = "KUBELET_PY_CONFIG"
DEFAULT_CONFIG = "/var/lib/kubelet/config.yaml"
_REPLY_SECONDS = 10.0
_NOT_SERVED = (404, 405, 501)
# the agent is on this machine: a proxy of the environment would ask its own loopback
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class CommandError(KubeletError):
    """A command cannot be carried out; the message is for the person who typed it."""


@dataclass(frozen=True, slots=True)
class LocalNode:
    """The agent that runs with this configuration."""

    config: KubeletConfiguration

    def pods(self, namespace: str = "") -> list[dict[str, Any]]:
        """Every pod the agent knows, or those of one namespace, with their status."""
        try:
            listed = json.loads(self._get("/pods"))
        except ValueError:
            listed = None
        if not isinstance(listed, dict) or listed.get("kind") != "PodList":
            raise CommandError(
                f"what answers on readOnlyPort {self.config.readOnlyPort} is no kubelet: it lists no pods at /pods"
            )
        items: list[dict[str, Any]] = listed.get("items") or []
        return [pod for pod in items if namespace in ("", pod["metadata"].get("namespace"))]

    def pod(self, name: str, namespace: str) -> dict[str, Any]:
        """The pod of that name, in `default` without a namespace; a static pod may be named without its node."""
        namespace = namespace or "default"
        found = [pod for pod in self.pods() if _is_called(pod, name, namespace)]
        exact = [pod for pod in found if pod["metadata"]["name"] == name]
        if len(exact or found) != 1:
            known = ", ".join(sorted(pod["metadata"]["name"] for pod in self.pods())) or "none"
            raise CommandError(f"no single pod is called {name!r} in namespace {namespace!r}; there are: {known}")
        return (exact or found)[0]

    def story(self, pod: Mapping[str, Any]) -> str:
        """What the agent did for the pod, and why."""
        metadata = pod["metadata"]
        return self._get(f"/why/{quote(metadata['namespace'])}/{quote(metadata['name'])}")

    def log_file(self, pod: Mapping[str, Any], container: str, *, previous: bool = False) -> Path:
        """The newest log of a container, or the one before it."""
        metadata = pod["metadata"]
        own = f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
        directory = Path(self.config.podLogsDir) / own / container
        runs = sorted(
            (path for path in directory.glob("*.log") if path.stem.isdigit()), key=lambda path: int(path.stem)
        )
        if len(runs) < (2 if previous else 1):
            wanted = "earlier log" if previous else "log"
            raise CommandError(
                f"container {container!r} of pod {metadata['name']!r} has no {wanted} yet in {directory}"
            )
        return runs[-2 if previous else -1]

    def is_run_over(self, pod_uid: str, container: str, run: int) -> bool:
        """Whether nothing more comes of the container's run with that number, which its log file is named after."""
        try:
            pods = self.pods()
        except CommandError:
            return False  # the agent is being restarted, say; containers run on without it
        pod = next((pod for pod in pods if pod["metadata"]["uid"] == pod_uid), None)
        if pod is None:
            return True
        entry = next((entry for entry in statuses_of(pod) if entry["name"] == container), {})
        latest = entry.get("restartCount", 0)
        state = entry.get("state") or {}
        # while a new one waits to be started, the one before it is still the latest
        waits_again = "waiting" in state and "terminated" in (entry.get("lastState") or {})
        return latest > run or (latest == run and ("terminated" in state or waits_again))

    def _get(self, path: str) -> str:
        if not self.config.readOnlyPort:
            raise CommandError(
                "the agent has no read-only port: set readOnlyPort in its configuration to use this command"
            )
        address = self.config.address if self.config.address not in ("0.0.0.0", "::") else "127.0.0.1"
        url = f"http://{address}:{self.config.readOnlyPort}{path}"
        try:
            with _DIRECT.open(url, timeout=_REPLY_SECONDS) as reply:
                text: str = reply.read().decode()
                return text
        except urllib.error.HTTPError as error:
            if error.code in _NOT_SERVED:
                raise CommandError(f"this agent does not serve {url} ({error.code} {error.reason})") from error
            raise CommandError(f"{url}: {error.code} {error.reason}") from error
        except OSError as error:
            raise CommandError(f"{url}: nobody answers ({error}); does kubelet-py run?") from error


def find_local_node(config: str) -> LocalNode:
    """The node whose agent was started with this configuration file."""
    path = config or os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG
    # what the host is like was checked when the agent started
    return LocalNode(load([f"--config={path}", "--fail-cgroupv1=false"], host=HostTraits()).config)


def container_of(pod: Mapping[str, Any], name: str) -> str:
    """The container that is meant: the named one, or the first."""
    spec = pod.get("spec", {})
    names = [
        c["name"] for kind in ("containers", "initContainers", "ephemeralContainers") for c in spec.get(kind) or []
    ]
    if name and name not in names:
        raise CommandError(f"pod {pod['metadata']['name']!r} has no container {name!r}; it has {', '.join(names)}")
    return name or names[0]


def statuses_of(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The states of all its containers; none before the agent has looked at it."""
    status = pod.get("status") or {}
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    return [entry for kind in kinds for entry in status.get(kind) or []]


def _is_called(pod: Mapping[str, Any], name: str, namespace: str) -> bool:
    metadata = pod["metadata"]
    node = pod.get("spec", {}).get("nodeName", "")
    return metadata.get("namespace") == namespace and metadata["name"] in (name, f"{name}-{node.lower()}")
