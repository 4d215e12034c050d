"""Certificates are asked for while a pod needs them, kept, renewed in time, and explained when there are none."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509

from kubelet_py.api import codec, core_v1
from kubelet_py.core.pod_certificates import SourceKey
from kubelet_py.core.volume_payload import PayloadError
from kubelet_py.managers import pod_certificates
from kubelet_py.managers.pod_certificates import PodCertificates
from tests.fakes.api_clients import client_for
from tests.fakes.api_server import FakeApiServer, Json
from tests.fakes.waiting import background, eventually

CERTIFICATES = "/apis/certificates.k8s.io/v1"
REQUESTS = "podcertificaterequests"
KEY = SourceKey("tls", 0)
PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
REFRESH_AT, END = 2_000_000.0, 3_000_000.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the certificates is a number, and looked at often."""
    monkeypatch.setattr(pod_certificates, "LONGEST_SLEEP_SECONDS", 0.01)
    monkeypatch.setattr(pod_certificates, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(pod_certificates, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("kubelet_py.kube.watch.FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer.running() as running:
        running.put("serviceaccounts", {"metadata": {"name": "seller", "namespace": "shop", "uid": "account-uid"}})
        yield running


class Desk:
    """The manager with what it asks and tells."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.looks = 0
        self.jitter = 0.0
        self.node: core_v1.Node | None = codec.from_builtins(
            core_v1.Node, {"metadata": {"name": "node-1", "uid": "node-uid"}}
        )
        self.events: list[tuple[str, str, str, str]] = []
        self.told: list[tuple[str, str]] = []

    def clock(self) -> float:
        self.looks += 1
        return self.now

    async def looked(self) -> None:
        """The manager has looked whether something is due, and done it."""
        wanted = self.looks + 4
        await eventually(lambda: self.looks >= wanted)

    def record(self, pod: core_v1.Pod, event_type: str, reason: str, message: str, container_name: str = "", /) -> None:
        self.events.append(((pod.metadata and pod.metadata.name) or "", event_type, reason, message))


@asynccontextmanager
async def managing(server: FakeApiServer, desk: Desk) -> AsyncIterator[PodCertificates]:
    async with client_for(server.url) as client:
        manager = PodCertificates(
            client,
            "node-1",
            lambda: desk.node,
            desk.record,
            on_change=lambda *news: desk.told.append(news),
            clock=desk.clock,
            jitter=lambda: desk.jitter,
        )
        async with background(manager.run()):
            yield manager


def a_pod(name: str = "web", *sources: dict[str, Any]) -> core_v1.Pod:
    stated = sources or ({"signerName": "example.com/s", "keyType": "ED25519"},)
    projections = [{"podCertificate": source} for source in stated]
    return codec.from_builtins(
        core_v1.Pod,
        {
            "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}"},
            "spec": {
                "containers": [],
                "serviceAccountName": "seller",
                "volumes": [{"name": "tls", "projected": {"sources": projections}}],
            },
        },
    )


def made(server: FakeApiServer) -> list[Json]:
    """The requests that there are."""
    return [each for (where, _, _), each in server.objects.items() if where.endswith(REQUESTS)]


def decide(server: FakeApiServer, request: Json, kind: str = "Issued", **status: Any) -> None:
    """As a signer does."""
    at = datetime.fromtimestamp(0, UTC).isoformat()
    said = {"type": kind, "status": "True", "reason": "Because", "message": "of it", "lastTransitionTime": at}
    server.put(REQUESTS, request | {"status": {"conditions": [said], **status}}, prefix=CERTIFICATES)


def issue(server: FakeApiServer, request: Json, content: str = "QQ==") -> None:
    begin, end = (datetime.fromtimestamp(moment, UTC).isoformat() for moment in (REFRESH_AT, END))
    decide(server, request, certificateChain=PEM.format(content), beginRefreshAt=begin, notAfter=end)


async def one_request(server: FakeApiServer, number: int = 1) -> Json:
    """The last of so many."""
    await eventually(lambda: len(made(server)) == number)
    return made(server)[-1]


async def test_a_pod_without_sources_costs_nothing(server: FakeApiServer) -> None:
    async with managing(server, Desk()) as manager:
        pod = codec.from_builtins(core_v1.Pod, {"metadata": {"uid": "u"}, "spec": {"containers": []}})
        manager.register(pod)
        manager.unregister("u")
        await asyncio.sleep(0)
        assert not manager.is_watching
        assert server.requests == []


async def test_a_certificate_is_asked_for_with_a_key_of_its_own_and_handed_out(server: FakeApiServer) -> None:
    desk = Desk()
    async with managing(server, desk) as manager:
        manager.register(a_pod())
        manager.register(a_pod())
        request = await one_request(server)
        spec = dict(request["spec"])
        stub = x509.load_der_x509_csr(base64.b64decode(spec.pop("stubPKCS10Request")))
        assert stub.is_signature_valid
        assert spec == {
            "signerName": "example.com/s",
            "podName": "web",
            "podUID": "uid-web",
            "serviceAccountName": "seller",
            "serviceAccountUID": "account-uid",
            "nodeName": "node-1",
            "nodeUID": "node-uid",
        }
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(manager.get("uid-web", KEY))
            await asyncio.sleep(0)
            issue(server, request)
        issued = waiting.result()
        assert issued.chain == PEM.format("QQ==").encode()
        assert issued.key.startswith(b"-----BEGIN PRIVATE KEY-----\n")
        assert await manager.get("uid-web", KEY) is issued
        assert desk.told == [("uid-web", "the certificate of volume tls was issued")]
        assert desk.events == []
        assert [r.query.get("fieldSelector") for r in server.requests if REQUESTS in r.path and r.method == "GET"] == [
            "spec.nodeName=node-1"
        ] * 2
        assert len(server.asked("POST", REQUESTS)) == 1


async def test_each_source_has_a_request_and_a_key(server: FakeApiServer) -> None:
    async with managing(server, Desk()) as manager:
        sources = [{"signerName": f"example.com/{n}", "keyType": "ECDSAP256"} for n in (0, 1)]
        manager.register(a_pod("web", *sources))
        await one_request(server, 2)
        for request in made(server):
            issue(server, request, {"example.com/0": "MA==", "example.com/1": "MQ=="}[request["spec"]["signerName"]])
        first, second = await manager.get("uid-web", KEY), await manager.get("uid-web", SourceKey("tls", 1))
        assert (first.chain, second.chain) == (PEM.format("MA==").encode(), PEM.format("MQ==").encode())
        assert first.key != second.key


async def test_a_certificate_is_renewed_with_a_new_key_when_it_is_time(server: FakeApiServer) -> None:
    """The old one is there until the new one is."""
    desk = Desk()
    async with managing(server, desk) as manager:
        desk.jitter = 100
        manager.register(a_pod())
        issue(server, await one_request(server))
        before = await manager.get("uid-web", KEY)
        desk.now = REFRESH_AT + 99
        await desk.looked()
        assert len(made(server)) == 1
        desk.now = REFRESH_AT + 100
        request = await one_request(server, 2)
        assert await manager.get("uid-web", KEY) is before
        issue(server, request, "QUI=")
        await eventually(lambda: len(desk.told) == 2)
        after = await manager.get("uid-web", KEY)
        assert after.chain == PEM.format("QUI=").encode()
        assert after.key != before.key
        assert not manager._pods["uid-web"].answers


@pytest.mark.parametrize(
    ("kind", "said", "text"),
    [
        ("Denied", "was denied", "PodCertificateRequest was permanently denied"),
        ("Failed", "failed", "PodCertificateRequest was permanently failed"),
    ],
)
async def test_a_refusal_is_an_event_of_the_pod_and_holds(
    server: FakeApiServer, kind: str, said: str, text: str
) -> None:
    desk = Desk()
    async with managing(server, desk) as manager:
        manager.register(a_pod())
        request = await one_request(server)
        decide(server, request, kind)
        with pytest.raises(PayloadError, match=f'^{text}: reason="Because" message="of it"$'):
            await manager.get("uid-web", KEY)
        name = request["metadata"]["name"]
        message = f'PodCertificateRequest shop/{name} {said}, reason="Because", message="of it"'
        assert desk.events == [("web", "Warning", kind, message)]
        assert desk.told == [("uid-web", "the certificate of volume tls was refused")]
        desk.now = END * 10
        issue(server, request)
        await desk.looked()
        assert len(made(server)) == 1
        with pytest.raises(PayloadError, match=text):
            await manager.get("uid-web", KEY)


async def test_who_waits_too_long_hears_why(server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_certificates, "FIRST_ISSUE_SECONDS", 0.05)
    desk = Desk()
    async with managing(server, desk) as manager:
        with pytest.raises(PayloadError, match=r"^credential bundle is not issued yet$"):
            await manager.get("uid-web", KEY)
        node, desk.node = desk.node, None
        manager.register(a_pod())
        with pytest.raises(
            PayloadError, match=r"^credential bundle is not issued yet: the node is not registered yet$"
        ):
            await manager.get("uid-web", KEY)
        server.remove("serviceaccounts", "seller", "shop")
        desk.node = node
        await eventually(lambda: server.asked("GET", "serviceaccounts"))
        await desk.looked()  # the server has a request before its sender has the answer
        with pytest.raises(
            PayloadError, match=r'^credential bundle is not issued yet: serviceaccounts "seller" not fou'
        ):
            await manager.get("uid-web", KEY)
        server.put("serviceaccounts", {"metadata": {"name": "seller", "namespace": "shop"}})
        await one_request(server)
        await desk.looked()  # as before
        with pytest.raises(PayloadError, match=r"^credential bundle is not issued yet$"):
            await manager.get("uid-web", KEY)


async def test_a_key_type_that_is_not_known_is_named(server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_certificates, "FIRST_ISSUE_SECONDS", 0.05)
    async with managing(server, Desk()) as manager:
        manager.register(a_pod("web", {"signerName": "example.com/s", "keyType": "DSA"}))
        with pytest.raises(PayloadError, match='unknown key type "DSA"'):
            await manager.get("uid-web", KEY)


async def test_a_watch_that_is_refused_is_named(server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request may be made and answered, and the node would never know."""
    monkeypatch.setattr(pod_certificates, "FIRST_ISSUE_SECONDS", 0.05)
    desk = Desk()
    async with managing(server, desk) as manager:
        manager.register(a_pod())
        await one_request(server)
        await eventually(lambda: len(server._watches) == 1)
        server.fail_next(403, reason="Forbidden", count=1000)
        server.end_watches()
        await eventually(lambda: manager._reflector is not None and manager._reflector.problem is not None)
        with pytest.raises(PayloadError, match="not issued yet: failed to watch PodCertificateRequests: made to fail"):
            await manager.get("uid-web", KEY)


async def test_an_api_server_that_refuses_at_first_is_asked_again(server: FakeApiServer) -> None:
    """Its parts see a pod one after the other. The key of the first try serves."""
    async with managing(server, Desk()) as manager:
        server.fail_next(403, reason="Forbidden", count=5)
        manager.register(a_pod())
        issue(server, await one_request(server))
        assert (await manager.get("uid-web", KEY)).chain


async def test_an_api_server_that_is_away_is_waited_for(server: FakeApiServer) -> None:
    desk = Desk()
    async with managing(server, desk) as manager:
        await server.stop()
        manager.register(a_pod())
        await eventually(lambda: manager._pods["uid-web"].certificates[KEY].problem)
        await server.start()
        issue(server, await one_request(server))
        assert (await manager.get("uid-web", KEY)).chain
        assert manager._pods["uid-web"].certificates[KEY].problem == ""


async def test_an_answer_that_comes_while_the_watch_is_away_is_seen(server: FakeApiServer) -> None:
    async with managing(server, Desk()) as manager:
        manager.register(a_pod())
        request = await one_request(server)
        await eventually(lambda: len(server._watches) == 1)
        await server.stop()
        issue(server, request)
        server.forget_history()
        await server.start()
        assert (await manager.get("uid-web", KEY)).chain


async def test_a_request_that_somebody_deletes_is_made_again_after_a_while(server: FakeApiServer) -> None:
    desk = Desk()
    async with managing(server, desk) as manager:
        manager.register(a_pod())
        request = await one_request(server)
        await eventually(lambda: manager._pods["uid-web"].answers)
        server.remove(REQUESTS, request["metadata"]["name"], "shop", prefix=CERTIFICATES)
        await eventually(lambda: not manager._pods["uid-web"].answers)
        await desk.looked()
        assert made(server) == []
        desk.now += 700
        again = await one_request(server)
        assert again["metadata"]["name"] != request["metadata"]["name"]
        issue(server, again)
        assert (await manager.get("uid-web", KEY)).chain


async def test_what_is_overdue_and_what_is_expired_are_events(server: FakeApiServer) -> None:
    desk = Desk()
    async with managing(server, desk) as manager:
        manager.register(a_pod())
        issue(server, await one_request(server))
        before = await manager.get("uid-web", KEY)
        desk.now = REFRESH_AT
        await one_request(server, 2)
        desk.now = REFRESH_AT + 600
        overdue = ("web", "Warning", "CertificateOverdueForRefresh", "PodCertificate refresh overdue")
        await eventually(lambda: desk.events == [overdue])
        desk.now = END
        expired = ("web", "Warning", "CertificateExpired", "PodCertificate expired")
        await eventually(lambda: desk.events == [overdue, expired])
        assert await manager.get("uid-web", KEY) is before


async def test_the_watch_ends_with_the_last_pod_and_begins_again_with_the_next(server: FakeApiServer) -> None:
    """A pod that is gone leaves nothing; one that comes anew under its UID gets another certificate."""
    async with managing(server, Desk()) as manager:
        manager.register(a_pod())
        manager.register(a_pod("other"))
        for request in [await one_request(server, 2), *made(server)]:
            issue(server, request)
        before = await manager.get("uid-web", KEY)
        manager.unregister("uid-web")
        manager.unregister("unknown")
        assert await manager.get("uid-other", KEY)
        assert manager.is_watching
        manager.unregister("uid-other")
        await eventually(lambda: not manager.is_watching)
        assert not manager._pods
        manager.register(a_pod())
        request = await one_request(server, 3)
        issue(server, request)
        assert (await manager.get("uid-web", KEY)).key != before.key


async def test_requests_of_others_are_not_kept(server: FakeApiServer) -> None:
    """Those of pods that are gone, of another agent's time, and of pods that have what they asked for."""
    async with managing(server, Desk()) as manager:
        manager.register(a_pod())
        request = await one_request(server)
        issue(server, request)
        await manager.get("uid-web", KEY)
        for number, uid in enumerate(("uid-web", "uid-gone")):
            stated = {
                "metadata": {"name": f"old-{number}", "namespace": "shop"},
                "spec": request["spec"] | {"podUID": uid},
            }
            issue(server, stated)
            server.remove(REQUESTS, f"old-{number}", "shop", prefix=CERTIFICATES)
        manager.register(a_pod("last"))
        await one_request(server, 2)
        await eventually(lambda: manager._pods["uid-last"].answers)
        assert not manager._pods["uid-web"].answers
