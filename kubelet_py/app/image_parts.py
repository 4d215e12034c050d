"""The parts that have to do with images, made of the settings.

Upstream counterpart: the image half of NewKubeGenericRuntimeManager in pkg/kubelet/kuberuntime.
"""

from dataclasses import dataclass
from pathlib import Path

from kubelet_py.config import Settings
from kubelet_py.core.event_rules import EventSink
from kubelet_py.core.image_gc_rules import ImageGcPolicy
from kubelet_py.core.pull_records import compute_policy
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import ConfigError
from kubelet_py.managers.images import Images, ImageSettings, NodeLogins, PullCredentials
from kubelet_py.managers.images.credentials import SecretReader
from kubelet_py.managers.images.gc import ImageGc, NodeEvent
from kubelet_py.managers.images.records import PullRecords


@dataclass(frozen=True, slots=True)
class ImageParts:
    """Who pulls images and who removes them."""

    images: Images
    gc: ImageGc


def make_image_parts(
    settings: Settings, client: RuntimeClient, events: EventSink, node_event: NodeEvent, secrets: SecretReader
) -> ImageParts:
    """The managers of images. Raises ConfigError for settings that cannot be understood."""
    config = settings.config
    records = _make_records(settings)
    images = Images(
        client,
        events,
        PullCredentials(secrets, NodeLogins(Path(settings.flags.root_dir))),
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
