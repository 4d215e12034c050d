"""Where a pod keeps its files on the node: paths, the few files the agent itself writes there.

    $ROOT/pods/<uid>/{volumes/<plugin~>/<name>, plugins/<plugin~>/<name>, volume-subpaths/<vol>/<ctr>/<idx>,
                      containers/<ctr>/<8 hex>, etc-hosts, userns}

Owns the layout, which other programs read (log collectors, backup tools, the Go kubelet after a change of agent).
Knows nothing of what is in a volume.

Upstream counterpart: pkg/kubelet/kubelet_getters.go.
"""

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from kubelet_py.host.files import write_atomic

VOLUMES = "volumes"
PLUGINS = "plugins"
SUBPATHS = "volume-subpaths"
CONTAINERS = "containers"
ETC_HOSTS = "etc-hosts"
USER_NAMESPACE = "userns"


@dataclass(frozen=True, slots=True)
class PodDirs:
    """The pod directories under one root directory (--root-dir)."""

    root: Path

    @property
    def pods(self) -> Path:
        """The directory of all pods."""
        return self.root / "pods"

    def pod(self, pod_uid: str) -> Path:
        """The directory of one pod."""
        if not pod_uid or "/" in pod_uid or pod_uid in (".", ".."):
            raise ValueError(f"{pod_uid!r} cannot name a pod directory")
        return self.pods / pod_uid

    def volume(self, pod_uid: str, plugin: str, name: str) -> Path:
        """Where a volume is set up; `plugin` is such as `kubernetes.io/empty-dir`."""
        return self.pod(pod_uid) / VOLUMES / plugin.replace("/", "~") / name

    def plugin_state(self, pod_uid: str, plugin: str, name: str) -> Path:
        """Where a volume plugin keeps notes of its own about one volume."""
        return self.pod(pod_uid) / PLUGINS / plugin.replace("/", "~") / name

    def subpath(self, pod_uid: str, volume: str, container: str, index: int) -> Path:
        """Where the subPath of one volumeMount is bound."""
        return self.pod(pod_uid) / SUBPATHS / volume / container / str(index)

    def container(self, pod_uid: str, container: str) -> Path:
        """The directory of one container."""
        return self.pod(pod_uid) / CONTAINERS / container

    def etc_hosts(self, pod_uid: str) -> Path:
        """The hosts file that the containers see."""
        return self.pod(pod_uid) / ETC_HOSTS

    def user_namespace(self, pod_uid: str) -> Path:
        """The file with the ids of the pod's user namespace."""
        return self.pod(pod_uid) / USER_NAMESPACE

    def ensure_pods(self) -> None:
        """The root and the directory of all pods, with the modes others expect."""
        self.root.mkdir(mode=0o750, parents=True, exist_ok=True)
        self.pods.mkdir(mode=0o750, exist_ok=True)

    def ensure_pod(self, pod_uid: str) -> Path:
        """The directories that every pod has."""
        pod = self.pod(pod_uid)
        for directory in (pod, pod / VOLUMES, pod / PLUGINS):
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        return pod

    def list_pod_uids(self) -> list[str]:
        """The UIDs that have a directory, of this process's time or an earlier one's."""
        try:
            return sorted(entry.name for entry in os.scandir(self.pods) if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []

    def write_etc_hosts(self, pod_uid: str, text: str) -> Path:
        """The hosts file, written only when it differs: containers hold the inode through a bind mount."""
        path = self.etc_hosts(pod_uid)
        data = text.encode()
        try:
            if path.read_bytes() == data:
                return path
        except FileNotFoundError:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            # Containers of the pod start side by side, and all must get the same inode. After a boot they start again,
            # and come by here before.
            with contextlib.suppress(FileExistsError):
                write_atomic(path, data, 0o644, may_replace=False, survives_power_loss=False)
            return path
        # In place, because a running container would never see a new inode.
        path.write_bytes(data)
        return path

    def make_termination_log(self, pod_uid: str, container: str) -> Path:
        """A new empty file for a container's last words, writable by whatever user the container runs as."""
        directory = self.container(pod_uid, container)
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        path = directory / secrets.token_hex(4)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            os.fchmod(descriptor, 0o666)
        finally:
            os.close(descriptor)
        return path
