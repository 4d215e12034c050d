"""Stop signals: CRI's enum and the names that Docker takes. Pure."""

from __future__ import annotations

import re
from typing import cast

from cri_proto import runtime_v1 as cri

_PREFIX = "SIGNAL_"
_REALTIME = re.compile(r"^SIGRT(MIN|MAX)(PLUS|MINUS)(\d+)$")
_REALTIME_DOCKER = re.compile(r"^SIGRT(MIN|MAX)([+-])(\d+)$")


def to_docker_signal(signal: cri.Signal) -> str:
    """Docker's name; empty for the runtime's default."""
    if signal == cri.Signal.SIGNAL_RUNTIME_DEFAULT:
        return ""
    name = cri.Signal.Name(signal).removeprefix(_PREFIX)
    return _REALTIME.sub(lambda m: f"SIGRT{m[1]}{'+' if m[2] == 'PLUS' else '-'}{m[3]}", name)


def to_cri_signal(name: str) -> cri.Signal:
    """CRI's value of what Docker or an image says; SIGTERM where it says nothing, the default for the unknown."""
    text = (name or "SIGTERM").upper()
    if text.isdigit():
        return _BY_NUMBER.get(text.lstrip("0"), cri.Signal.SIGNAL_RUNTIME_DEFAULT)
    text = text if text.startswith("SIG") else f"SIG{text}"
    text = _REALTIME_DOCKER.sub(lambda m: f"SIGRT{m[1]}{'PLUS' if m[2] == '+' else 'MINUS'}{m[3]}", text)
    key = f"{_PREFIX}{text}"
    if key not in cri.Signal.keys():  # noqa: SIM118 - the enum wrapper is no mapping
        return cri.Signal.SIGNAL_RUNTIME_DEFAULT
    return cast(cri.Signal, cri.Signal.Value(key))


_BY_NUMBER = {
    "1": cri.Signal.SIGNAL_SIGHUP,
    "2": cri.Signal.SIGNAL_SIGINT,
    "3": cri.Signal.SIGNAL_SIGQUIT,
    "6": cri.Signal.SIGNAL_SIGABRT,
    "9": cri.Signal.SIGNAL_SIGKILL,
    "10": cri.Signal.SIGNAL_SIGUSR1,
    "12": cri.Signal.SIGNAL_SIGUSR2,
    "15": cri.Signal.SIGNAL_SIGTERM,
}
