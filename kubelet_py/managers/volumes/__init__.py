"""Volumes of pods on this node: set up, refreshed, torn down.

manager        the desired state of each pod, made so on disk (the only part with a loop's life)
setup          one volume of each kind, blocking
atomic_writer  files that change together
ownership      fsGroup
subpath        a part of a volume, bound by file descriptor
threads        one for each operation
teardown       what is left of a pod on disk, of this process's time or an earlier one's
"""

from kubelet_py.managers.volumes.collect import VolumeSources as VolumeSources
from kubelet_py.managers.volumes.manager import FAILED_MOUNT as FAILED_MOUNT
from kubelet_py.managers.volumes.manager import VolumeManager as VolumeManager
from kubelet_py.managers.volumes.manager import VolumeSettings as VolumeSettings
