"""Keys of each type that the API knows, with a request that their owner signed and nobody else could have."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kubelet_py.core.pod_certificates import KEY_TYPES
from kubelet_py.kube.key_pairs import UnknownKeyType, generate_key_pair

CURVES = {
    "ECDSAP256": (ec.SECP256R1, hashes.SHA256),
    "ECDSAP384": (ec.SECP384R1, hashes.SHA384),
    "ECDSAP521": (ec.SECP521R1, hashes.SHA512),
}


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_a_key_of_each_type_signs_an_empty_request(key_type: str) -> None:
    made = generate_key_pair(key_type)
    assert made.private_key.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert made.private_key.endswith(b"-----END PRIVATE KEY-----\n")
    key = serialization.load_pem_private_key(made.private_key, None)
    request = x509.load_der_x509_csr(made.request)
    assert request.is_signature_valid
    assert list(request.subject) == list(request.extensions) == list(request.attributes) == []
    assert request.public_key() == key.public_key()
    if isinstance(key, rsa.RSAPrivateKey):
        assert f"RSA{key.key_size}" == key_type
        assert isinstance(request.signature_hash_algorithm, hashes.SHA256)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        curve, digest = CURVES[key_type]
        assert isinstance(key.curve, curve)
        assert isinstance(request.signature_hash_algorithm, digest)
    else:
        assert isinstance(key, ed25519.Ed25519PrivateKey)
        assert key_type == "ED25519"
    assert "PRIVATE" not in repr(made)


def test_each_key_is_another() -> None:
    assert generate_key_pair("ED25519").private_key != generate_key_pair("ED25519").private_key


def test_a_type_that_is_not_known_is_named_with_those_that_are() -> None:
    with pytest.raises(UnknownKeyType, match=r'unknown key type "RSA2048"; known are RSA3072, .*, ED25519$'):
        generate_key_pair("RSA2048")
