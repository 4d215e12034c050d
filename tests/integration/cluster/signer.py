"""A signer of PodCertificateRequests, which decides when a test tells it to."""

from __future__ import annotations

import base64
import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.cluster.stage import Stage
from tests.integration.cluster.waiting import holds

REQUESTS = "/apis/certificates.k8s.io/v1/namespaces/default/podcertificaterequests"
_LIFE = datetime.timedelta(hours=2)


class Signer:
    """One authority with a name that no other test uses."""

    def __init__(self, stage: Stage) -> None:
        self.name = f"example.com/{stage.unique('signer')}"
        self._cluster = stage.cluster
        self._key = ec.generate_private_key(ec.SECP256R1())

    def requests(self, number: int) -> list[dict[str, Any]]:
        """The requests for this signer, once there are so many; the newest are the last."""

        def found() -> list[dict[str, Any]]:
            code, answer = self._cluster.request("GET", f"{REQUESTS}?fieldSelector=spec.signerName={self.name}")
            assert code == 200, answer
            items: list[dict[str, Any]] = answer["items"]
            assert len(items) == number, [(item["metadata"]["name"], item["spec"]["podName"]) for item in items]
            return sorted(items, key=lambda item: int(item["metadata"]["resourceVersion"]))

        return holds(found, within_seconds=30)

    def issue(self, request: dict[str, Any]) -> str:
        """Grants a request; the certificate as the pod should find it."""
        stub = x509.load_der_x509_csr(base64.b64decode(request["spec"]["stubPKCS10Request"]))
        begin = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, request["spec"]["podName"])]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(stub.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + _LIFE)
            .sign(self._key, hashes.SHA256())
        )
        text = certificate.public_bytes(serialization.Encoding.PEM).decode()
        times = {"notBefore": begin, "beginRefreshAt": begin + _LIFE / 2, "notAfter": begin + _LIFE}
        shown = {name: moment.isoformat() for name, moment in times.items()}
        self._decide(request, "Issued", "Signed", "", {"certificateChain": f"Leaf:\n{text}", **shown})
        return text

    def refuse(self, request: dict[str, Any], kind: str, reason: str, message: str) -> None:
        """Denies a request, or fails it."""
        self._decide(request, kind, reason, message, {})

    def _decide(self, request: dict[str, Any], kind: str, reason: str, message: str, rest: dict[str, str]) -> None:
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()
        said = {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
        path = f"{REQUESTS}/{request['metadata']['name']}/status"
        code, answer = self._cluster.request("PATCH", path, {"status": {"conditions": [said], **rest}})
        assert code == 200, answer
