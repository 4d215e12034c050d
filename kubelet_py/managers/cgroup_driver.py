"""Asks the runtime which cgroup driver holds, once, at the start.

Owns the repetition: a runtime that just came up may refuse its first calls, and pods in cgroups of the other driver
would have to be started anew, so nothing is guessed from a failure. Must not know what becomes of the answer.

Upstream counterpart: getCgroupDriverFromCRI in cmd/kubelet/app/server.go. Deliberate difference: upstream asks three
times and then ends the start; here the question is repeated until it is answered, as everything else that the runtime
has to be there for.
"""

import asyncio

import structlog

from kubelet_py.core.cgroup_rules import CgroupDriver, driver_of
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import RuntimeCallError, RuntimeUnimplemented

log = structlog.get_logger()

RETRY_SECONDS = 2.0


async def ask_cgroup_driver(client: RuntimeClient, configured: CgroupDriver) -> CgroupDriver:
    """The runtime's driver; the configured one when it has no such call or says nothing of it.

    Raises ConfigError when the runtime names a driver that this agent does not know.
    """
    told = False
    while True:
        try:
            answer = await client.runtime_config()
        except RuntimeUnimplemented:
            log.info("runtime_names_no_cgroup_driver", used=str(configured))
            return configured
        except RuntimeCallError as error:
            if not told:
                log.warning("runtime_config_failed", error=str(error), consequence="no pod can start")
            told = True
            await asyncio.sleep(RETRY_SECONDS)
            continue
        driver = driver_of(answer, configured)
        if driver is not configured:
            log.info("cgroup_driver_of_the_runtime", configured=str(configured), used=str(driver))
        return driver
