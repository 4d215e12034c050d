"""The files that a container's environment takes variables from (fileKeyRef).

They lie in volumes where containers write, so that anything may be found there. What a file says is `core.env`'s.
Blocking. Upstream counterpart: the FileKeyRef case of makeEnvironmentVariables in pkg/kubelet/kubelet_pods.go.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kubelet_py.core.pod_resources import AnyContainer
from kubelet_py.core.volume_plan import MountedVolume
from kubelet_py.errors import SyncError
from kubelet_py.host.files import read_inside

MAX_FILE_BYTES: Final = 2**20


def names_env_files(container: AnyContainer) -> bool:
    """Whether there is anything to read; for most containers there is not."""
    return any(entry.valueFrom is not None and entry.valueFrom.fileKeyRef is not None for entry in container.env or ())


def read_env_files(container: AnyContainer, mounted: Mapping[str, MountedVolume]) -> dict[tuple[str, str], str]:
    """Texts by volume and path; a file that is not there is left out. SyncError for one that cannot be read."""
    texts: dict[tuple[str, str], str] = {}
    for entry in container.env or ():
        reference = entry.valueFrom.fileKeyRef if entry.valueFrom is not None else None
        if reference is None:
            continue
        volume = mounted.get(reference.volumeName)
        if volume is None:
            message = f'cannot find the volume "{reference.volumeName}" referenced by FileKeyRef'
            raise SyncError("CreateContainerConfigError", message, container.name)
        try:
            text = read_inside(Path(volume.host_path), reference.path, MAX_FILE_BYTES)
        except FileNotFoundError:
            continue
        except OSError as error:
            message = f"couldn't parse env file: {reference.path} of volume {reference.volumeName}: {error.strerror}"
            raise SyncError("CreateContainerConfigError", message, container.name) from error
        texts[reference.volumeName, reference.path] = text
    return texts
