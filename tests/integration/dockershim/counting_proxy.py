"""A Unix socket in front of Docker's that counts the requests passing through."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import Counter
from pathlib import Path

_REQUEST = re.compile(rb"^(GET|POST|DELETE|HEAD|PUT) (\S+) HTTP/1\.1\r\n")
_VERSION = re.compile(r"^/v\d+\.\d+")
_IDENTIFIER = re.compile(r"/[0-9a-f]{64}|/k8s_[^/]+|(?<=^/images)/.*[:@].*?(?=/json$|$)")


class CountingProxy:
    """Carries bytes both ways. `counts` has method and path, ids left out; `calls` every request in order."""

    def __init__(self, listen: Path, target: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._target = str(target)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(listen))
        self._listener.listen(128)
        self._closed = False
        threading.Thread(target=self._accept, daemon=True, name="counting-proxy").start()

    def reset(self) -> None:
        """Count from zero."""
        self.counts.clear()

    def close(self) -> None:
        """Take no more connections."""
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(self._target)
            except OSError:
                near.close()
                far.close()
                continue
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(256 * 1024):
                found = _REQUEST.match(data) if counted else None
                if found:
                    path = _VERSION.sub("", found[2].decode().partition("?")[0])
                    self.counts[f"{found[1].decode()} {_IDENTIFIER.sub('/ID', path)}"] += 1
                sink.sendall(data)
        except OSError:
            pass
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        if not counted:
            source.close()
            sink.close()
