"""Version, Status, RuntimeConfig and UpdateRuntimeConfig: answered from memory, whether Docker is there or not.

Upstream counterpart: cri-dockerd's core/docker_service.go and version.go. Deliberate difference: Status is never an
error; a Docker that is away is a condition with a reason.
"""

from __future__ import annotations

import json

import structlog

from cri_proto import runtime_v1 as cri
from dockershim import host
from dockershim.engine import EngineInfo
from dockershim.errors import InvalidArgument
from dockershim.node import Node
from dockershim.translate.mounts import READ_ONLY_RECURSIVE_API

_log = structlog.get_logger()
RUNTIME_NAME = "docker"
KUBE_API_VERSION = "0.1.0"
CRI_VERSION = "v1"
UNKNOWN_VERSION = "0.0.0"


class Runtime:
    """The handlers."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def version(self, request: cri.VersionRequest) -> cri.VersionResponse:
        """See CRI."""
        info = self._node.feeder.info
        return cri.VersionResponse(
            version=KUBE_API_VERSION,
            runtime_name=RUNTIME_NAME,
            runtime_version=info.engine_version if info and info.engine_version else UNKNOWN_VERSION,
            runtime_api_version=CRI_VERSION,
        )

    async def status(self, request: cri.StatusRequest) -> cri.StatusResponse:
        """See CRI."""
        trouble = self._node.feeder.trouble
        network = self._node.network.condition()
        response = cri.StatusResponse(
            status=cri.RuntimeStatus(
                conditions=[
                    cri.RuntimeCondition(
                        type="RuntimeReady",
                        status=not trouble,
                        reason="DockerDaemonNotReady" if trouble else "",
                        message=trouble,
                    ),
                    cri.RuntimeCondition(
                        type="NetworkReady", status=network.ready, reason=network.reason, message=network.message
                    ),
                ]
            ),
        )
        info = self._node.feeder.info
        if info is not None:
            await self._add_features(response, info)
        if request.verbose:
            config = json.loads(self._node.settings.verbose_config)
            if info is not None:
                config["stateDir"] = f"{info.root_directory}/containers"  # containerd's name; critest looks there
            response.info["config"] = json.dumps(config, sort_keys=True)
            if info is not None:
                details = {
                    "engine": info.engine_version,
                    "api": f"{info.api_version[0]}.{info.api_version[1]}",
                    "root": info.root_directory,
                    "cgroupDriver": info.cgroup_driver,
                    "cgroupVersion": info.cgroup_version,
                    "logs": "spool" if self._node.logs.spool_directory and "" in info.wrapped_runtimes else "json-file",
                }
                response.info["engine"] = json.dumps(details, sort_keys=True)
        return response

    async def _add_features(self, response: cri.StatusResponse, info: EngineInfo) -> None:
        """What pods may ask for. The policy of groups is a feature of the node: it counts for the default handler."""
        wrapped = info.wrapped_runtimes
        problem = await host.user_namespaces_problem(info.root_directory) if wrapped else ""
        response.features.supplemental_groups_policy = "" in wrapped
        for name in ("", *info.runtimes):
            features = cri.RuntimeHandlerFeatures(
                recursive_read_only_mounts=info.api_version >= READ_ONLY_RECURSIVE_API or name in wrapped,
                user_namespaces=name in wrapped and not problem,
            )
            response.runtime_handlers.add(name=name, features=features)

    async def runtime_config(self, request: cri.RuntimeConfigRequest) -> cri.RuntimeConfigResponse:
        """See CRI."""
        systemd = self._node.feeder.require_info().cgroup_driver == "systemd"
        driver = cri.CgroupDriver.SYSTEMD if systemd else cri.CgroupDriver.CGROUPFS
        return cri.RuntimeConfigResponse(linux=cri.LinuxRuntimeConfiguration(cgroup_driver=driver))

    async def update_runtime_config(self, request: cri.UpdateRuntimeConfigRequest) -> cri.UpdateRuntimeConfigResponse:
        """See CRI. The pod CIDR goes to the network; the last one that is not empty counts."""
        cidr = request.runtime_config.network_config.pod_cidr
        if cidr:
            try:
                await self._node.network.set_pod_cidr(cidr)
            except ValueError as error:
                raise InvalidArgument("runtime_config.network_config.pod_cidr", str(error)) from error
        return cri.UpdateRuntimeConfigResponse()
