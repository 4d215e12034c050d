"""The status manager: see `manager`."""

from kubelet_py.managers.status.manager import StatusManager as StatusManager
