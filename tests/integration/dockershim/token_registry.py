"""A registry that wants a token and has no images: `python -m ... PORT FILE`; FILE tells with what it was asked."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

ISSUED = "issued-by-the-token-server"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"  # who tries TLS shall see that this is HTTP, and try again without
    seen = Path()
    lock = threading.Lock()

    def tell(self, **what: str) -> None:
        with self.lock, self.seen.open("a") as file:
            file.write(json.dumps(what) + "\n")

    def do_GET(self) -> None:
        path, given = urlsplit(self.path).path, self.headers.get("Authorization", "")
        if path == "/token":
            self.tell(asked="token", authorization=given)
            self.answer(200, {"token": ISSUED, "access_token": ISSUED})
        elif not given.startswith("Bearer "):
            self.answer(401, {}, f'Bearer realm="http://{self.headers["Host"]}/token",service="lab"')
        else:
            self.tell(asked=path, authorization=given)
            self.answer(404 if "/manifests/" in path else 200, {"errors": [{"code": "MANIFEST_UNKNOWN"}]})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        self.tell(asked="token", **{name: values[0] for name, values in form.items()})
        self.answer(200, {"token": ISSUED, "access_token": ISSUED})

    def answer(self, status: int, content: object, challenge: str = "") -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    Handler.seen = Path(sys.argv[2])
    Handler.seen.touch()
    server.serve_forever()
