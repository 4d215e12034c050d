"""A registry with images whose layer never comes whole: `python -m ... PORT FILE`; FILE tells what it saw."""

from __future__ import annotations

import hashlib
import json
import os
import select
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LAYER_BYTES = 50_000_000
SENT_BYTES = 5_000_000
DOCKER = "application/vnd.docker"
LAYER = f"sha256:{hashlib.sha256(b'never to be had').hexdigest()}"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


CONFIGURATION = json.dumps(
    {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [LAYER]},
        "history": [{"created_by": "nobody"}],
    }
).encode()
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": f"{DOCKER}.distribution.manifest.v2+json",
        "config": {
            "mediaType": f"{DOCKER}.container.image.v1+json",
            "size": len(CONFIGURATION),
            "digest": digest(CONFIGURATION),
        },
        "layers": [
            {"mediaType": f"{DOCKER}.image.rootfs.diff.tar.gzip", "size": LAYER_BYTES, "digest": LAYER},
        ],
    }
).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"  # who tries TLS shall see that this is HTTP, and try again without
    seen = Path(sys.argv[2])
    lock = threading.Lock()

    def tell(self, text: str) -> None:
        with self.lock, self.seen.open("a") as file:
            file.write(text + "\n")

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        if "/manifests/" in self.path:
            self.answer(MANIFEST, f"{DOCKER}.distribution.manifest.v2+json")
        elif name == digest(CONFIGURATION):
            self.answer(CONFIGURATION, "application/octet-stream")
        elif name == LAYER:
            self.stall()
        else:
            self.answer(b"{}", "application/json")

    do_HEAD = do_GET

    def answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        for header, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Docker-Content-Digest", digest(body)),
            ("Docker-Distribution-Api-Version", "registry/2.0"),
        ):
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def stall(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(LAYER_BYTES))
        self.end_headers()
        self.wfile.write(os.urandom(SENT_BYTES))
        self.tell("stalls")
        try:
            while True:  # `trickles` sends a little now and then, `stalls` never again
                gone, _, _ = select.select([self.connection], [], [], 0.05)
                if gone:
                    break
                if "/trickles/" in self.path:
                    self.wfile.write(os.urandom(100))
        except OSError:
            pass
        self.tell("hung up")
        self.close_connection = True


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    Handler.seen.touch()
    server.serve_forever()
