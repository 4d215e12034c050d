"""Image references: their parts, the default tag, and when to pull.

Upstream counterparts: pkg/util/parsers, pkg/kubelet/images/image_manager.go, distribution/reference (the grammar).
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kubelet_py.errors import SyncError

DEFAULT_REGISTRY: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
_LIBRARY: Final = "library"
_NAME_MAX_LENGTH: Final = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_DOMAIN_PART = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST_LENGTHS: Final = {"sha256": 64, "sha384": 96, "sha512": 128}
_BARE_ID = re.compile(r"[a-f0-9]{64}")


class PullPolicy(StrEnum):
    """imagePullPolicy."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class InvalidImageReference(ValueError):
    """The text is no image reference; the message says why."""


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A reference, completed as a registry client would: `busybox` is docker.io/library/busybox:latest."""

    registry: str
    repository: str
    tag: str
    digest: str

    @property
    def name(self) -> str:
        """Registry and repository: what credentials are looked up by."""
        return f"{self.registry}/{self.repository}"


def parse_image(image: str) -> ImageReference:
    """The parts of a reference. With neither tag nor digest the tag is `latest`."""
    if not image:
        raise _invalid(image, "the name is empty")
    if _BARE_ID.fullmatch(image):
        raise _invalid(image, "64 hexadecimal characters alone are an image id and no name")
    rest, at, digest = image.partition("@")
    if at and not _is_digest(digest):
        raise _invalid(image, f"{digest!r} is no digest such as sha256:<64 hexadecimal characters>")
    # A colon after the last slash starts a tag; one before it belongs to a registry's port.
    path, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        path, colon, tag = rest, "", ""
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(image, f"{tag!r} is no tag: at most 128 letters, digits, '_', '.' and '-'")
    registry, repository = _split_registry(path)
    # A first part that is no host but would be a fine path element (it has an underscore) passes, as everywhere else.
    if not _DOMAIN.fullmatch(registry) and not _PATH.fullmatch(registry):
        raise _invalid(image, f"{registry!r} is no registry host")
    if repository.lower() != repository:
        raise _invalid(image, "the repository name must be lowercase")
    if not _PATH.fullmatch(repository):
        raise _invalid(image, f"{repository!r} is no repository path")
    if len(repository) > _NAME_MAX_LENGTH:
        raise _invalid(image, f"the repository path is longer than {_NAME_MAX_LENGTH} characters")
    return ImageReference(registry, repository, tag if tag or digest else DEFAULT_TAG, digest)


def with_default_tag(image: str) -> str:
    """The reference as the runtime shall get it: as written, `:latest` added. SyncError("InvalidImageName") if bad."""
    try:
        reference = parse_image(image)
    except InvalidImageReference as error:
        raise SyncError("InvalidImageName", f'Failed to apply default image tag "{image}": {error}') from error
    if reference.digest or not reference.tag or image.endswith(f":{reference.tag}"):
        return image
    return f"{image}:{reference.tag}"


def without_tag(image: str) -> str:
    """The name alone, as it is written: without tag and digest."""
    name, _, _ = image.partition("@")
    path, colon, tag = name.rpartition(":")
    return path if colon and "/" not in tag else name


def canonical(image: str) -> str:
    """One spelling for one reference, with registry, tag and digest; a bad one as it is."""
    try:
        reference = parse_image(image)
    except InvalidImageReference:
        return image
    return (
        reference.name
        + (f":{reference.tag}" if reference.tag else "")
        + (f"@{reference.digest}" if reference.digest else "")
    )


def default_pull_policy(image: str) -> PullPolicy:
    """Always for `latest`, which may mean another image tomorrow."""
    try:
        return PullPolicy.ALWAYS if parse_image(image).tag == DEFAULT_TAG else PullPolicy.IF_NOT_PRESENT
    except InvalidImageReference:
        return PullPolicy.IF_NOT_PRESENT


def _split_registry(path: str) -> tuple[str, str]:
    first, slash, rest = path.partition("/")
    is_host = slash and (any(c in first for c in ".:") or first == "localhost" or first.lower() != first)
    if not is_host:
        registry, repository = DEFAULT_REGISTRY, path
    else:
        registry, repository = ("docker.io" if first == "index.docker.io" else first), rest
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"{_LIBRARY}/{repository}"
    return registry, repository


def _is_digest(text: str) -> bool:
    algorithm, _, value = text.partition(":")
    if algorithm in _DIGEST_LENGTHS:
        return len(value) == _DIGEST_LENGTHS[algorithm] and all(c in "0123456789abcdef" for c in value)
    return False


def _invalid(image: str, why: str) -> InvalidImageReference:
    return InvalidImageReference(f'couldn\'t parse image name "{image[:300]}": invalid reference format: {why}')
