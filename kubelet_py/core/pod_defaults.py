"""The defaults that the API server fills in, for pods that never meet one.

Upstream counterpart: pkg/apis/core/v1/defaults.go, zz_generated.defaults.go.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from kubelet_py.api import codec, core_v1
from kubelet_py.api import quantity as q
from kubelet_py.core import pod_resources
from kubelet_py.core.image_rules import default_pull_policy
from kubelet_py.core.pod_resources import AnyContainer

DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS: Final = 30
DEFAULT_TERMINATION_MESSAGE_PATH: Final = "/dev/termination-log"
DEFAULT_VOLUME_MODE: Final = 0o644
_TOKEN_EXPIRATION_SECONDS: Final = 3600


def with_pod_defaults(pod: core_v1.Pod) -> core_v1.Pod:
    """A copy in which every default is filled in. Quantities that are none are left for validation to name."""
    pod = codec.copy(pod)
    spec = pod.spec
    if spec is None:
        return pod
    spec.serviceAccountName = spec.serviceAccountName or spec.serviceAccount
    spec.serviceAccount = spec.serviceAccountName
    spec.dnsPolicy = spec.dnsPolicy or "ClusterFirst"
    spec.restartPolicy = spec.restartPolicy or "Always"
    spec.schedulerName = spec.schedulerName or "default-scheduler"
    if spec.securityContext is None:
        spec.securityContext = core_v1.PodSecurityContext()
    if spec.enableServiceLinks is None:
        spec.enableServiceLinks = True
    if spec.terminationGracePeriodSeconds is None:
        spec.terminationGracePeriodSeconds = DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS
    elif spec.terminationGracePeriodSeconds < 0:
        spec.terminationGracePeriodSeconds = 1
    for container in (*(spec.initContainers or ()), *(spec.containers or ()), *(spec.ephemeralContainers or ())):
        _default_container(container, host_network=bool(spec.hostNetwork))
    for volume in spec.volumes or ():
        _default_volume(volume)
    if spec.resources is not None:
        _default_pod_level_requests(pod, spec.resources)
    spec.overhead = _canonical(spec.overhead)
    return pod


def _default_container(container: AnyContainer, host_network: bool) -> None:
    container.imagePullPolicy = container.imagePullPolicy or default_pull_policy(container.image or "").value
    container.terminationMessagePath = container.terminationMessagePath or DEFAULT_TERMINATION_MESSAGE_PATH
    container.terminationMessagePolicy = container.terminationMessagePolicy or "File"
    for port in container.ports or ():
        port.protocol = port.protocol or "TCP"
        if host_network and not port.hostPort:
            port.hostPort = port.containerPort
    for probe in (container.livenessProbe, container.readinessProbe, container.startupProbe):
        if probe is not None:
            _default_probe(probe)
    if container.lifecycle is not None:
        for handler in (container.lifecycle.postStart, container.lifecycle.preStop):
            if handler is not None:
                _default_http_get(handler.httpGet)
    for entry in container.env or ():
        if entry.valueFrom is not None:
            _default_field_ref(entry.valueFrom.fieldRef)
    if container.resources is not None:
        container.resources.limits = _canonical(container.resources.limits)
        container.resources.requests = _canonical(container.resources.requests)
        if container.resources.limits:
            container.resources.requests = {**container.resources.limits, **(container.resources.requests or {})}


def _default_probe(probe: core_v1.Probe) -> None:
    probe.timeoutSeconds = probe.timeoutSeconds or 1
    probe.periodSeconds = probe.periodSeconds or 10
    probe.successThreshold = probe.successThreshold or 1
    probe.failureThreshold = probe.failureThreshold or 3
    _default_http_get(probe.httpGet)
    if probe.grpc is not None and probe.grpc.service is None:
        probe.grpc.service = ""


def _default_http_get(action: core_v1.HTTPGetAction | None) -> None:
    if action is not None:
        action.path = action.path or "/"
        action.scheme = action.scheme or "HTTP"


def _default_field_ref(selector: core_v1.ObjectFieldSelector | None) -> None:
    if selector is not None:
        selector.apiVersion = selector.apiVersion or "v1"


def _default_volume(volume: core_v1.Volume) -> None:
    if all(getattr(volume, name) is None for name in volume.__struct_fields__ if name != "name"):
        volume.emptyDir = core_v1.EmptyDirVolumeSource()
    for source in (volume.secret, volume.configMap, volume.downwardAPI, volume.projected):
        if source is not None and source.defaultMode is None:
            source.defaultMode = DEFAULT_VOLUME_MODE
    if volume.hostPath is not None and volume.hostPath.type is None:
        volume.hostPath.type = ""
    if volume.image is not None and not volume.image.pullPolicy:
        volume.image.pullPolicy = default_pull_policy(volume.image.reference or "").value
    if volume.downwardAPI is not None:
        _default_downward_items(volume.downwardAPI.items or ())
    for projection in (volume.projected.sources if volume.projected is not None else None) or ():
        if projection.serviceAccountToken is not None and projection.serviceAccountToken.expirationSeconds is None:
            projection.serviceAccountToken.expirationSeconds = _TOKEN_EXPIRATION_SECONDS
        if projection.downwardAPI is not None:
            _default_downward_items(projection.downwardAPI.items or ())


def _default_downward_items(items: Iterable[core_v1.DownwardAPIVolumeFile]) -> None:
    for item in items:
        _default_field_ref(item.fieldRef)


def _default_pod_level_requests(pod: core_v1.Pod, resources: core_v1.ResourceRequirements) -> None:
    resources.limits = _canonical(resources.limits)
    resources.requests = _canonical(resources.requests)
    if not resources.limits:
        return
    requests: dict[str, Any] = dict(resources.requests or {})
    try:
        supported = pod_resources.pod_level_limits_of(pod)
        asked = pod_resources.compute_container_requests(pod)
    except q.InvalidQuantity:
        return
    for name in (pod_resources.CPU, pod_resources.MEMORY):
        if name in asked:
            requests.setdefault(name, str(asked[name]))
    for name, limit in supported.items():
        requests.setdefault(name, str(limit))
    resources.requests = requests


def _canonical(raw: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """As the API server would hand it out: text in canonical form, nothing finer than a thousandth."""
    if raw is None:
        return None
    result: dict[str, Any] = {}
    for name, value in raw.items():
        try:
            result[name] = str(q.parse(value).rounded_up_to_milli())
        except q.InvalidQuantity:
            result[name] = value
    return result
