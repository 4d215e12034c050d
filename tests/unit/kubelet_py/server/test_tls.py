"""Cipher names, and the settings of serving certificates."""

import ssl
from pathlib import Path

import pytest

from kubelet_py.errors import ConfigError
from kubelet_py.server.settings import TlsSettings
from kubelet_py.server.tls import ServingContext, ensure_self_signed, openssl_cipher


@pytest.mark.parametrize(
    ("name", "openssl"),
    [
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"),
        ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("TLS_RSA_WITH_AES_128_CBC_SHA", "AES128-SHA"),
        ("TLS_RSA_WITH_AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "ECDHE-RSA-AES128-SHA256"),
    ],
)
def test_names_of_ciphers_are_translated_into_ones_that_openssl_knows(name: str, openssl: str) -> None:
    assert openssl_cipher(name) == openssl
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(f"{openssl}:@SECLEVEL=0")


def test_names_out_of_use_are_translated_too() -> None:
    assert openssl_cipher("TLS_RSA_WITH_3DES_EDE_CBC_SHA") == "DES-CBC3-SHA"
    assert openssl_cipher("TLS_ECDHE_RSA_WITH_RC4_128_SHA") == "ECDHE-RSA-RC4-SHA"


def test_settings_that_cannot_be_are_refused_with_what_would_be_right(tmp_path: Path) -> None:
    made = ensure_self_signed(TlsSettings(cert_dir=tmp_path), "node-1", ["10.0.0.1", "fd00::1"])
    with pytest.raises(ConfigError, match="tlsMinVersion: 'VersionTLS9' is not one of"):
        ServingContext(TlsSettings(made.cert_file, made.key_file, tmp_path, "VersionTLS9"), "")
    with pytest.raises(ConfigError, match="'SOME' is no cipher suite"):
        ServingContext(TlsSettings(made.cert_file, made.key_file, tmp_path, "", ("SOME",)), "")
    with pytest.raises(ConfigError, match="none of TLS_NO_WITH_SUCH is available"):
        ServingContext(TlsSettings(made.cert_file, made.key_file, tmp_path, "", ("TLS_NO_WITH_SUCH",)), "")
    with pytest.raises(ConfigError, match="tlsCertFile is not: give both"):
        ensure_self_signed(TlsSettings("", "/key"), "node-1", [])
    other = ensure_self_signed(TlsSettings(cert_dir=tmp_path / "other"), "node-1", [])
    with pytest.raises(ConfigError, match="that belong together"):
        ServingContext(TlsSettings(made.cert_file, other.key_file), "")
    suite = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
    context = ServingContext(
        TlsSettings(made.cert_file, made.key_file, tmp_path, "VersionTLS12", (suite,)), ""
    ).listener
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert "ECDHE-ECDSA-AES128-GCM-SHA256" in {cipher["name"] for cipher in context.get_ciphers()}


def test_suites_of_tls_1_3_may_be_named_and_are_always_on(tmp_path: Path) -> None:
    made = ensure_self_signed(TlsSettings(cert_dir=tmp_path), "node-1", [])
    new, old = "TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"

    def context(*suites: str) -> ssl.SSLContext:
        return ServingContext(TlsSettings(made.cert_file, made.key_file, tmp_path, "", suites), "").listener

    assert context(new).minimum_version == ssl.TLSVersion.TLSv1_3
    both = context(new, old)
    assert both.minimum_version < ssl.TLSVersion.TLSv1_3
    older = {cipher["name"] for cipher in both.get_ciphers() if cipher["protocol"] != "TLSv1.3"}
    assert older == {"ECDHE-ECDSA-AES128-GCM-SHA256"}


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write a serving certificate into .*/file/pki: Not a directory"):
        ensure_self_signed(TlsSettings(cert_dir=tmp_path / "file" / "pki"), "node-1", [])
