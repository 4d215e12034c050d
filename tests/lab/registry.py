"""An image registry inside a lab that answers as the public ones do: Debian's docker-registry, plain HTTP, port 80.

Owns the storage tree of one lab (links to the cached blobs, so nothing is copied) and the network namespace that the
registry runs in: the node's own port 80 stays free for host-network pods and host ports. The same images are served
at `PRIVATE_NAME` to those who log in, for pull secrets.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import http.client
import json
from collections.abc import Mapping
from pathlib import Path

from tests.lab import debian
from tests.lab.images.catalog import Manifest
from tests.lab.process import LabError, LabProcess
from tests.lab.sandbox import Sandbox

PUBLIC_NAMES = ("registry.k8s.io", "gcr.io", "k8s.gcr.io")
PRIVATE_NAME = "private.lab.invalid"
ALL_NAMES = (*PUBLIC_NAMES, PRIVATE_NAME)
PUBLIC_ADDRESS = "10.200.0.2"
PRIVATE_ADDRESS = "10.200.0.3"
USER, PASSWORD = "lab-user", "lab-password"
NETWORK_SCRIPT = f"""
ip netns add registry
ip link add registry0 type veth peer name eth0 netns registry
ip link set registry0 master lab0 up
ip -n registry addr add {PUBLIC_ADDRESS}/24 dev eth0
ip -n registry addr add {PRIVATE_ADDRESS}/24 dev eth0
ip -n registry link set lo up
ip -n registry link set eth0 up
"""


def repository_of(reference: str) -> tuple[str, str]:
    """The name below the host, and the tag, of a reference HOST/NAME:TAG."""
    _, _, rest = reference.partition("/")
    name, _, tag = rest.rpartition(":")
    return name, tag


class Registry:
    """A running registry. `add` puts further images into it."""

    def __init__(self, sandbox: Sandbox, images: Mapping[str, Manifest]) -> None:
        debian.ensure("docker-registry", "iproute2")
        self._sandbox = sandbox
        self._directory = sandbox.root / "registry"
        self._storage = self._directory / "storage" / "docker" / "registry" / "v2"
        for reference, manifest in images.items():
            self.add(reference, manifest)
        sandbox.run(["sh", "-ec", NETWORK_SCRIPT])
        sandbox.add_host_names(PUBLIC_ADDRESS, *PUBLIC_NAMES)
        sandbox.add_host_names(PRIVATE_ADDRESS, PRIVATE_NAME)
        self.processes: dict[str, LabProcess] = {}
        self.start()

    def start(self) -> None:
        """Start the servers that do not run; used again by tests that stopped one."""
        for name, address, private in (("public", PUBLIC_ADDRESS, False), ("private", PRIVATE_ADDRESS, True)):
            if name in self.processes and self.processes[name].poll() is None:
                continue
            file = self._directory / f"{name}.json"
            file.write_text(json.dumps(self._configuration(address, private=private), indent=2))
            process = self._sandbox.popen(
                ["nsenter", "--net=/run/netns/registry", "docker-registry", "serve", file], log=f"registry-{name}"
            )
            self.processes[name] = process
        for name, address in (("public", PUBLIC_ADDRESS), ("private", PRIVATE_ADDRESS)):
            ready = functools.partial(self._answers, address)
            self._sandbox.wait_until(f"the {name} registry", ready, process=self.processes[name])

    def _configuration(self, address: str, *, private: bool) -> dict[str, object]:
        """docker-registry's configuration; JSON is YAML."""
        described: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": False}},
            "storage": {
                "filesystem": {"rootdirectory": str(self._directory / "storage")},
                "delete": {"enabled": True},
            },
            "http": {"addr": f"{address}:80"},
        }
        if private:
            passwords = self._directory / "htpasswd"
            passwords.write_text(f"{USER}:{bcrypt(PASSWORD)}\n")
            described["auth"] = {"htpasswd": {"realm": "lab", "path": str(passwords)}}
        return described

    def _answers(self, address: str) -> bool:
        try:
            with contextlib.closing(http.client.HTTPConnection(address)) as connection:
                connection.sock = self._sandbox.connect(address, 80, 2.0)
                connection.request("GET", "/v2/")
                return connection.getresponse().status in (200, 401)
        except OSError:
            return False

    def add(self, reference: str, manifest: Manifest) -> None:
        """Put an image into the storage tree, also while the registry runs."""
        name, tag = repository_of(reference)
        repository = self._storage / "repositories" / name
        digest = self._blob(manifest.text)
        for layer in (self._blob(manifest.configuration), *manifest.layers):
            _link(repository / "_layers", layer)
        for layer, file in manifest.layers.items():
            data = self._data(layer)
            if not data.is_symlink():
                data.symlink_to(file)
        _link(repository / "_manifests" / "revisions", digest)
        tags = repository / "_manifests" / "tags" / tag
        _link(tags / "index", digest)
        (tags / "current").mkdir(exist_ok=True)
        (tags / "current" / "link").write_text(digest)

    def _data(self, digest: str) -> Path:
        value = digest.removeprefix("sha256:")
        directory = self._storage / "blobs" / "sha256" / value[:2] / value
        directory.mkdir(parents=True, exist_ok=True)
        return directory / "data"

    def _blob(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._data(digest).write_bytes(content)
        return digest


def _link(directory: Path, digest: str) -> None:
    place = directory / "sha256" / digest.removeprefix("sha256:")
    place.mkdir(parents=True, exist_ok=True)
    (place / "link").write_text(digest)


def bcrypt(password: str) -> str:
    """A bcrypt hash by the system's libcrypt; the salt is fixed, as this guards nothing but a test."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    hashed: bytes | None = library.crypt(password.encode(), b"$2b$04$labLABlabLABlabLABlabO")
    if not hashed or not hashed.startswith(b"$2b$"):
        raise LabError("libcrypt cannot make a bcrypt hash")
    return hashed.decode()
