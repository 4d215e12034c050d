"""Two who let signed images only be pulled: `python -m ... PORT SOCKET`.

On PORT a registry that refuses the manifest of what nobody signed, as Harbor does in a project with that policy
(412, PROJECTPOLICYVIOLATION). On SOCKET an authorization plugin of Docker that refuses such a pull to the client.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from socketserver import ThreadingUnixStreamServer
from typing import Any

UNSIGNED = "unsigned"
"""In the path of what is refused."""


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"

    def answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def address_string(self) -> str:
        return "docker"  # a unix socket has no address


class PolicyRegistry(Answers):
    def do_GET(self) -> None:
        if "/manifests/" in self.path:
            error = {"code": "PROJECTPOLICYVIOLATION", "message": "The image is not signed by cosign."}
            self.answer(412, {"errors": [error]})
        else:
            self.answer(200, {})

    do_HEAD = do_GET


class PolicyPlugin(Answers):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if self.path == "/Plugin.Activate":
            self.answer(200, {"Implements": ["authz"]})
            return
        is_unsigned = self.path == "/AuthZPlugin.AuthZReq" and UNSIGNED in asked["RequestUri"]
        refusal = f"no valid signature of {UNSIGNED} was found"
        self.answer(200, {"Allow": False, "Msg": refusal} if is_unsigned else {"Allow": True})


class UnixHTTPServer(ThreadingUnixStreamServer):
    daemon_threads = True


if __name__ == "__main__":
    registry: HTTPServer = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), PolicyRegistry)
    threading.Thread(target=registry.serve_forever, daemon=True).start()
    UnixHTTPServer(sys.argv[2], PolicyPlugin).serve_forever()
