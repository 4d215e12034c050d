"""Devices whose plugins a Go kubelet had, on a node that now has nobody who hands them out. Pure.

Upstream counterparts: pkg/kubelet/cm/devicemanager: its checkpoint, GetCapacity and UpdatePluginResources after a
restart. Deliberate difference: the checkpoint's checksum is not compared, because a name in a damaged file is still a
device that nobody hands out.
"""

from collections.abc import Iterable, Mapping

import msgspec

from kubelet_py.api import core_v1, quantity
from kubelet_py.api.quantity import Quantity
from kubelet_py.core.pod_resources import compute_pod_requests


class _Data(msgspec.Struct):
    RegisteredDevices: Mapping[str, object] | None = None


class _Checkpoint(msgspec.Struct):
    Data: _Data


def registered_resources(content: bytes) -> tuple[str, ...]:
    """The resources that had a device plugin. Raises ValueError for what is no such checkpoint."""
    try:
        checkpoint = msgspec.json.decode(content, type=_Checkpoint)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"no checkpoint of a device manager: {error}") from error
    return tuple(sorted(checkpoint.Data.RegisteredDevices or ()))


def held_devices(resources: Iterable[str], active_pods: Iterable[core_v1.Pod]) -> dict[str, Quantity]:
    """What pods that run have of these resources: all that the node has, so that they may stay and none may come."""
    held = dict.fromkeys(resources, quantity.ZERO)
    for requests in map(compute_pod_requests, active_pods):
        for name in held.keys() & requests.keys():
            held[name] += requests[name]
    return held
