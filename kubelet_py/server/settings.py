"""What the HTTP servers are told, and what they need from the rest of the agent.

`app.py` makes these from the configuration and from its managers; the server imports neither.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1

if TYPE_CHECKING:
    from kubelet_py.api import authentication_v1, authorization_v1


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Who is let in. `client_ca_file` "" is no client certificates."""

    anonymous: bool = False
    client_ca_file: str = ""
    token_webhook: bool = True
    token_cache_seconds: float = 120.0
    authorize_by_webhook: bool = True
    allowed_cache_seconds: float = 300.0
    denied_cache_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The serving certificate; both files "" asks for a self-signed one in `cert_dir`."""

    cert_file: str = ""
    key_file: str = ""
    cert_dir: Path = Path("/var/lib/kubelet/pki")
    min_version: str = ""
    cipher_suites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The three servers; a port of 0 is a server that is off."""

    node_name: str
    addresses: tuple[str, ...] = ()
    bind_address: str = "0.0.0.0"
    port: int = 10250
    read_only_port: int = 0
    healthz_bind_address: str = "127.0.0.1"
    healthz_port: int = 10248
    auth: AuthSettings = AuthSettings()
    tls: TlsSettings = TlsSettings()
    debugging_handlers: bool = True
    speaks_websocket: bool = True
    """Exec, attach and port-forward over WebSocket are served whatever the runtime speaks."""
    checkpoints: bool = True
    statusz: bool = True
    flagz: bool = True
    cbor: bool = False
    """Both pages have a form in CBOR too."""


@dataclass(frozen=True, slots=True)
class ApiReviews:
    """How the API server is asked about tokens and rights: each posts the object and returns the answer."""

    review_token: "Callable[[authentication_v1.TokenReview], Awaitable[authentication_v1.TokenReview]]"
    review_access: "Callable[[authorization_v1.SubjectAccessReview], Awaitable[authorization_v1.SubjectAccessReview]]"


class ServerBackend(Protocol):
    """What the routes show."""

    def pods(self) -> Iterable[core_v1.Pod]:
        """All pods assigned to this node, static ones too, with their newest status."""

    def find_pod(self, namespace: str, name: str) -> core_v1.Pod | None:
        """One of them."""

    async def running_pods(self) -> Iterable[core_v1.Pod]:
        """Pods as the runtime has them."""

    async def container_log_path(self, pod: core_v1.Pod, container_id: str) -> str:
        """Where the log of a container is (the id as in the status, `containerd://...`); raises RuntimeCallError."""

    async def is_container_running(self, container_id: str) -> bool:
        """Whether its log can still grow; False when nobody knows the container."""

    async def running_container_id(self, pod: core_v1.Pod, name: str) -> str | None:
        """The run of a container that runs now, None when none does; raises RuntimeCallError."""

    async def sandbox_id(self, pod: core_v1.Pod) -> str | None:
        """The sandbox of a pod that is ready, None when it has none; raises RuntimeCallError."""

    async def streaming_url(self, request: cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest) -> str:
        """Where the runtime serves it, once; raises RuntimeCallError."""

    async def run(self, container_id: str, command: list[str]) -> cri.ExecSyncResponse:
        """A command in a container, to its end; raises RuntimeCallError."""

    async def checkpoint(self, pod: core_v1.Pod, container: str, container_id: str, timeout_seconds: int) -> str:
        """Writes an archive of a running container (0 seconds: the usual time); its path. RuntimeCallError, OSError."""

    def story(self, pod: core_v1.Pod) -> str:
        """What was done for a pod and why, for people: lines of text, oldest first."""

    def health_problems(self) -> Mapping[str, str]:
        """The checks by name (`syncloop` ...): "" when well, else what is the matter."""

    def configuration(self) -> Mapping[str, Any]:
        """The effective KubeletConfiguration in its v1beta1 form, secrets masked."""

    def flags(self) -> Mapping[str, str]:
        """The value of every flag by name, secrets masked."""
