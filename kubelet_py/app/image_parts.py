"""The parts that have to do with images, made of the settings.

Upstream counterpart: the image half of NewKubeGenericRuntimeManager in pkg/kubelet/kuberuntime.
"""

from pathlib import Path

from kubelet_py.config import Settings
from kubelet_py.core.event_rules import EventSink
from kubelet_py.core.pull_records import compute_policy
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import ConfigError
from kubelet_py.managers.images import Images, ImageSettings, NodeLogins, PullCredentials
from kubelet_py.managers.images.credentials import SecretReader
from kubelet_py.managers.images.records import PullRecords


def make_images(settings: Settings, client: RuntimeClient, events: EventSink, secrets: SecretReader) -> Images:
    """The image manager. Raises ConfigError for an allowlist that cannot be understood."""
    config = settings.config
    return Images(
        client,
        events,
        PullCredentials(secrets, NodeLogins(Path(settings.flags.root_dir))),
        ImageSettings(
            max_parallel=1 if config.serializeImagePulls else config.maxParallelImagePulls,
            pull_qps=float(config.registryPullQPS),
            pull_burst=config.registryBurst,
            per_handler=settings.gates.enabled("RuntimeClassInImageCriApi"),
        ),
        _make_records(settings),
    )


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
