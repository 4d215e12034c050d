"""Certificates, a node's worth of pods, and servers on free ports."""

import datetime
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cri_proto import runtime_v1 as cri
from kubelet_py.api import authentication_v1, authorization_v1, codec, core_v1
from kubelet_py.api.pod import display_name
from kubelet_py.errors import ApiUnavailable, RuntimeNotFound, RuntimeUnavailable, RuntimeUnimplemented
from kubelet_py.server.settings import ApiReviews


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Authority:
    """A certificate authority and where its files are."""

    directory: Path
    name: str = "test-ca"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        certificate = (
            self._builder(self._name, self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.ca_file = self.directory / "ca.crt"
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, file_name: str, common_name: str, groups: Iterable[str] = (), *, server: bool = False
    ) -> tuple[str, str]:
        """The paths of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        names.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        certificate = (
            self._builder(x509.Name(names), key.public_key())
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        cert_file, key_file = self.directory / f"{file_name}.crt", self.directory / f"{file_name}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return str(cert_file), str(key_file)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
        )


@dataclass
class Node:
    """A backend over lists."""

    logs: dict[str, Path] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)
    items: list[core_v1.Pod] = field(default_factory=list)
    commands: list[tuple[str, list[str]]] = field(default_factory=list)
    streams: list[cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest] = field(default_factory=list)

    def pods(self) -> Iterable[core_v1.Pod]:
        return self.items

    def find_pod(self, namespace: str, name: str) -> core_v1.Pod | None:
        return next(
            (p for p in self.items if p.metadata and (p.metadata.namespace, p.metadata.name) == (namespace, name)), None
        )

    async def running_pods(self) -> Iterable[core_v1.Pod]:
        return []

    async def container_log_path(self, pod: core_v1.Pod, container_id: str) -> str:
        try:
            return str(self.logs[container_id])
        except KeyError:
            raise RuntimeNotFound("ContainerStatus", "NOT_FOUND", "no such container") from None

    async def is_container_running(self, container_id: str) -> bool:
        return container_id in self.running

    async def running_container_id(self, pod: core_v1.Pod, name: str) -> str | None:
        if pod.metadata and pod.metadata.name == "away":
            raise RuntimeUnavailable("ListContainers", "UNAVAILABLE", "nobody answers")
        statuses = (pod.status.containerStatuses if pod.status else None) or ()
        running = (s.containerID or "" for s in statuses if s.name == name and s.state and s.state.running)
        return next((known.rpartition("://")[2] for known in running), None)

    async def sandbox_id(self, pod: core_v1.Pod) -> str | None:
        return None

    async def streaming_url(self, request: cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest) -> str:
        self.streams.append(request)
        return "http://127.0.0.1:1/stream/token"

    async def run(self, container_id: str, command: list[str]) -> cri.ExecSyncResponse:
        self.commands.append((container_id, command))
        if command == ["away"]:
            raise RuntimeUnavailable("ExecSync", "UNAVAILABLE", "nobody answers")
        stdout, stderr, exit_code = (b"", b"bad\n", 3) if command == ["false"] else (b"out\n", b"err\n", 0)
        return cri.ExecSyncResponse(stdout=stdout, stderr=stderr, exit_code=exit_code)

    async def checkpoint(self, pod: core_v1.Pod, container: str, container_id: str, timeout_seconds: int) -> str:
        if timeout_seconds == 99:
            raise RuntimeUnimplemented("CheckpointContainer", "UNIMPLEMENTED", "no CRIU here")
        return f"/checkpoints/{display_name(pod)}-{container}-{container_id}-{timeout_seconds}.tar"

    def health_problems(self) -> Mapping[str, str]:
        return {"syncloop": "", **self.problems}

    def story(self, pod: core_v1.Pod) -> str:
        return f"the story of {display_name(pod)}\n"

    def configuration(self) -> Mapping[str, Any]:
        return {"kind": "KubeletConfiguration", "port": 10250}

    def flags(self) -> Mapping[str, str]:
        return {"v": "2", "address": "0.0.0.0"}

    def add(self, name: str, status: dict[str, Any], **fields: Any) -> None:
        """A pod with the container `main`, of these fields, in this status."""
        pod = {
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"containers": [{"name": "main", "image": "x", **fields}]},
            "status": {"containerStatuses": [status]},
        }
        self.items.append(codec.from_builtins(core_v1.Pod, pod))


def container_status(
    state: dict[str, Any], last: dict[str, Any] | None = None, container_id: str = ""
) -> dict[str, Any]:
    """A status of the container `main`."""
    return {
        "name": "main",
        "image": "x",
        "imageID": "x",
        "ready": True,
        "restartCount": 0,
        "state": state,
        "lastState": last or {},
        "containerID": container_id,
    }


@dataclass
class Judge:
    """The API server's side of the reviews, with what it was asked."""

    tokens: dict[str, authentication_v1.UserInfo] = field(default_factory=dict)
    allowed: set[tuple[str, str, str]] = field(default_factory=set)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    tokens_asked: int = 0
    away: bool = False

    async def review_token(self, review: authentication_v1.TokenReview) -> authentication_v1.TokenReview:
        if self.away:
            raise ApiUnavailable(0, "", "connection refused")
        self.tokens_asked += 1
        user = self.tokens.get(review.spec.token or "")
        status = authentication_v1.TokenReviewStatus(authenticated=user is not None, user=user)
        return authentication_v1.TokenReview(spec=review.spec, status=status)

    async def review_access(self, review: authorization_v1.SubjectAccessReview) -> authorization_v1.SubjectAccessReview:
        if self.away:
            raise ApiUnavailable(0, "", "connection refused")
        attributes = review.spec.resourceAttributes
        assert attributes is not None
        assert (attributes.resource, attributes.name) == ("nodes", "node-1")
        what = (review.spec.user or "", attributes.verb or "", attributes.subresource or "")
        self.asked.append(what)
        status = authorization_v1.SubjectAccessReviewStatus(allowed=what in self.allowed)
        return authorization_v1.SubjectAccessReview(spec=review.spec, status=status)

    @property
    def reviews(self) -> ApiReviews:
        return ApiReviews(self.review_token, self.review_access)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def judge() -> Judge:
    return Judge()
