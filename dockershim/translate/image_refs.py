"""Image references: reading them, and bringing every spelling of one image to one form.

Owns the grammar as far as dockershim needs it and the credentials of a pull. Pure. Upstream counterpart: the
distribution/reference library and cri-dockerd's core/image.go. Deliberate difference: the `auth` field of credentials
(base64 of user:password) is honoured.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from dockershim.errors import InvalidArgument

DEFAULT_REGISTRY = "docker.io"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
_OLD_DEFAULT_REGISTRY = "index.docker.io"
_ID = re.compile(r"^(?:sha256:)?[0-9a-f]{64}$")
_DIGEST = re.compile(r"^[A-Za-z][A-Za-z0-9]*(?:[+._-][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$")
_PATH = re.compile(r"^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$")
_REGISTRY = re.compile(r"^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?$")
_TAG = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")
NONE_TAG = "<none>:<none>"
NONE_DIGEST = "<none>@<none>"


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A reference with its parts spelled out. `tag` is empty where a digest stands alone."""

    registry: str
    path: str
    tag: str
    digest: str

    @property
    def repository(self) -> str:
        """Registry and path in full."""
        return f"{self.registry}/{self.path}"

    @property
    def familiar(self) -> str:
        """The repository as Docker shows it: short for Docker Hub."""
        if self.registry != DEFAULT_REGISTRY:
            return self.repository
        return self.path.removeprefix(f"{DEFAULT_NAMESPACE}/")

    @property
    def canonical(self) -> str:
        """The one spelling used as a key: by digest where there is one."""
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"

    @property
    def pull_tag(self) -> str:
        """What Docker wants as `tag` of a pull: the digest where there is one."""
        return self.digest or self.tag


def is_image_id(text: str) -> bool:
    """Whether this is an image id, with or without the algorithm."""
    return bool(_ID.match(text))


def full_image_id(text: str) -> str:
    """The id with its algorithm."""
    return text if text.startswith("sha256:") else f"sha256:{text}"


def parse_image_ref(text: str) -> ImageRef:
    """Read a reference; InvalidArgument when it is none."""
    name, at, digest = text.partition("@")
    if at and not _DIGEST.match(digest):
        raise InvalidArgument("image", f"{text!r}: {digest!r} is no digest (want sha256:<64 hex digits>)")
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        head, tag = name, ""
    elif not _TAG.match(tag):
        raise InvalidArgument("image", f"{text!r}: {tag!r} is no tag")
    first, slash, rest = head.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, path = first, rest
        if not _REGISTRY.match(registry):
            raise InvalidArgument("image", f"{text!r}: {registry!r} is no registry host")
    else:
        registry, path = DEFAULT_REGISTRY, head
    if registry == _OLD_DEFAULT_REGISTRY:
        registry = DEFAULT_REGISTRY
    if not _PATH.match(path):
        raise InvalidArgument("image", f"{text!r} is no image reference (want [registry/]name[:tag][@digest])")
    if registry == DEFAULT_REGISTRY and "/" not in path:
        path = f"{DEFAULT_NAMESPACE}/{path}"
    return ImageRef(registry, path, tag or ("" if digest else DEFAULT_TAG), digest)


def canonical_or_none(text: str) -> str | None:
    """The key of a name that Docker reports; None for the dangling marks and for what does not parse."""
    if text in (NONE_TAG, NONE_DIGEST) or "<none>" in text:
        return None
    try:
        return parse_image_ref(text).canonical
    except InvalidArgument:
        return None


def decode_auth(auth: str) -> tuple[str, str]:
    """User and password from the `auth` field of credentials."""
    try:
        decoded = base64.b64decode(auth, validate=True).decode()
    except ValueError:  # no base64, or of something that is no text
        raise InvalidArgument("auth.auth", "want base64 of user:password") from None
    user, colon, password = decoded.partition(":")
    if not colon:
        raise InvalidArgument("auth.auth", "want base64 of user:password")
    return user, password.rstrip("\0")
