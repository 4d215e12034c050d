"""A kubeconfig becomes a connection; a wrong one says what is wrong, where, and what would be right."""

import base64
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kubelet_py.errors import ApiUnavailable, ConfigError
from kubelet_py.kube.client import ApiClient, ClientSettings
from kubelet_py.kube.connection import Connection
from kubelet_py.kube.kubeconfig import load_kubeconfig


class Authority:
    """Signs certificates for one test."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        self.pem = self._pem(self._sign(self._name, self._key.public_key(), ca=True))

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """A certificate and its key, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key.public_key(), ca=False)
        return self._pem(certificate), key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())

    @staticmethod
    def _pem(certificate: x509.Certificate) -> bytes:
        return certificate.public_bytes(serialization.Encoding.PEM)


def written(directory: Path, *, cluster: dict[str, Any] | None = None, user: Any = None, **top: Any) -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://localhost:6443"} | (cluster or {})}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    } | top
    path = directory / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return path


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def problems(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        load_kubeconfig(path)
    return refused.value.problems


def test_relative_files_are_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0\n")
    config = load_kubeconfig(written(tmp_path, user={"tokenFile": "token"}))
    assert config.token.file == tmp_path / "token"
    assert Connection(config).authorization == "Bearer t0"


def test_a_token_file_is_read_again(tmp_path: Path) -> None:
    now = [0.0]
    (tmp_path / "token").write_text("t0")
    config = load_kubeconfig(written(tmp_path, user={"tokenFile": "token", "token": "ignored"}))
    connection = Connection(config, clock=lambda: now[0])
    (tmp_path / "token").write_text("t1")
    assert connection.authorization == "Bearer t0"
    now[0] = 11.0
    assert connection.authorization == "Bearer t1"
    (tmp_path / "token").unlink()
    now[0] = 22.0
    assert connection.authorization == "Bearer t1"


def test_a_server_without_a_scheme_is_https_and_a_password_is_basic(tmp_path: Path) -> None:
    path = written(tmp_path, cluster={"server": "host:6443"}, user={"username": "a", "password": "b"})
    config = load_kubeconfig(path)
    assert config.server == "https://host:6443"
    assert Connection(config).authorization == "Basic YTpi"


def test_secrets_do_not_show(tmp_path: Path) -> None:
    config = load_kubeconfig(written(tmp_path, user={"token": "secret-token"}))
    assert "secret-token" not in repr(config)
    assert "secret-token" not in repr(config.token)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path / "none") == (
        f"{tmp_path}/none: cannot be read: No such file or directory; --kubeconfig must name a kubeconfig file",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "neither YAML nor JSON"),
        ("- a", "a kubeconfig is a mapping"),
        ("clusters: 1", "Expected `array | null`, got `int` - at `$.clusters`"),
        ("kind: Config", "current-context: missing: name one of the contexts none"),
    ],
)
def test_what_is_no_kubeconfig_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    (problem,) = problems(path)
    assert problem.startswith(f"{path}: ")
    assert said in problem


def test_names_that_lead_nowhere_are_refused_with_those_there_are(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text().replace("current-context: x", "current-context: y"))
    assert problems(path) == (f"{tmp_path}/kubeconfig: current-context: no context is called 'y'; there are 'x'",)
    lost = [{"name": "x", "context": {"cluster": "nope", "user": "u"}}]
    assert (
        "contexts[x].context.cluster: no cluster is called 'nope'; there are 'c'"
        in problems(written(tmp_path, contexts=lost))[0]
    )


def test_everything_wrong_is_said_in_one_go(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        cluster={"server": "ftp://host", "certificate-authority": "/no/ca.pem"},
        user={"client-certificate-data": "###", "client-key": "/no/key.pem", "exec": {"command": "a"}},
    )
    at = f"{path}: "
    assert set(problems(path)) == {
        f"{at}clusters[c].cluster.server: 'ftp://host' is not the address of a server; right would be https://HOST:PORT",
        f"{at}clusters[c].cluster.certificate-authority: /no/ca.pem is not a file that can be read",
        f"{at}users[u].user.client-certificate-data: not base64; right would be the base64 form of a PEM file",
        f"{at}users[u].user.client-key: /no/key.pem is not a file that can be read",
        f"{at}users[u].user.client-certificate: missing: a client key needs its certificate",
        f"{at}users[u].user.exec: not supported: use client-certificate and client-key, token or tokenFile",
    }


def test_nobody_else_is_spoken_for(tmp_path: Path) -> None:
    """Requests in the node's own name, when another's was meant, would be worse than none."""
    user = {"as": "other", "as-uid": "1", "as-groups": ["system:nodes"], "as-user-extra": {"reason": ["test"]}}
    path = written(tmp_path, user=user)
    hint = "not supported: use the credentials of the node itself"
    assert problems(path) == tuple(f"{path}: users[u].user.{name}: {hint}" for name in user)
    load_kubeconfig(written(tmp_path, user={"as": "", "as-groups": []}))


