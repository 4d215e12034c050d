"""Which cgroup driver holds is the runtime's word, and a failed call is no word. In virtual time."""

import asyncio

import pytest
from structlog.testing import capture_logs

from cri_proto import runtime_v1 as cri
from kubelet_py.core.cgroup_rules import CgroupDriver
from kubelet_py.managers.cgroup_driver import RETRY_SECONDS, ask_cgroup_driver
from tests.fakes.runtime import FakeRuntimeClient

pytestmark = pytest.mark.looptime


async def test_the_runtime_has_the_last_word() -> None:
    fake = FakeRuntimeClient()
    fake.cgroup_driver = cri.SYSTEMD
    with capture_logs() as logs:
        assert await ask_cgroup_driver(fake, CgroupDriver.CGROUPFS) is CgroupDriver.SYSTEMD
        assert await ask_cgroup_driver(fake, CgroupDriver.SYSTEMD) is CgroupDriver.SYSTEMD
    assert [entry["event"] for entry in logs] == ["cgroup_driver_of_the_runtime"]


async def test_a_runtime_without_the_call_leaves_it_to_the_configuration() -> None:
    fake = FakeRuntimeClient()
    fake.cgroup_driver = None
    with capture_logs():
        assert await ask_cgroup_driver(fake, CgroupDriver.SYSTEMD) is CgroupDriver.SYSTEMD


async def test_a_failed_call_is_repeated_and_told_once() -> None:
    fake = FakeRuntimeClient()
    fake.cgroup_driver = cri.SYSTEMD
    fake.fail("RuntimeConfig", times=5)
    loop = asyncio.get_running_loop()
    started = loop.time()
    with capture_logs() as logs:
        assert await ask_cgroup_driver(fake, CgroupDriver.CGROUPFS) is CgroupDriver.SYSTEMD
    assert loop.time() - started == 5 * RETRY_SECONDS
    assert [entry["event"] for entry in logs] == ["runtime_config_failed", "cgroup_driver_of_the_runtime"]
