"""Docker's json-file as dockerd writes it: entries made here, and what the CRI log of them must be."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One entry: text with or without its newline."""

    text: str
    stream: str = "stdout"
    number: int = 0

    @property
    def time(self) -> str:
        """A time of its own."""
        return f"2026-11-22T20:{self.number // 60 % 60:02d}:{self.number % 60:02d}.{self.number:09d}Z"

    def docker(self) -> bytes:
        """As dockerd writes it."""
        entry = {"log": self.text, "stream": self.stream, "time": self.time}
        return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    def cri(self) -> bytes:
        """As it must be in the CRI log."""
        full = self.text.endswith("\n")
        text = self.text.removesuffix("\n").removesuffix("\r" if full else "")
        return f"{self.time} {self.stream} {'F' if full else 'P'} {text}\n".encode()


def docker(lines: list[Line]) -> bytes:
    """A whole file."""
    return b"".join(line.docker() for line in lines)


def cri(lines: list[Line]) -> bytes:
    """The log of it."""
    return b"".join(line.cri() for line in lines)