def test_a_proxy_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, cluster={"proxy-url": "socks5://user:secret@proxy:1080"})
    (problem,) = problems(path)
    assert problem.startswith(f"{path}: clusters[c].cluster.proxy-url: a proxy of the kind socks5 is not supported")
    assert "secret" not in problem


def test_the_kubeconfigs_proxy_comes_before_the_environments(tmp_path: Path) -> None:
    environment = {"HTTPS_PROXY": "http://outside:3128", "NO_PROXY": "10.0.0.0/8"}

    def proxy_of(**cluster: str) -> str | None:
        config = load_kubeconfig(written(tmp_path, cluster=cluster))
        return Connection(config, environment=environment).proxy_url

    assert proxy_of(server="https://api.example:6443") == "http://outside:3128"
    assert proxy_of(server="https://10.0.0.1:6443") is None
    assert proxy_of(**{"server": "https://10.0.0.1:6443", "proxy-url": "http://own:3128"}) == "http://own:3128"


async def test_requests_go_through_the_proxy(tmp_path: Path) -> None:
    """With the credentials that stand in its address."""
    seen: list[tuple[str, str]] = []

    async def proxy(request: web.BaseRequest) -> web.Response:
        seen.append((request.raw_path, request.headers["Proxy-Authorization"]))
        return web.Response(text="through the proxy")

    runner = web.ServerRunner(web.Server(proxy))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    environment = {"HTTP_PROXY": f"http://me:secret@127.0.0.1:{runner.addresses[0][1]}"}
    config = load_kubeconfig(written(tmp_path, cluster={"server": "http://api.example:8080"}))
    async with ApiClient(Connection(config, environment=environment), ClientSettings("test")) as client:
        assert await client.get_raw("/version") == b"through the proxy"
    await runner.cleanup()
    assert seen == [("http://api.example:8080/version", f"Basic {encoded(b'me:secret')}")]


def test_a_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, cluster={"certificate-authority-data": encoded(b"nonsense")})
    with pytest.raises(ConfigError, match="certificate-authority-data: no PEM certificate in it"):
        Connection(load_kubeconfig(path))


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    authority = Authority()
    user = {
        "client-certificate-data": encoded(authority.issue("a")[0]),
        "client-key-data": encoded(authority.issue("b")[1]),
    }
    with pytest.raises(ConfigError, match="not a PEM certificate with its own key"):
        Connection(load_kubeconfig(written(tmp_path, user=user)))


class TlsServer:
    """Answers with the name in the client's certificate."""

    def __init__(self, authority: Authority, directory: Path) -> None:
        certificate, key = authority.issue("server")
        (directory / "server.pem").write_bytes(certificate + key)
        (directory / "ca.pem").write_bytes(authority.pem)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(directory / "ca.pem"))
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(directory / "server.pem")
        self.port = 0

    async def start(self) -> web.AppRunner:
        application = web.Application()
        application.router.add_get("/whoami", self._whoami)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._context).start()
        self.port = runner.addresses[0][1]
        return runner

    async def _whoami(self, request: web.Request) -> web.Response:
        transport = request.transport
        assert transport is not None
        subject = transport.get_extra_info("peercert")["subject"]
        return web.Response(text=str(subject[0][0][1]))


async def test_a_client_certificate_that_rotates_is_used_without_a_restart(tmp_path: Path) -> None:
    """As TLS bootstrap does it: certificate and key in one file, replaced under the running agent."""
    authority, now = Authority(), [0.0]
    server = TlsServer(authority, tmp_path)
    runner = await server.start()
    bundle = tmp_path / "client.pem"
    bundle.write_bytes(b"".join(authority.issue("first")))
    path = written(
        tmp_path,
        cluster={
            "server": f"https://127.0.0.1:{server.port}",
            "certificate-authority": "ca.pem",
            "tls-server-name": "localhost",
        },
        user={"client-certificate": "client.pem", "client-key": "client.pem"},
    )
    connection = Connection(load_kubeconfig(path), clock=lambda: now[0])
    async with ApiClient(connection, ClientSettings("test")) as client:
        assert await client.get_raw("/whoami") == b"first"
        bundle.write_bytes(b"".join(authority.issue("second")))
        assert await client.get_raw("/whoami") == b"first"
        now[0] = 11.0
        assert await client.get_raw("/whoami") == b"second"
        bundle.write_bytes(b"half written")
        now[0] = 22.0
        assert await client.get_raw("/whoami") == b"second"
    await runner.cleanup()


async def test_a_server_of_another_authority_is_not_spoken_to(tmp_path: Path) -> None:
    server = TlsServer(Authority(), tmp_path)
    runner = await server.start()
    cluster = {
        "server": f"https://localhost:{server.port}",
        "certificate-authority-data": encoded(Authority().pem),
    }
    connection = Connection(load_kubeconfig(written(tmp_path, cluster=cluster)))
    async with ApiClient(connection, ClientSettings("test")) as client:
        with pytest.raises(ApiUnavailable, match="certificate verify failed"):
            await client.get_raw("/whoami")
    await runner.cleanup()
