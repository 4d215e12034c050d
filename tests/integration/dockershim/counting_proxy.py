"""A Unix socket in front of Docker's that counts the requests passing through, and can be told to get in their way."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_REQUEST = re.compile(rb"^(GET|POST|DELETE|HEAD|PUT) (\S+) HTTP/1\.1\r\n")
_VERSION = re.compile(r"^/v\d+\.\d+")
_IDENTIFIER = re.compile(r"/[0-9a-f]{64}|/k8s_[^/]+|(?<=^/images)/.*[:@].*?(?=/json$|$)")
Hook = Callable[[str], bool]
"""Told of a request or of the beginning of its answer (method and path); False keeps it from being passed on."""


def _pass_on(request: str) -> bool:
    return True


@dataclass
class _Link:
    near: socket.socket
    far: socket.socket
    request: str = ""
    """What was asked last."""
    asked: int = 0

    def close(self) -> None:
        for end in (self.near, self.far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class CountingProxy:
    """Carries bytes both ways. `counts` has method and path, ids left out."""

    def __init__(self, listen: Path, target: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.on_request: Hook = _pass_on
        self.on_answer: Hook = _pass_on
        self._target = str(target)
        self._links: list[_Link] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(listen))
        self._listener.listen(128)
        self._closed = False
        threading.Thread(target=self._accept, daemon=True, name="counting-proxy").start()

    def reset(self) -> None:
        """Count from zero."""
        self.counts.clear()

    def settle(self, quiet_seconds: float = 0.5) -> None:
        """Until nothing has been asked for so long: what was done has had its echo."""
        seen, since = self.counts.total(), time.monotonic()
        while time.monotonic() - since < quiet_seconds:
            time.sleep(0.02)
            if self.counts.total() != seen:
                seen, since = self.counts.total(), time.monotonic()

    def stop_interfering(self) -> None:
        """Pass everything on again."""
        self.on_request = self.on_answer = _pass_on

    def cut(self, request: str) -> int:
        """End the connections on which this was asked last; how many."""
        cut = [link for link in self._links if link.request == request]
        for link in cut:
            link.close()
        return len(cut)

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
            link = _Link(near, far)
            self._links.append(link)
            threading.Thread(target=self._carry, args=(link, self._requests), daemon=True).start()
            threading.Thread(target=self._carry, args=(link, self._answers), daemon=True).start()

    def _carry(self, link: _Link, way: Callable[[_Link], None]) -> None:
        with contextlib.suppress(OSError):
            way(link)
        if way == self._answers:
            self._links.remove(link)
            link.near.close()
            link.far.close()

    def _requests(self, link: _Link) -> None:
        while data := link.near.recv(256 * 1024):
            found = _REQUEST.match(data)
            if found:
                path = _VERSION.sub("", found[2].decode().partition("?")[0])
                link.request = f"{found[1].decode()} {_IDENTIFIER.sub('/ID', path)}"
                link.asked += 1
                self.counts[link.request] += 1
                if not self.on_request(link.request):
                    link.close()
                    return
            link.far.sendall(data)
        link.far.shutdown(socket.SHUT_WR)

    def _answers(self, link: _Link) -> None:
        answered = 0
        while data := link.far.recv(256 * 1024):
            if link.asked != answered:
                answered = link.asked
                if not self.on_answer(link.request):
                    link.close()
                    return
            link.near.sendall(data)
        link.near.shutdown(socket.SHUT_WR)
