"""The way to one API server: TLS context and authorization header, made again when the files under them change.

A proxy is the kubeconfig's or the environment's, chosen once: neither changes under a running agent.

Several clients share one connection (and so one TLS context and one word on whether the server answers). Certificates
rotate under a running agent: files are looked at again at most every `RECHECK_SECONDS`; a new context makes new
connections, the old ones run out. A file that is broken for a moment leaves the old context in use.

Upstream counterpart: client-go rest.Config, transport cert rotation and token file cache.
"""

import base64
import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import monotonic

import structlog

from kubelet_py.core.proxy_rules import proxy_from_environment
from kubelet_py.errors import ConfigError
from kubelet_py.kube.health import ServerHealth
from kubelet_py.kube.kubeconfig import Credentials, Kubeconfig

log = structlog.get_logger()

RECHECK_SECONDS = 10.0

_Stamp = tuple[tuple[int, int, int], ...]


class Connection:
    """Everything a request needs besides its path."""

    def __init__(
        self,
        config: Kubeconfig,
        clock: Callable[[], float] = monotonic,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Load certificates and token once; raises ConfigError when one of them, or the proxy, cannot be used."""
        self._config = config
        self._clock = clock
        self.server = config.server
        self.tls_server_name = config.tls_server_name
        self.proxy_url = config.proxy_url or proxy_from_environment(config.server, environment)
        self.health = ServerHealth(config.server, clock)
        self._files = _files((config.authority, config.certificate, config.key))
        self._stamp = _stamp(self._files)
        self._tls = self._make_tls()
        self._authorization = self._make_authorization()
        self._checked_at = clock()

    @property
    def tls(self) -> ssl.SSLContext | bool:
        """The TLS context for a request made now; True where the server speaks plain HTTP and none is used."""
        self._recheck()
        return self._tls

    @property
    def authorization(self) -> str | None:
        """The Authorization header for a request made now."""
        self._recheck()
        return self._authorization

    def _recheck(self) -> None:
        now = self._clock()
        if now - self._checked_at < RECHECK_SECONDS:
            return
        self._checked_at = now
        try:
            stamp = _stamp(self._files)
            if stamp != self._stamp:
                self._tls = self._make_tls()
                self._stamp = stamp
                log.info("api_client_certificate_reloaded", kubeconfig=str(self._config.path))
            self._authorization = self._make_authorization()
        except (OSError, ConfigError) as error:
            log.warning("api_credentials_not_reloaded", error=str(error), meaning="the ones loaded before stay in use")

    def _make_tls(self) -> ssl.SSLContext | bool:
        config = self._config
        if not config.server.startswith("https:"):
            return True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if config.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif config.authority:
            try:
                context.load_verify_locations(cadata=_read(config.authority).decode("ascii"))
            except (ssl.SSLError, ValueError) as error:
                raise ConfigError(
                    f"{config.path}: certificate-authority{_where(config.authority)}: no PEM certificate in it: {error}"
                ) from error
        else:
            context.load_default_certs()
        if config.certificate:
            self._load_certificate(context)
        return context

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        config = self._config
        # The ssl module takes files only; memory files keep embedded keys off the disk.
        pem = _read(config.certificate) + b"\n" + (b"" if config.certificate == config.key else _read(config.key))
        descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        except ssl.SSLError as error:
            raise ConfigError(
                f"{config.path}: client-certificate{_where(config.certificate)} and client-key{_where(config.key)}: "
                f"not a PEM certificate with its own key ({error.reason or error})"
            ) from error
        finally:
            os.close(descriptor)

    def _make_authorization(self) -> str | None:
        if self._config.token:
            token = _read(self._config.token).decode("latin-1").strip()
            if not token:
                raise ConfigError(f"{self._config.path}: tokenFile{_where(self._config.token)} is empty")
            return f"Bearer {token}"
        if self._config.basic_auth:
            return "Basic " + base64.b64encode(":".join(self._config.basic_auth).encode()).decode()
        return None


def _read(credentials: Credentials) -> bytes:
    if credentials.data is not None:
        return credentials.data
    if credentials.file is None:
        return b""
    try:
        return credentials.file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{credentials.file}: cannot be read: {error.strerror}") from error


def _files(all_credentials: Iterable[Credentials]) -> tuple[Path, ...]:
    return tuple(c.file for c in all_credentials if c.file is not None and c.data is None)


def _stamp(files: tuple[Path, ...]) -> _Stamp:
    states = (file.stat() for file in files)
    return tuple((state.st_mtime_ns, state.st_size, state.st_ino) for state in states)


def _where(credentials: Credentials) -> str:
    return f" {credentials.file}" if credentials.file else "-data"
