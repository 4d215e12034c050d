"""The pod and the container that the path of a request names.

Owns what is answered where there is no such thing.
"""

from aiohttp import web

from kubelet_py.api import core_v1
from kubelet_py.api.pod import all_containers_of, uid_of
from kubelet_py.core.pod_resources import AnyContainer
from kubelet_py.errors import RuntimeCallError
from kubelet_py.server.settings import ServerBackend


def find_pod(request: web.Request, backend: ServerBackend) -> core_v1.Pod:
    """404 where there is none, or another one of the name."""
    namespace, name = request.match_info["namespace"], request.match_info["pod"]
    pod = backend.find_pod(namespace, name)
    uid = request.match_info.get("uid")
    if pod is None or (uid is not None and uid != uid_of(pod)):
        raise web.HTTPNotFound(text=f"pod {name}_{namespace} does not exist")
    return pod


def find_container(request: web.Request, backend: ServerBackend) -> AnyContainer:
    """As the pod's spec has it; 404 where there is none."""
    pod, name = find_pod(request, backend), request.match_info["container"]
    found = next((entry for entry in all_containers_of(pod) if entry.name == name), None)
    if found is None:
        raise web.HTTPNotFound(text=f'container not found ("{name}")')
    return found


async def find_running_id(request: web.Request, backend: ServerBackend) -> str:
    """The runtime's id of the container's run of now. 404 where the pod has none of the name, 500 where none runs.

    The runtime is asked and not the status, which is told after a pass: a container whose postStart hook runs, or whose
    neighbour is pulled, is there for an exec, and one that has just been restarted is not its predecessor.
    """
    name = find_container(request, backend).name
    try:
        container_id = await backend.running_container_id(find_pod(request, backend), name)
    except RuntimeCallError as error:
        raise web.HTTPInternalServerError(text=str(error)) from error
    if container_id is None:
        raise web.HTTPInternalServerError(text=f'container not found ("{name}"): it does not run')
    return container_id
