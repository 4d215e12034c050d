"""The serving side of TLS: certificates, a self-signed one when none is given, files re-read when they change.

Owns the ssl contexts. Each handshake takes the newest one: the files are looked at then, at most once a second, so that
no watcher is needed.

Upstream counterparts: pkg/kubelet/certificate/kubelet.go (the dynamic file half), cert.GenerateSelfSignedCertKey.
Differences: the self-signed key is ECDSA P-256 and not RSA 2048; an expired self-signed certificate is replaced.
"""

import ipaddress
import os
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from kubelet_py.errors import ConfigError
from kubelet_py.host.files import write_atomic
from kubelet_py.server.settings import TlsSettings

_VERSIONS: Final = {
    "": ssl.TLSVersion.TLSv1_2,
    "VersionTLS10": ssl.TLSVersion.TLSv1,
    "VersionTLS11": ssl.TLSVersion.TLSv1_1,
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}
_CHECK_INTERVAL_SECONDS: Final = 1.0
_SELF_SIGNED_LIFE: Final = timedelta(days=365)
_log = structlog.get_logger()


class ServingContext:
    """`listener` is the context to listen with; it hands every connection to the newest one."""

    def __init__(self, settings: TlsSettings, client_ca_file: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Loads everything; ConfigError when a file is missing or is not what it should be."""
        self._settings = settings
        self._client_ca_file = client_ca_file
        self._clock = clock
        self._seen = self._signature()
        self._current = _make_context(settings, client_ca_file)
        self._next_check = clock() + _CHECK_INTERVAL_SECONDS
        self.listener = _make_context(settings, client_ca_file)
        self.listener.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        if self._clock() >= self._next_check:
            self._next_check = self._clock() + _CHECK_INTERVAL_SECONDS
            self._refresh()
        connection.context = self._current

    def _refresh(self) -> None:
        signature = self._signature()
        if signature == self._seen:
            return
        self._seen = signature
        try:
            self._current = _make_context(self._settings, self._client_ca_file)
            _log.info("serving_certificate_reloaded", cert_file=self._settings.cert_file)
        except ConfigError as error:
            # Half-written files are common here; the next change is looked at again.
            _log.warning("serving_certificate_not_reloaded", problem=str(error), effect="the old one is kept")

    def _signature(self) -> tuple[object, ...]:
        return tuple(
            _file_signature(path)
            for path in (self._settings.cert_file, self._settings.key_file, self._client_ca_file)
            if path
        )


def ensure_self_signed(settings: TlsSettings, node_name: str, addresses: Sequence[str]) -> TlsSettings:
    """The settings with both files named; made in `cert_dir` when there are none that can be used."""
    if settings.cert_file or settings.key_file:
        if not (settings.cert_file and settings.key_file):
            given, missing = ("tlsCertFile", "tlsPrivateKeyFile")[:: 1 if settings.cert_file else -1]
            raise ConfigError(f"{given} is set and {missing} is not: give both, or none for a self-signed certificate")
        return settings
    cert_file, key_file = settings.cert_dir / "kubelet.crt", settings.cert_dir / "kubelet.key"
    try:
        if not _is_usable(cert_file, key_file):
            settings.cert_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
            certificate, key = _make_self_signed(node_name, addresses)
            write_atomic(key_file, key, 0o600)
            write_atomic(cert_file, certificate, 0o644)
            _log.info("serving_certificate_made", cert_file=str(cert_file), node=node_name)
    except OSError as error:
        raise ConfigError(f"cannot write a serving certificate into {settings.cert_dir}: {error.strerror}") from error
    return TlsSettings(str(cert_file), str(key_file), settings.cert_dir, settings.min_version, settings.cipher_suites)


_ALWAYS_ON: Final = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
"""Those of TLS 1.3 cannot be chosen, neither here nor in Go; naming them is no mistake."""


def openssl_cipher(name: str) -> str:
    """OpenSSL's name of a cipher suite that is written as IANA does; not for those of TLS 1.3."""
    exchange, _, cipher = name.removeprefix("TLS_").partition("_WITH_")
    if not cipher:
        raise ConfigError(f"tlsCipherSuites: {name!r} is no cipher suite")
    special = {"3DES_EDE_CBC_SHA": "DES-CBC3-SHA", "RC4_128_SHA": "RC4-SHA"}
    if cipher in special:
        short = special[cipher]
    elif cipher.startswith("CHACHA20_POLY1305"):
        short = "CHACHA20-POLY1305"
    else:
        short = cipher.replace("AES_", "AES", 1).replace("_CBC", "").replace("_", "-")
    return short if exchange == "RSA" else f"{exchange.replace('_', '-')}-{short}"


def _make_context(settings: TlsSettings, client_ca_file: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.minimum_version = _VERSIONS[settings.min_version]
    except KeyError as error:
        raise ConfigError(f"tlsMinVersion: {settings.min_version!r} is not one of {', '.join(_VERSIONS)}") from error
    context.set_alpn_protocols(["http/1.1"])
    # A resumed session would skip the look at the client's certificate after the CA changed.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    chosen = [name for name in settings.cipher_suites if name not in _ALWAYS_ON]
    if settings.cipher_suites and not chosen:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if chosen:
        try:
            context.set_ciphers(":".join(map(openssl_cipher, chosen)))
        except ssl.SSLError as error:
            raise ConfigError(f"tlsCipherSuites: none of {', '.join(settings.cipher_suites)} is available") from error
    _load(lambda: context.load_cert_chain(settings.cert_file, settings.key_file), settings.cert_file, settings.key_file)
    if client_ca_file:
        _load(lambda: context.load_verify_locations(cafile=client_ca_file), client_ca_file)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _load(action: Callable[[], None], *paths: str) -> None:
    try:
        for path in paths:
            with open(path, "rb"):
                pass
        action()
    except ssl.SSLError as error:
        what = " and ".join(paths)
        raise ConfigError(f"{what}: no usable PEM certificate or key that belong together ({error.reason})") from error
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename or paths[0]}: {error.strerror}") from error


def _file_signature(path: str) -> tuple[int, int, int] | None:
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size


def _is_usable(cert_file: Path, key_file: Path) -> bool:
    if not (cert_file.exists() and key_file.exists()):
        return False
    from cryptography import x509

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file)
        return x509.load_pem_x509_certificate(cert_file.read_bytes()).not_valid_after_utc > datetime.now(UTC)
    except (ssl.SSLError, ValueError):
        return False


def _make_self_signed(node_name: str, addresses: Sequence[str]) -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{node_name}@{int(now.timestamp())}"[:64])])
    names: list[x509.GeneralName] = [x509.DNSName(node_name)]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _SELF_SIGNED_LIFE)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem_key = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), pem_key
