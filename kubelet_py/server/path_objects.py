"""The pod and the container that the path of a request names.

Owns what is answered where there is no such thing.
"""

from aiohttp import web

from kubelet_py.api import core_v1
from kubelet_py.api.pod import all_containers_of, uid_of
from kubelet_py.core.log_query import NoLog, choose_container_id
from kubelet_py.server.settings import ServerBackend


def find_pod(request: web.Request, backend: ServerBackend) -> core_v1.Pod:
    """404 where there is none, or another one of the name."""
    namespace, name = request.match_info["namespace"], request.match_info["pod"]
    pod = backend.find_pod(namespace, name)
    uid = request.match_info.get("uid")
    if pod is None or (uid is not None and uid != uid_of(pod)):
        raise web.HTTPNotFound(text=f"pod {name}_{namespace} does not exist")
    return pod


def find_container_id(request: web.Request, backend: ServerBackend) -> str:
    """The runtime's id. 404 where the pod has no such container, 500 where it was not started yet."""
    pod, container = find_pod(request, backend), request.match_info["container"]
    if not any(entry.name == container for entry in all_containers_of(pod)):
        raise web.HTTPNotFound(text=f"container not found ({container!r})")
    try:
        name = request.match_info["pod"]
        return choose_container_id(name, pod.status, container, previous=False).rpartition("://")[2]
    except NoLog as error:
        raise web.HTTPInternalServerError(text=str(error)) from error
