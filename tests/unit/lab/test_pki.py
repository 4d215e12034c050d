"""The certificates of a lab cluster do what TLS and Kubernetes read from them."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.lab.pki import Authority, kubeconfig, write_signing_key


def test_a_client_certificate_names_user_and_groups_and_is_signed_by_the_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    issued = authority.issue("node", "system:node:n1", organizations=["system:nodes"])
    certificate = x509.load_pem_x509_certificate(issued.certificate.read_bytes())
    signer = x509.load_pem_x509_certificate(authority.credentials.certificate.read_bytes())
    certificate.verify_directly_issued_by(signer)
    names = {
        oid: [attribute.value for attribute in certificate.subject.get_attributes_for_oid(oid)]
        for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
    }
    assert names == {NameOID.COMMON_NAME: ["system:node:n1"], NameOID.ORGANIZATION_NAME: ["system:nodes"]}
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_serving_certificate_names_its_addresses(tmp_path: Path) -> None:
    issued = Authority(tmp_path, "ca").issue("api", "api", server_names=["localhost", "10.0.0.1"])
    certificate = x509.load_pem_x509_certificate(issued.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.1")]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.SERVER_AUTH in usage


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    issued = Authority(tmp_path, "ca").issue("a", "a")
    pair = write_signing_key(tmp_path, "tokens")
    assert [oct(key.stat().st_mode & 0o777) for key in (issued.key, pair.key)] == ["0o600", "0o600"]


def test_a_kubeconfig_has_one_context_that_is_current() -> None:
    described = json.loads(kubeconfig("https://10.200.0.1:6443", Path("/ca.crt"), {"client-key": "/k"}))
    assert described["current-context"] == described["contexts"][0]["name"]
    assert described["clusters"][0]["cluster"]["server"] == "https://10.200.0.1:6443"
