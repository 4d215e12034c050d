"""What /statusz and /flagz say: the objects, and the same for people.

Owns their fields and lines; time, versions, flags and the sign between a name and its value are arguments. Pure.

Upstream counterpart: apiserver's pkg/server/statusz and pkg/server/flagz (KEPs 4827 and 4828). Deliberate differences:
no Go built this program, so the object's `goVersion` is empty and the text names Python's version instead; only paths
that this program serves are listed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from kubelet_py.core.content_negotiation import Target

_GROUP: Final = "config.k8s.io"
_DEPRECATED_VERSION: Final = "v1alpha1"
STATUSZ_KINDS: Final = (Target(_GROUP, _DEPRECATED_VERSION, "Statusz"), Target(_GROUP, "v1beta1", "Statusz"))
FLAGZ_KINDS: Final = (Target(_GROUP, _DEPRECATED_VERSION, "Flagz"), Target(_GROUP, "v1beta1", "Flagz"))
SEPARATORS: Final = (":", ": ", "=", " ")
"""One is drawn for each text, so that nobody takes it for something to parse."""
_NOTE: Final = (
    "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees "
    "and is for debugging purposes only."
)


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What there is to say about this process. `started` knows its time zone; `kubernetes` is as in v1.37.2."""

    started: datetime
    kubernetes: str
    python: str
    paths: Sequence[str]

    @property
    def release(self) -> str:
        """The Kubernetes release, without its v."""
        return self.kubernetes.removeprefix("v")

    @property
    def minor_release(self) -> str:
        """The release whose behaviour it has: major and minor number."""
        return ".".join(self.release.split(".")[:2])

    def uptime_seconds(self, now: datetime) -> int:
        """How long it has run; a clock that was set back makes it no less than 0."""
        return max(0, int((now - self.started).total_seconds()))


def statusz_object(target: Target, component: str, facts: ProcessFacts, now: datetime) -> dict[str, Any]:
    """The structured form of /statusz."""
    return {
        **_head(target, component),
        "startTime": f"{facts.started.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "uptimeSeconds": facts.uptime_seconds(now),
        "goVersion": "",
        "binaryVersion": facts.release,
        "emulationVersion": facts.minor_release,
        "paths": list(facts.paths),
    }


def statusz_text(component: str, facts: ProcessFacts, now: datetime, separator: str) -> str:
    """The text of /statusz."""
    minutes, seconds = divmod(facts.uptime_seconds(now), 60)
    hours, minutes = divmod(minutes, 60)
    started = facts.started
    lines = {
        "Started": f"{started:%a %b} {started.day:2d} {started:%H:%M:%S %Z %Y}",
        "Up": f"{hours} hr {minutes:02d} min {seconds:02d} sec",
        "Python version": facts.python,
        "Binary version": facts.release,
        "Emulation version": facts.minor_release,
        "Paths": " ".join(facts.paths),
    }
    body = "".join(f"{name}{separator} {value}\n" for name, value in lines.items())
    return f"\n{component} statusz\n{_NOTE}\n\n{body}"


def flagz_object(target: Target, component: str, flags: Mapping[str, str]) -> dict[str, Any]:
    """The structured form of /flagz."""
    return {**_head(target, component), "flags": dict(sorted(flags.items()))}


def flagz_text(component: str, flags: Mapping[str, str], separator: str) -> str:
    """The text of /flagz."""
    body = "".join(f"{name}{separator}{value}\n" for name, value in sorted(flags.items()))
    return f"\n{component} flagz\n{_NOTE}\n{body}"


def deprecation_warning(target: Target, page: str) -> str | None:
    """The Warning header for those who ask for an old version."""
    if target.version != _DEPRECATED_VERSION:
        return None
    return f'299 - "This version of the {page} endpoint is deprecated. Please use a newer version."'


def not_acceptable_status(forms: Sequence[str]) -> dict[str, Any]:
    """The Status for those who take none of the forms."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"only the following media types are accepted: {', '.join(forms)}",
        "reason": "NotAcceptable",
        "code": 406,
    }


def _head(target: Target, component: str) -> dict[str, Any]:
    return {
        "kind": target.kind,
        "apiVersion": f"{target.group}/{target.version}",
        "metadata": {"name": component},
    }
