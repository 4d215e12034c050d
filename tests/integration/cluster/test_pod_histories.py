"""Pods of a few names that are made, changed, deleted and made again in a random order, on a real node.

The seed is printed; HISTORY_SEED in the environment plays that history again. tests/unit/kubelet_py/sync has many
more histories in virtual time, with faults; here are a real API server, runtime and files. What holds here holds of
the Go kubelet too: KUBELET=go runs the same histories with it.
"""

from __future__ import annotations

import functools
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.cluster.objects import SLEEP, container, pod
from tests.integration.cluster.stage import NODE, PLAYS_GO, PODS, Stage
from tests.integration.cluster.waiting import eventually, holds
from tests.lab.lab import BUSYBOX

pytestmark = pytest.mark.lab

STEPS = 40
RUNNING = 1
UID, POD_NAME, CONTAINER_NAME = (f"io.kubernetes.{key}" for key in ("pod.uid", "pod.name", "container.name"))
NO_IMAGE = f"{BUSYBOX}-none"
STUBBORN = 'trap "" TERM; while true; do sleep 1; done'


class History:
    """What the API server and the manifest directory were told, and what may be seen meanwhile."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.random = random.Random(seed)
        self.names = [stage.unique("history") for _ in range(3)]
        self.manifest = stage.unique("static")
        self.words = 0
        self.has_manifest = False
        self.story: list[str] = []
        self.steps: tuple[Callable[[], str], ...] = (
            self.make, self.make, self.change_image, self.change_label, self.delete, self.delete, self.replace,
            self.write_manifest, self.remove_manifest, self.wait_ready, self.wait_seen, self.wait_gone,
        )  # fmt: skip

    def play(self) -> None:
        """All steps; after each the runtime is looked at."""
        for _ in range(STEPS):
            self.story.append(self.random.choice(self.steps)())
            self.look()

    def look(self) -> None:
        """No container of a pod runs twice, and no two static pods of one name run."""
        running = [c for c in self.stage.containers() if c.state == RUNNING]
        copies = Counter((c.labels[UID], c.labels[CONTAINER_NAME]) for c in running)
        assert not [key for key, count in copies.items() if count > 1], self.story
        static_name = f"{self.manifest}-{NODE}"
        assert len({c.labels[UID] for c in running if c.labels[POD_NAME] == static_name}) <= 1, self.story

    # What may happen

    def make(self) -> str:
        name = self.random.choice(self.names)
        script = self.random.choice((SLEEP, SLEEP, STUBBORN))
        grace_seconds = self.random.choice((1, 3))
        wanted = pod(name, container(script))
        wanted["spec"]["terminationGracePeriodSeconds"] = grace_seconds
        code, _ = self.stage.cluster.request("POST", PODS, wanted)
        assert code in (201, 409)
        return f"make {name}: {code}"

    def change_image(self) -> str:
        name, image = self.random.choice(self.names), self.random.choice((NO_IMAGE, BUSYBOX))
        return f"image of {name} is {image}: {self.change(name, lambda found: set_image(found, image))}"

    def change_label(self) -> str:
        name, value = self.random.choice(self.names), str(self.random.random())
        return f"label of {name}: {self.change(name, lambda found: set_label(found, value))}"

    def change(self, name: str, change: Callable[[dict[str, Any]], None]) -> int:
        """Reads and writes; somebody may have been faster, or the pod is gone."""
        found = self.stage.find_pod(name)
        if found is None:
            return 404
        change(found)
        code, answer = self.stage.cluster.request("PUT", f"{PODS}/{name}", found)
        assert code in (200, 404, 409), answer
        return int(code)

    def delete(self) -> str:
        name, grace_seconds = self.random.choice(self.names), self.random.choice((None, 0, 1, 2, 20))
        self.stage.delete_pod(name, grace_seconds)
        return f"delete {name} in {grace_seconds}"

    def replace(self) -> str:
        """Deleted by force and made again at once."""
        name = self.random.choice(self.names)
        self.stage.delete_pod(name, 0)
        self.stage.create_pod(pod(name))
        return f"replace {name}"

    def write_manifest(self) -> str:
        """Half of the time with what was in it before."""
        self.words += self.random.randrange(2)
        self.stage.write_manifest(f"{self.manifest}.yaml", pod(self.manifest, container(f"echo {self.words}; {SLEEP}")))
        self.has_manifest = True
        return f"manifest {self.words}"

    def remove_manifest(self) -> str:
        self.stage.remove_manifest(f"{self.manifest}.yaml")
        self.has_manifest = False
        return "no manifest"

    def wait_seen(self) -> str:
        """Until the node has said something about a pod."""
        name = self.random.choice(self.names)

        def was_seen() -> bool:
            found = self.stage.find_pod(name)
            return found is None or bool(found["status"].get("containerStatuses"))

        eventually(f"a word about {name}", was_seen, within_seconds=60)
        return f"{name} was seen"

    def wait_ready(self) -> str:
        """Until a pod is Ready that can become so."""
        name = self.random.choice(self.names)
        eventually(f"a Ready {name}", lambda: not self.may_be_ready(name) or self.is_ready(name), within_seconds=90)
        return f"{name} is ready"

    def wait_gone(self) -> str:
        """Until a pod that is being deleted is gone."""
        name = self.random.choice(self.names)

        def is_gone() -> bool:
            found = self.stage.find_pod(name)
            return found is None or "deletionTimestamp" not in found["metadata"]

        eventually(f"the end of {name}", is_gone, within_seconds=60)
        return f"{name} is not going"

    def may_be_ready(self, name: str) -> bool:
        found = self.stage.find_pod(name)
        return (
            found is not None
            and "deletionTimestamp" not in found["metadata"]
            and found["spec"]["containers"][0]["image"] == BUSYBOX
        )

    def is_ready(self, name: str) -> bool:
        found = self.stage.pod(name)
        ready = {c["type"]: c["status"] for c in found["status"].get("conditions", ())}.get("Ready")
        return ready == "True"


def set_image(found: dict[str, Any], image: str) -> None:
    found["spec"]["containers"][0]["image"] = image


def set_label(found: dict[str, Any], value: str) -> None:
    found["metadata"].setdefault("labels", {})["v"] = value


def test_any_history_of_a_few_names_ends_with_what_was_said_last(stage: Stage) -> None:
    """Each pod runs as it was last, once; of those that are gone nothing is left; a pod beside them is not touched."""
    seed = int(os.environ.get("HISTORY_SEED", random.SystemRandom().randrange(10**6)))
    print(f"HISTORY_SEED={seed}")
    calm = stage.unique("calm")
    stage.create_pod(pod(calm))
    before = stage.wait_ready(calm)["status"]["containerStatuses"][0]
    history = History(stage, seed)
    history.play()
    print("\n".join(history.story))
    for name in history.names:
        last_word(history, name)
        eventually(f"the rest of {name}", functools.partial(at_rest, history, name), within_seconds=120)
    static_name = f"{history.manifest}-{NODE}"
    if history.has_manifest:
        stage.wait_logs(static_name, f"{history.words}\n", within_seconds=60)
        stage.wait_ready(static_name, within_seconds=60)
    else:
        stage.wait_gone(static_name, within_seconds=60)
    holds(lambda: nothing_else_is_left(stage, [*history.names, static_name]), within_seconds=120 if PLAYS_GO else 60)
    history.look()
    after = stage.pod(calm)["status"]["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
    assert stage.kubelet.poll() is None
    assert "fault of the agent" not in stage.kubelet_log()


def last_word(history: History, name: str) -> None:
    """A pod whose image cannot be had gets the other one back."""

    def said() -> None:
        assert history.change(name, lambda found: set_image(found, BUSYBOX)) in (200, 404)

    holds(said, within_seconds=30)


def at_rest(history: History, name: str) -> bool:
    """Ready, or not there."""
    return history.stage.find_pod(name) is None or (history.may_be_ready(name) and history.is_ready(name))


def nothing_else_is_left(stage: Stage, names: list[str]) -> None:
    """Each pod of these names that the API server has runs once; others of the names are nowhere on the node."""
    known = {found["metadata"]["uid"]: found for found in stage.pods() if found["metadata"]["name"] in names}
    uids = {
        found["metadata"].get("annotations", {}).get("kubernetes.io/config.mirror", uid) for uid, found in known.items()
    }
    sandboxes = [s for s in stage.sandboxes() if s.labels[POD_NAME] in names]
    containers = [c for c in stage.containers() if c.labels[POD_NAME] in names]
    assert {s.labels[UID] for s in sandboxes} == uids
    assert Counter(c.labels[UID] for c in containers if c.state == RUNNING) == Counter(uids)
    assert {c.labels[UID] for c in containers} == uids
    everybody = {s.labels[UID] for s in stage.sandboxes()}
    left = {path.name for path in stage.inside("/var/lib/kubelet/pods").iterdir()}
    assert left <= everybody | {found["metadata"]["uid"] for found in stage.pods()}, left - everybody
