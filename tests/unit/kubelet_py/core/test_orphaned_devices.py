"""Devices of a Go kubelet's plugins: known by name, held by who has them, given to nobody."""

import json

import pytest

from kubelet_py.api import quantity
from kubelet_py.core.orphaned_devices import held_devices, registered_resources
from tests.unit.kubelet_py.core.pod_builder import a_container, a_pod, sized

GPU = "nvidia.com/gpu"


def checkpoint(registered: object) -> bytes:
    entry = {"PodUID": "u", "ContainerName": "c", "ResourceName": GPU, "DeviceIDs": {"0": ["d1"]}, "AllocResp": ""}
    return json.dumps({"Data": {"PodDeviceEntries": [entry], "RegisteredDevices": registered}, "Checksum": 7}).encode()


def test_the_checkpoint_names_what_had_a_plugin() -> None:
    assert registered_resources(checkpoint({GPU: ["d1", "d2"], "a.com/nic": None})) == ("a.com/nic", GPU)
    assert registered_resources(checkpoint({})) == registered_resources(checkpoint(None)) == ()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"Data": 1}', b"\xff", b'{"Data":{"x":' + b"[" * 9999])
def test_what_is_no_checkpoint_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(ValueError, match="no checkpoint of a device manager"):
        registered_resources(content)


def test_pods_that_run_hold_what_they_have() -> None:
    with_devices, without = (
        a_pod(a_container(**sized(requests))) for requests in ({GPU: "2", "cpu": "1"}, {"cpu": "1"})
    )
    assert held_devices((GPU, "a.com/nic"), (with_devices, without, with_devices)) == {
        GPU: quantity.from_units(4),
        "a.com/nic": quantity.ZERO,
    }
    assert held_devices((), (with_devices,)) == {}
