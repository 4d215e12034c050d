"""Certificates of this node's pods: keys made, signers asked, answers awaited, and all of it again in time.

Owns the keys and certificates (in memory; `managers.volumes` writes them where the pod reads them), one watch on the
node's PodCertificateRequests and one task that makes requests, one after the other. Both begin with the first pod that
has a podCertificate source and end with the last; the types and the cryptography are loaded no earlier.
`core.pod_certificates` has the rules.

Upstream counterpart: pkg/kubelet/podcertificate. Differences: the pod is told when its certificate comes or is refused,
and its worker waits for the first one a little instead of complaining at once; what keeps a request from being made is
in the pod's events; nothing runs without a pod that needs it; a pod whose containers have ended for good gets no new
certificates. The same: nothing outlives the agent, which asks anew for every pod when it starts.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final

import structlog

from kubelet_py.api import core_v1
from kubelet_py.api.pod import display_name, metadata_of, spec_of, uid_of
from kubelet_py.core import pod_certificates as rules
from kubelet_py.core.event_rules import WARNING, EventSink
from kubelet_py.core.pod_certificates import Answer, CertificateState, Credentials, SourceKey
from kubelet_py.core.volume_payload import PayloadError
from kubelet_py.errors import ApiError
from kubelet_py.kube.backoff import Backoff
from kubelet_py.kube.client import ApiClient, EventKind, Query
from kubelet_py.kube.key_pairs import KeyPair, UnknownKeyType, generate_key_pair
from kubelet_py.kube.resources import SERVICE_ACCOUNTS, pod_certificate_requests
from kubelet_py.kube.watch import Reflector

if TYPE_CHECKING:
    from kubelet_py.api import certificates_v1

FIRST_ISSUE_SECONDS: Final = 5.0
"""So long from the pod's coming on its worker waits for a certificate, before events tell that there is none."""
FIRST_PAUSE_SECONDS: Final = 0.1
"""The API server's parts see a pod one after the other, and the node may be first."""
LONGEST_PAUSE_SECONDS: Final = 60.0
LONGEST_SLEEP_SECONDS: Final = 60.0
"""Clocks are set, and machines sleep."""

_log = structlog.get_logger()


class _NotPossible(Exception):
    """What a request needs is not there yet."""


@dataclass(slots=True, eq=False)
class _Certificate:
    """One source of one pod."""

    key: SourceKey
    source: core_v1.PodCertificateProjection
    pauses: Backoff
    state: CertificateState = field(default_factory=CertificateState)
    due_at_seconds: float = -inf
    """On the wall clock, as certificates have it."""
    rests_until_seconds: float = -inf
    """On the loop's clock: a request could not be made."""
    pair: KeyPair | None = None
    """Made for a request that was not taken yet."""
    problem: str = ""
    decided: asyncio.Event = field(default_factory=asyncio.Event)

    def due_in_seconds(self, wall_seconds: float, loop_seconds: float) -> float:
        return max(self.due_at_seconds - wall_seconds, self.rests_until_seconds - loop_seconds)

    def awaits(self, request_name: str) -> bool:
        return self.state.request is not None and self.state.request.name == request_name


@dataclass(slots=True, eq=False)
class _PodEntry:
    pod: core_v1.Pod
    came_at_seconds: float
    """On the loop's clock."""
    certificates: dict[SourceKey, _Certificate]
    answers: dict[str, Answer] = field(default_factory=dict)
    """What the watch shows of requests that are awaited, or may be: the one that is being made has no name yet."""
    is_asking: bool = False

    def may_await(self, request_name: str) -> bool:
        return self.is_asking or any(each.awaits(request_name) for each in self.certificates.values())


