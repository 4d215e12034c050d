"""The parts that have to do with images, made of the settings.

Upstream counterpart: the image half of NewKubeGenericRuntimeManager in pkg/kubelet/kuberuntime.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kubelet_py.app.pod_objects import ApiObjects, StandaloneObjects
from kubelet_py.config import Settings
from kubelet_py.config.documents import UnreadableDocument, read_document
from kubelet_py.core.credential_plugins import CONFIG_KIND, InvalidPluginConfig, parse_plugins
from kubelet_py.core.event_rules import EventSink
from kubelet_py.core.image_gc_rules import ImageGcPolicy
from kubelet_py.core.pull_records import compute_policy
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import ConfigError
from kubelet_py.managers.images import Images, ImageSettings, NodeLogins, PullCredentials
from kubelet_py.managers.images.gc import ImageGc, NodeEvent
from kubelet_py.managers.images.plugins import CredentialPlugins
from kubelet_py.managers.images.records import PullRecords

_FLAGS: Final = ("--image-credential-provider-config", "--image-credential-provider-bin-dir")
_SUFFIXES: Final = (".json", ".yaml", ".yml")
_TOKENS: Final = "KubeletServiceAccountTokenForCredentialProviders"


@dataclass(frozen=True, slots=True)
class ImageParts:
    """Who pulls images and who removes them."""

    images: Images
    gc: ImageGc


def make_image_parts(
    settings: Settings,
    client: RuntimeClient,
    events: EventSink,
    node_event: NodeEvent,
    objects: ApiObjects | StandaloneObjects,
) -> ImageParts:
    """The managers of images. Raises ConfigError for settings that cannot be understood."""
    config = settings.config
    records = _make_records(settings)
    images = Images(
        client,
        events,
        PullCredentials(objects, NodeLogins(Path(settings.flags.root_dir)), _make_plugins(settings, objects)),
        ImageSettings(
            max_parallel=1 if config.serializeImagePulls else config.maxParallelImagePulls,
            pull_qps=float(config.registryPullQPS),
            pull_burst=config.registryBurst,
            per_handler=settings.gates.enabled("RuntimeClassInImageCriApi"),
        ),
        records,
    )
    policy = ImageGcPolicy(
        config.imageGCHighThresholdPercent,
        config.imageGCLowThresholdPercent,
        config.imageMinimumGCAge,
        config.imageMaximumGCAge,
    )
    return ImageParts(images, ImageGc(client, policy, node_event, records))


def _make_records(settings: Settings) -> PullRecords | None:
    if not settings.gates.enabled("KubeletEnsureSecretPulledImages"):
        return None
    config = settings.config
    try:
        policy = compute_policy(
            config.imagePullCredentialsVerificationPolicy, config.preloadedImagesVerificationAllowlist
        )
    except ValueError as error:
        names = "imagePullCredentialsVerificationPolicy, preloadedImagesVerificationAllowlist"
        raise ConfigError(f"{names}: {error}") from error
    return PullRecords(Path(settings.flags.root_dir), policy)


def _make_plugins(settings: Settings, objects: ApiObjects | StandaloneObjects) -> CredentialPlugins | None:
    """The plugins of the two flags, every mistake in them told at once."""
    config_path, directory = (
        settings.flags.image_credential_provider_config,
        settings.flags.image_credential_provider_bin_dir,
    )
    if not config_path and not directory:
        return None
    if not config_path or not directory:
        missing, given = _FLAGS if not config_path else reversed(_FLAGS)
        raise ConfigError(f"{given} needs {missing} too")
    try:
        plugins = parse_plugins(_read_documents(Path(config_path)), settings.gates.enabled(_TOKENS))
    except InvalidPluginConfig as error:
        raise ConfigError(*(f"{_FLAGS[0]}: {problem}" for problem in error.problems)) from error
    paths = [Path(directory, plugin.name) for plugin in plugins]
    absent = [f"{_FLAGS[1]}: {path} is no program that can be run" for path in paths if not os.access(path, os.X_OK)]
    if absent:
        raise ConfigError(*absent)
    return CredentialPlugins(plugins, Path(directory), objects if isinstance(objects, ApiObjects) else None)


def _read_documents(path: Path) -> dict[str, object]:
    """The documents of a file, or of a directory's .json, .yaml and .yml files in the order of their names."""
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
        if not files:
            raise ConfigError(f"{_FLAGS[0]}: {path} holds no file that ends in {', '.join(_SUFFIXES)}")
    documents, problems = {}, []
    for file in files:
        try:
            documents[str(file)] = read_document(file.read_text(encoding="utf-8"), CONFIG_KIND)
        except (OSError, UnreadableDocument, UnicodeDecodeError) as error:
            problems.append(f"{_FLAGS[0]}: {file}: {error}")
    if problems:
        raise ConfigError(*problems)
    return documents
