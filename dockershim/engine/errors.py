"""Docker's errors become ours, here and nowhere else.

Docker's API has few status codes and says the rest in text, which differs between versions; every pattern below has a
recorded message in tests/unit/dockershim/engine/test_errors.py. Upstream counterpart: cri-dockerd's libdocker error
helpers and the regular expression of its name conflict handling.
"""

from __future__ import annotations

import re

from dockershim.errors import (
    Aborted,
    EngineFailed,
    InUse,
    InvalidArgument,
    NameConflict,
    NotFound,
    NotRunning,
    ResourceExhausted,
    ShimError,
    Unavailable,
    Unimplemented,
)
from dockershim.translate.image_refs import DEFAULT_NAMESPACE, canonical_or_none, parse_image_ref

_NAME_CONFLICT = re.compile(r'container name "?/?[^"]*"? is already in use by (?:container )?"?([0-9a-f]*)"?')
_NOT_RUNNING = re.compile(
    r"is not running|Container \S+ not running|is not started|container .* is stopped|process already finished"
)
_PAUSED = re.compile(r"is paused")
_NO_SUCH = re.compile(r"[Nn]o such (container|image|exec instance|exec|network)[^:]*:? ?(\S*)")
_NOT_FOUND = re.compile(r"(network|volume) (\S+) not found")
_UNRECOGNIZED = re.compile(r"unrecognized image ID (\S+)")  # a removal that lost against another one
_REMOVAL_IN_PROGRESS = re.compile(r"removal of container (\S+) is already in progress")
_IMAGE_IN_USE = re.compile(r"unable to (?:remove|delete)|image is being used|image is in use|must be forced")
_REGISTRY_AWAY = re.compile(
    r"^50[234]\b|\bHTTP 50[234]\b|\bstatus\b[^:]*: 50[234]\b|Bad Gateway|Service Unavailable|Gateway Time-?out"
    r"|dial tcp|no such host|connection refused|connection reset by peer|no route to host|network is unreachable"
    r"|i/o timeout|TLS handshake timeout|Client\.Timeout exceeded|unexpected EOF"
)
_SIGNATURE = re.compile(r"\bsignatures?\b|\bnot signed\b|remote trust data|image verifier", re.IGNORECASE)
_AWAY_CODES = (502, 503, 504)
_URL = re.compile(r"https?://\S*[^\s:,\"]")
_CONTAINERD_AWAY = re.compile(
    r"[Ee]rror while dialing|transport is closing|error reading from server: EOF|containerd.*: EOF"
)
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded")
_NO_CHECKPOINTS = re.compile(r"experimental feature is disabled|only supported in experimental mode")
_NO_CRIU = re.compile(r'exec: \\*"criu\\*": executable file not found')
_CHECKPOINT_LEFT = re.compile(r"[Cc]annot checkpoint container .*content sha256:[0-9a-f]{64}: already exists")
_BAD_START = re.compile(
    r"executable file not found|no such file or directory|permission denied|not a directory"
    r"|invalid (?:argument|mount)|[Uu]nknown user|unable to find (?:user|group)|[Nn]o such user"
    r"|OCI runtime create failed"
)


class RemovalInProgress(ShimError):
    """Docker is removing it already; translated away by the adapter, which waits for the end."""


class RegistryUnavailable(Unavailable):
    """The registry answered 502, 503 or 504, or not at all. The kubelet knows this by the prefix of the message."""

    def __init__(self, message: str) -> None:
        super().__init__(f"RegistryUnavailable: {message}")


class SignatureInvalid(EngineFailed):
    """A policy for signatures refuses the image. The kubelet knows this by the prefix of the message."""

    def __init__(self, message: str) -> None:
        super().__init__(f"SignatureValidationFailed: {message}")


class ContainerdAway(Unavailable):
    """Docker answers, and the containerd below it does not: nothing can be started or stopped."""

    def __init__(self, message: str) -> None:
        super().__init__(f"Docker does not reach its containerd: {message}")


class CannotStart(EngineFailed):
    """The OCI runtime refused to start the process: the container's own fault, not the engine's."""


def from_response(status: int, message: str, reference: str = "") -> ShimError:
    """The error for an HTTP status and Docker's message. `reference` is what the call was about."""
    text = " ".join(message.split())
    if _NO_CHECKPOINTS.search(text):
        return Unimplemented(f"Docker: {text}")
    if _NO_CRIU.search(text):
        return Unimplemented(f"Docker's runtime finds no criu in the PATH of containerd (want CRIU 3 or newer): {text}")
    if _CHECKPOINT_LEFT.search(text):
        return Aborted(f"containerd still holds what an earlier checkpoint of this container left; try later: {text}")
    if status == 404:
        found = _NO_SUCH.search(text)
        if found:
            return NotFound(found.group(1).split()[0], found.group(2) or reference)
        named = _NOT_FOUND.search(text)
        if named:
            return NotFound(named.group(1), named.group(2))
        return NotFound("object", f"{reference}: {text}" if reference else text)
    if status == 409:
        return _from_conflict(text, reference)
    if status == 400:
        return InvalidArgument("", text)
    if _CONTAINERD_AWAY.search(text):
        return ContainerdAway(text)
    if status == 503:
        return Unavailable(f"Docker: {text}")
    if _DISK_FULL.search(text):
        return ResourceExhausted(f"Docker's disk is full: {text}")
    lost = _UNRECOGNIZED.search(text)
    if lost:
        return NotFound("image", lost.group(1))
    if _NOT_RUNNING.search(text) and not _BAD_START.search(text):
        return NotRunning(text)
    if _BAD_START.search(text):
        return CannotStart(text, status)
    return EngineFailed(text or f"Docker answered {status}", status)


def _from_conflict(text: str, reference: str) -> ShimError:
    conflict = _NAME_CONFLICT.search(text)
    if conflict:
        return NameConflict(text, conflict.group(1))
    if _REMOVAL_IN_PROGRESS.search(text):
        return RemovalInProgress(text)
    if _NOT_RUNNING.search(text) or _PAUSED.search(text):
        return NotRunning(text)
    if _IMAGE_IN_USE.search(text):
        return InUse(text)
    return EngineFailed(text or f"conflict about {reference}", 409)


def from_pull_message(message: str, image: str, code: int = 0) -> ShimError:
    """The error for an `error` line in the progress of a pull, or for the refusal of the pull itself.

    `code` is the status of the registry's answer where Docker tells it.
    """
    text = " ".join(message.split())
    said = _without_names(text, image)
    if code == 404 or "manifest unknown" in said.lower():
        return NotFound("image", image, text)
    if code in _AWAY_CODES or _REGISTRY_AWAY.search(said):
        return RegistryUnavailable(text)
    if _SIGNATURE.search(said):
        return SignatureInvalid(text)
    if "not found" in said.lower():  # last: a signature may not be found either
        return NotFound("image", image, text)
    return EngineFailed(f"pull of {image} failed: {text}")


def _without_names(text: str, image: str) -> str:
    """A message without URLs and the image's own names, whose words say nothing of what went wrong."""
    key = canonical_or_none(image)
    path = parse_image_ref(key).path.removeprefix(f"{DEFAULT_NAMESPACE}/") if key else image
    name = re.escape(path)
    bare = name if "/" in path else f"(?<=for ){name}"  # a single word may as well be one of the message's own
    names = rf"(?<![\w.-])(?:(?:[\w.:-]+/)*{name}[:@][\w.:+-]*\w|(?:[\w.:-]+/)+{name}|{bare})(?![\w/-])"
    return re.sub(names, "", _URL.sub("", text))