class PodCertificates:
    """The certificates of the pods that are registered. `run` owns the watch and makes the requests."""

    def __init__(
        self,
        client: ApiClient,
        node_name: str,
        node: Callable[[], core_v1.Node | None],
        events: EventSink,
        *,
        on_change: Callable[[str, str], None] = lambda pod_uid, stimulus: None,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = lambda: random.uniform(0, rules.JITTER_SECONDS),
    ) -> None:
        """`node` is the node's object as last seen. `on_change` is told of each pod whose files would be others now."""
        self._client = client
        self._query = Query(field_selector=f"spec.nodeName={node_name}")
        self._node = node
        self._events = events
        self._on_change = on_change
        self._clock = clock
        self._jitter = jitter
        self._pods: dict[str, _PodEntry] = {}
        self._moved = asyncio.Event()
        self._wanted = asyncio.Event()
        self._unwanted = asyncio.Event()
        self._reflector: Reflector[certificates_v1.PodCertificateRequest] | None = None

    def register(self, pod: core_v1.Pod) -> None:
        """The pod is to run: certificates for its sources are asked for, once. They never change."""
        uid = uid_of(pod)
        if (entry := self._pods.get(uid)) is not None:
            entry.pod = pod
            return
        certificates = {
            key: _Certificate(key, source, Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, random=random.random))
            for key, source in rules.certificate_sources(pod)
        }
        if certificates:
            self._pods[uid] = _PodEntry(pod, asyncio.get_running_loop().time(), certificates)
            self._unwanted.clear()
            self._wanted.set()
            self._moved.set()

    def unregister(self, pod_uid: str) -> None:
        """The pod is gone, and its keys with it."""
        if self._pods.pop(pod_uid, None) is not None and not self._pods:
            self._wanted.clear()
            self._unwanted.set()

    async def get(self, pod_uid: str, key: SourceKey) -> Credentials:
        """What was issued; PayloadError says why there is nothing."""
        entry = self._pods.get(pod_uid)
        certificate = entry.certificates.get(key) if entry is not None else None
        if entry is None or certificate is None:
            raise PayloadError(rules.NOT_ISSUED)
        if not certificate.state.is_decided:
            try:
                async with asyncio.timeout_at(entry.came_at_seconds + FIRST_ISSUE_SECONDS):
                    await certificate.decided.wait()
            except TimeoutError:
                pass
        if certificate.state.credentials is None:
            raise PayloadError(rules.missing_text(certificate.state, certificate.problem or self._watch_problem()))
        return certificate.state.credentials

    @property
    def is_watching(self) -> bool:
        """Whether a pod keeps the watch open."""
        return self._reflector is not None

    async def run(self) -> None:
        """Watch and ask whenever a pod needs it, until cancelled."""
        while True:
            await self._wanted.wait()
            self._reflector = Reflector(self._client, pod_certificate_requests(), self, self._query)
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._reflector.run(), name="watch-podcertificaterequests")
                work = tasks.create_task(self._work(), name="request-pod-certificates")
                await self._unwanted.wait()
                watch.cancel()
                work.cancel()
            self._reflector = None

    def on_replace(self, objects: "list[certificates_v1.PodCertificateRequest]") -> None:
        """Sink of the watch."""
        for entry in self._pods.values():
            entry.answers.clear()
        for each in objects:
            self._learn(each)
        for certificate in self._awaiting():
            certificate.due_at_seconds = -inf
        self._moved.set()

    def on_event(self, kind: EventKind, changed: "certificates_v1.PodCertificateRequest") -> None:
        """Sink of the watch."""
        if kind is EventKind.DELETED:
            entry = self._pods.get(changed.spec.podUID)
            if entry is not None:
                entry.answers.pop(_name(changed), None)
        else:
            self._learn(changed)
        for certificate in self._awaiting():
            if certificate.awaits(_name(changed)):
                certificate.due_at_seconds = -inf
                self._moved.set()

    def _learn(self, request: "certificates_v1.PodCertificateRequest") -> None:
        entry = self._pods.get(request.spec.podUID)
        if entry is not None and entry.may_await(_name(request)):
            entry.answers[_name(request)] = rules.answer_of(request)

    def _awaiting(self) -> Iterator[_Certificate]:
        for entry in self._pods.values():
            for certificate in entry.certificates.values():
                if certificate.state.request is not None:
                    yield certificate

    def _watch_problem(self) -> str:
        problem = self._reflector.problem if self._reflector is not None else None
        return f"failed to watch PodCertificateRequests: {problem}" if problem is not None else ""

    async def _work(self) -> None:
        """One request after the other; where there is none to make, sleeps until there is."""
        while True:
            self._moved.clear()
            now, loop_now = self._clock(), asyncio.get_running_loop().time()
            pause_seconds = LONGEST_SLEEP_SECONDS
            for entry in list(self._pods.values()):
                for certificate in entry.certificates.values():
                    due_in_seconds = certificate.due_in_seconds(now, loop_now)
                    if due_in_seconds > 0:
                        pause_seconds = min(pause_seconds, due_in_seconds)
                    elif self._pods.get(uid_of(entry.pod)) is entry:  # it may have gone meanwhile
                        await self._advance(entry, certificate)
                        self._moved.set()
            try:
                async with asyncio.timeout(pause_seconds):
                    await self._moved.wait()
            except TimeoutError:
                pass

    async def _advance(self, entry: _PodEntry, certificate: _Certificate) -> None:
        before = certificate.state
        step = rules.compute_step(before, entry.answers, self._clock(), self._jitter())
        certificate.state, certificate.due_at_seconds = step.state, step.look_at_seconds
        for name in [name for name in entry.answers if not entry.may_await(name)]:
            del entry.answers[name]
        for reason, message in step.warnings:
            self._events(entry.pod, WARNING, reason, message)
        if step.state.is_decided:
            certificate.decided.set()
        if (step.state.credentials, step.state.refusal) != (before.credentials, before.refusal):
            what = "issued" if step.state.refusal is None else "refused"
            _log.info("pod_certificate_decided", what=what, **_named(entry, certificate))
            self._on_change(uid_of(entry.pod), f"the certificate of volume {certificate.key.volume} was {what}")
        if step.asks:
            await self._ask(entry, certificate)

    async def _ask(self, entry: _PodEntry, certificate: _Certificate) -> None:
        """Make a request; if that does not work, say so and try again later."""
        entry.is_asking = True
        try:
            created = await self._request(entry, certificate)
        except (ApiError, UnknownKeyType, _NotPossible) as error:
            if certificate.problem != str(error):
                certificate.problem = str(error)
                _log.warning("pod_certificate_not_requested", error=str(error), **_named(entry, certificate))
            now_seconds = asyncio.get_running_loop().time()
            pause_seconds = certificate.pauses.next_seconds(now_seconds)
            if self._client.reachable:
                certificate.rests_until_seconds = now_seconds + pause_seconds
            else:
                await self._client.rest(pause_seconds)  # nobody else would be answered either
            return
        finally:
            entry.is_asking = False
        _log.info("pod_certificate_requested", request=_name(created), **_named(entry, certificate))

    async def _request(self, entry: _PodEntry, certificate: _Certificate) -> "certificates_v1.PodCertificateRequest":
        pod, source = entry.pod, certificate.source
        node = self._node()
        if node is None:
            raise _NotPossible("the node is not registered yet")
        namespace, account_name = metadata_of(pod).namespace or "", spec_of(pod).serviceAccountName or ""
        account = await self._client.get(SERVICE_ACCOUNTS, account_name, namespace)
        account_uid = (account.metadata.uid if account.metadata is not None else None) or ""
        if certificate.pair is None:
            certificate.pair = await asyncio.to_thread(generate_key_pair, source.keyType)
        body = rules.request_object(pod, source, node, account_uid, certificate.pair.request)
        created = await self._client.create(pod_certificate_requests(), body, namespace)
        key, certificate.pair, certificate.problem = certificate.pair.private_key, None, ""
        certificate.pauses.reset()
        certificate.state = rules.requested(certificate.state, _name(created), key, self._clock(), self._jitter())
        certificate.due_at_seconds = -inf  # the answer may be there already
        return created


def _named(entry: _PodEntry, certificate: _Certificate) -> dict[str, str]:
    return {
        "pod": display_name(entry.pod),
        "volume": certificate.key.volume,
        "signer": certificate.source.signerName,
    }


def _name(request: "certificates_v1.PodCertificateRequest") -> str:
    metadata = request.metadata
    return f"{metadata.namespace}/{metadata.name}" if metadata is not None else ""
