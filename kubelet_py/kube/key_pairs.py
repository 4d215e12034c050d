"""Private keys for pods, and the proof that the agent has them.

Owns making a key of each type that the API knows and the empty certificate request that it signs: signers read the
public key out of it and nothing else. Making an RSA key takes a second of a processor, which the caller spends in a
thread. The library is loaded with the first key.

Upstream counterpart: generateKeyAndProof of pkg/kubelet/podcertificate.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kubelet_py.core.pod_certificates import KEY_TYPES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

    _Maker = tuple[Callable[[], CertificateIssuerPrivateKeyTypes], hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None]


class UnknownKeyType(ValueError):
    """The API knows no such type, or a newer one does."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The private key as PEM (PKCS#8), and a PKCS#10 request in DER that it signed."""

    private_key: bytes = field(repr=False)
    request: bytes


def generate_key_pair(key_type: str) -> KeyPair:
    """A new key. Blocking."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    makers: dict[str, _Maker] = {
        "RSA3072": (lambda: rsa.generate_private_key(65537, 3072), hashes.SHA256()),
        "RSA4096": (lambda: rsa.generate_private_key(65537, 4096), hashes.SHA256()),
        "ECDSAP256": (lambda: ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()),
        "ECDSAP384": (lambda: ec.generate_private_key(ec.SECP384R1()), hashes.SHA384()),
        "ECDSAP521": (lambda: ec.generate_private_key(ec.SECP521R1()), hashes.SHA512()),
        "ED25519": (ed25519.Ed25519PrivateKey.generate, None),
    }
    if key_type not in makers:
        raise UnknownKeyType(f'unknown key type "{key_type}"; known are {", ".join(KEY_TYPES)}')
    make, digest = makers[key_type]
    key = make()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, digest)
    encoding = serialization.Encoding
    return KeyPair(
        key.private_bytes(encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        request.public_bytes(encoding.DER),
    )
