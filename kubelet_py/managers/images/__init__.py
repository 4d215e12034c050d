"""Images: pulled for containers, who may use them, and when they go."""

from kubelet_py.managers.images.credentials import NodeLogins, PodSecrets, PullCredentials
from kubelet_py.managers.images.manager import ImageRequest, Images, ImageSettings, PullBackOff

__all__ = ["ImageRequest", "ImageSettings", "Images", "NodeLogins", "PodSecrets", "PullBackOff", "PullCredentials"]
