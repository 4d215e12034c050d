"""What the API server would refuse in a container of a pod.

Upstream counterpart: pkg/apis/core/validation (validateContainers and what it calls).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from kubelet_py.api import core_v1
from kubelet_py.api import quantity as q
from kubelet_py.core import name_rules, pod_resources
from kubelet_py.core.problems import ProblemList

_ENV_FIELDS: Final = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_MAX_COMMAND_GRACE_SECONDS: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ContainerPlace:
    """Where a container stands, and what it may refer to. `host_ports` is shared by the pod's containers."""

    path: str
    is_init: bool
    spec: core_v1.PodSpec
    volumes: frozenset[str]
    host_ports: set[tuple[str, str, int]]


def check_container(container: core_v1.Container, place: ContainerPlace, problems: ProblemList) -> None:
    """One init or main container."""
    path = place.path
    if not container.name:
        problems.required(f"{path}.name")
    else:
        problems.invalid(f"{path}.name", container.name, name_rules.check_dns_label(container.name))
    if not container.image:
        problems.required(f"{path}.image")
    elif container.image != container.image.strip():
        problems.invalid(f"{path}.image", container.image, "must not have leading or trailing whitespace")
    problems.one_of(f"{path}.imagePullPolicy", container.imagePullPolicy, ("Always", "IfNotPresent", "Never"))
    problems.one_of(
        f"{path}.terminationMessagePolicy", container.terminationMessagePolicy, ("File", "FallbackToLogsOnError")
    )
    problems.one_of(f"{path}.restartPolicy", container.restartPolicy, ("Always", "OnFailure", "Never"))
    _check_ports(container, place, problems)
    _check_env(container, path, problems)
    _check_mounts(container, place, problems)
    _check_probes(container, place, problems)
    if container.resources is not None:
        check_resources(container.resources, f"{path}.resources", problems)
    _check_security_context(container, place, problems)


def check_resources(
    resources: core_v1.ResourceRequirements, path: str, problems: ProblemList, pod_level: bool = False
) -> None:
    """Limits and requests: quantities, names, and no request above its limit."""
    amounts: dict[str, dict[str, q.Quantity]] = {}
    for kind, raw in (("limits", resources.limits), ("requests", resources.requests)):
        amounts[kind] = {}
        for name, value in (raw or {}).items():
            where = f"{path}.{kind}[{name}]"
            _check_resource_name(str(name), where, problems, pod_level)
            try:
                amount = q.parse(value)
            except q.InvalidQuantity as error:
                if kind == "limits" or (resources.limits or {}).get(name) != value:  # a default repeats the limit
                    problems.invalid(where, value, str(error))
                continue
            if amount.nanos < 0:
                problems.invalid(where, str(amount), "must be greater than or equal to 0")
            elif pod_resources.is_extended_resource(str(name)) and amount != q.from_units(amount.value):
                problems.invalid(where, str(amount), "must be an integer")
            amounts[kind][str(name)] = amount
    for name, request in amounts["requests"].items():
        limit = amounts["limits"].get(name)
        where = f"{path}.requests"
        if limit is not None and request > limit:
            problems.invalid(where, str(request), f"must be less than or equal to {name} limit of {limit}")
        elif _not_overcommitted(name) and limit is not None and request != limit:
            problems.invalid(where, str(request), f"must be equal to {name} limit of {limit}")
        elif _not_overcommitted(name) and limit is None:
            problems.required(f"{path}.limits", f"Limit must be set for non overcommitable resources ({name})")


def check_profile(
    profile: core_v1.SeccompProfile | core_v1.AppArmorProfile | None, path: str, problems: ProblemList
) -> None:
    """A seccomp or AppArmor profile: a name for Localhost, none for the others."""
    if profile is None:
        return
    problems.one_of(f"{path}.type", profile.type, ("Localhost", "RuntimeDefault", "Unconfined"))
    reference = profile.localhostProfile
    if profile.type == "Localhost":
        if not reference:
            problems.required(f"{path}.localhostProfile", "must be set when type is Localhost")
        else:
            problems.invalid(f"{path}.localhostProfile", reference, name_rules.check_path_inside(reference))
    elif reference is not None:
        problems.invalid(f"{path}.localhostProfile", reference, "can only be set when type is Localhost")


def _not_overcommitted(name: str) -> bool:
    return name.startswith(pod_resources.HUGEPAGES_PREFIX) or pod_resources.is_extended_resource(name)


def _check_resource_name(name: str, where: str, problems: ProblemList, pod_level: bool) -> None:
    standard = (pod_resources.CPU, pod_resources.MEMORY, pod_resources.EPHEMERAL_STORAGE)
    if pod_level and name == pod_resources.EPHEMERAL_STORAGE:
        problems.invalid(where, name, "not supported at the pod level; supported are cpu, memory and hugepages-<size>")
    elif name in standard:
        return
    elif name.startswith(pod_resources.HUGEPAGES_PREFIX):
        try:
            q.parse(name.removeprefix(pod_resources.HUGEPAGES_PREFIX))
        except q.InvalidQuantity:
            problems.invalid(where, name, "must be hugepages-<size>, such as hugepages-2Mi")
    elif "/" not in name:
        problems.invalid(where, name, "must be cpu, memory, ephemeral-storage, hugepages-<size> or <domain>/<name>")
    else:
        problems.invalid(where, name, name_rules.check_qualified_name(name))


def _check_ports(container: core_v1.Container, place: ContainerPlace, problems: ProblemList) -> None:
    names: set[str] = set()
    taken = set() if place.is_init else place.host_ports  # those of init containers are looked at by themselves
    for index, port in enumerate(container.ports or ()):
        path = f"{place.path}.ports[{index}]"
        if port.name:
            problems.invalid(f"{path}.name", port.name, name_rules.check_port_name(port.name))
            if port.name in names:
                problems.duplicate(f"{path}.name", port.name)
            names.add(port.name)
        problems.invalid(f"{path}.containerPort", port.containerPort, name_rules.check_port_number(port.containerPort))
        problems.one_of(f"{path}.protocol", port.protocol, ("TCP", "UDP", "SCTP"))
        if port.hostIP:
            problems.invalid(f"{path}.hostIP", port.hostIP, name_rules.check_ip(port.hostIP))
        if not port.hostPort:
            continue
        problems.invalid(f"{path}.hostPort", port.hostPort, name_rules.check_port_number(port.hostPort))
        if place.spec.hostNetwork and port.hostPort != port.containerPort:
            problems.invalid(f"{path}.containerPort", port.containerPort, "must match `hostPort` when `hostNetwork`")
        key = (port.hostIP or "", port.protocol or "TCP", port.hostPort)
        if key in taken:
            problems.duplicate(f"{path}.hostPort", port.hostPort)
        taken.add(key)


def _check_env(container: core_v1.Container, path: str, problems: ProblemList) -> None:
    for index, entry in enumerate(container.env or ()):
        where = f"{path}.env[{index}]"
        if not entry.name:
            problems.required(f"{where}.name")
        else:
            problems.invalid(f"{where}.name", entry.name, name_rules.check_env_name(entry.name))
        if entry.valueFrom is not None:
            _check_env_source(entry, where, problems)
    for index, source in enumerate(container.envFrom or ()):
        where = f"{path}.envFrom[{index}]"
        if source.prefix:
            problems.invalid(f"{where}.prefix", source.prefix, name_rules.check_env_name(source.prefix))
        if (source.configMapRef is None) == (source.secretRef is None):
            problems.invalid(where, "", "must specify exactly one of: `configMapRef` or `secretRef`")


def _check_env_source(entry: core_v1.EnvVar, path: str, problems: ProblemList) -> None:
    source = entry.valueFrom
    assert source is not None
    given = [name for name in source.__struct_fields__ if getattr(source, name) is not None]
    if len(given) != 1:
        problems.invalid(
            f"{path}.valueFrom", given or "", f"must specify exactly one of: {', '.join(source.__struct_fields__)}"
        )
    if entry.value:
        problems.invalid(f"{path}.valueFrom", entry.name, "may not be specified when `value` is not empty")
    if source.fieldRef is not None:
        field = source.fieldRef.fieldPath or ""
        subscripted = field.startswith(("metadata.annotations['", "metadata.labels['")) and field.endswith("']")
        if not subscripted and field != "spec.host":  # the old name of spec.nodeName
            problems.one_of(f"{path}.valueFrom.fieldRef.fieldPath", field, _ENV_FIELDS)
    if source.resourceFieldRef is not None:
        check_resource_field(source.resourceFieldRef, f"{path}.valueFrom.resourceFieldRef", problems)


def check_resource_field(selector: core_v1.ResourceFieldSelector, path: str, problems: ProblemList) -> None:
    """A resourceFieldRef of an environment variable or a downward API file."""
    kind, _, name = (selector.resource or "").partition(".")
    standard = (pod_resources.CPU, pod_resources.MEMORY, pod_resources.EPHEMERAL_STORAGE)
    if not selector.resource:
        problems.required(f"{path}.resource")
    elif kind not in ("limits", "requests") or not (
        name in standard or name.startswith(pod_resources.HUGEPAGES_PREFIX)
    ):
        allowed = [f"{k}.{n}" for k in ("limits", "requests") for n in (*standard, "hugepages-<size>")]
        problems.one_of(f"{path}.resource", selector.resource, allowed)
    if selector.divisor is not None:
        try:
            q.parse(selector.divisor)
        except q.InvalidQuantity as error:
            problems.invalid(f"{path}.divisor", selector.divisor, str(error))


def _check_mounts(container: core_v1.Container, place: ContainerPlace, problems: ProblemList) -> None:
    among = f"the pod has the volumes {', '.join(sorted(place.volumes))}" if place.volumes else "the pod has no volumes"
    mount_paths: set[str] = set()
    for index, mount in enumerate(container.volumeMounts or ()):
        path = f"{place.path}.volumeMounts[{index}]"
        if not mount.name:
            problems.required(f"{path}.name")
        elif mount.name not in place.volumes:
            problems.not_found(f"{path}.name", mount.name, among)
        if not mount.mountPath:
            problems.required(f"{path}.mountPath")
        elif mount.mountPath in mount_paths:
            problems.invalid(f"{path}.mountPath", mount.mountPath, "must be unique")
        mount_paths.add(mount.mountPath)
        if mount.subPath and mount.subPathExpr:
            problems.invalid(f"{path}.subPathExpr", mount.subPathExpr, "subPathExpr and subPath are mutually exclusive")
        for name in ("subPath", "subPathExpr"):
            if value := getattr(mount, name):
                problems.invalid(f"{path}.{name}", value, name_rules.check_path_inside(value))
        _check_mount_modes(mount, container, path, problems)
    for index, device in enumerate(container.volumeDevices or ()):
        path = f"{place.path}.volumeDevices[{index}]"
        if device.name not in place.volumes:
            problems.not_found(f"{path}.name", device.name, among)
        if not device.devicePath:
            problems.required(f"{path}.devicePath")
        elif device.devicePath in mount_paths:
            problems.invalid(f"{path}.devicePath", device.devicePath, "must not already exist in volumeMounts")


def _check_mount_modes(
    mount: core_v1.VolumeMount, container: core_v1.Container, path: str, problems: ProblemList
) -> None:
    problems.one_of(f"{path}.mountPropagation", mount.mountPropagation, ("Bidirectional", "HostToContainer", "None"))
    context = container.securityContext
    if mount.mountPropagation == "Bidirectional" and not (context is not None and context.privileged):
        problems.forbidden(f"{path}.mountPropagation", "Bidirectional is only for privileged containers")
    problems.one_of(f"{path}.recursiveReadOnly", mount.recursiveReadOnly, ("Disabled", "IfPossible", "Enabled"))
    if mount.recursiveReadOnly in ("IfPossible", "Enabled"):
        if not mount.readOnly:
            problems.forbidden(f"{path}.recursiveReadOnly", "may only be specified when readOnly is true")
        if mount.mountPropagation not in (None, "None"):
            problems.forbidden(f"{path}.recursiveReadOnly", "may only be specified when mountPropagation is None")


def _check_probes(container: core_v1.Container, place: ContainerPlace, problems: ProblemList) -> None:
    path = place.path
    may_probe = not place.is_init or container.restartPolicy == "Always"
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = getattr(container, name)
        if probe is None:
            continue
        if not may_probe:
            problems.forbidden(f"{path}.{name}", "may not be set for init containers without restartPolicy=Always")
        _check_probe(probe, f"{path}.{name}", problems)
        if name != "readinessProbe" and probe.successThreshold not in (None, 1):
            problems.invalid(f"{path}.{name}.successThreshold", probe.successThreshold, "must be 1")
    if container.readinessProbe is not None and container.readinessProbe.terminationGracePeriodSeconds is not None:
        problems.invalid(
            f"{path}.readinessProbe.terminationGracePeriodSeconds",
            container.readinessProbe.terminationGracePeriodSeconds,
            "must not be set for readinessProbes",
        )
    if container.lifecycle is None:
        return
    if not may_probe:
        problems.forbidden(f"{path}.lifecycle", "may not be set for init containers without restartPolicy=Always")
    for name in ("postStart", "preStop"):
        handler = getattr(container.lifecycle, name)
        if handler is not None:
            _check_handler(handler, f"{path}.lifecycle.{name}", ("exec", "httpGet", "tcpSocket", "sleep"), problems)
            if handler.sleep is not None:
                longest = place.spec.terminationGracePeriodSeconds or 0
                if not 0 <= handler.sleep.seconds <= min(longest, _MAX_COMMAND_GRACE_SECONDS):
                    problems.invalid(
                        f"{path}.lifecycle.{name}.sleep",
                        handler.sleep.seconds,
                        f"must be non-negative and at most terminationGracePeriodSeconds ({longest})",
                    )


def _check_probe(probe: core_v1.Probe, path: str, problems: ProblemList) -> None:
    _check_handler(probe, path, ("exec", "httpGet", "tcpSocket", "grpc"), problems)
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        problems.at_least(f"{path}.{name}", getattr(probe, name), 0)
    problems.at_least(f"{path}.terminationGracePeriodSeconds", probe.terminationGracePeriodSeconds, 1)


def _check_handler(handler: Any, path: str, kinds: Iterable[str], problems: ProblemList) -> None:
    given = [kind for kind in kinds if getattr(handler, kind) is not None]
    if len(given) != 1:
        words = ", ".join(kinds)
        if given:
            problems.forbidden(path, f"may not specify more than 1 handler type out of {words}")
        else:
            problems.required(path, f"must specify a handler type out of {words}")
    if handler.exec is not None and not handler.exec.command:
        problems.required(f"{path}.exec.command")
    if handler.httpGet is not None:
        _check_port_reference(handler.httpGet.port, f"{path}.httpGet.port", problems)
        problems.one_of(f"{path}.httpGet.scheme", handler.httpGet.scheme, ("HTTP", "HTTPS"))
        for index, header in enumerate(handler.httpGet.httpHeaders or ()):
            if not name_rules.is_http_header_name(header.name):
                problems.invalid(
                    f"{path}.httpGet.httpHeaders[{index}].name", header.name, "must be letters, digits or '-'"
                )
    if handler.tcpSocket is not None:
        _check_port_reference(handler.tcpSocket.port, f"{path}.tcpSocket.port", problems)
    if (grpc := getattr(handler, "grpc", None)) is not None:
        problems.invalid(f"{path}.grpc.port", grpc.port, name_rules.check_port_number(grpc.port))


def _check_port_reference(port: int | str, path: str, problems: ProblemList) -> None:
    if isinstance(port, int):
        problems.invalid(path, port, name_rules.check_port_number(port))
    elif port:
        problems.invalid(path, port, name_rules.check_port_name(port))
    else:
        problems.required(path)


def _check_security_context(container: core_v1.Container, place: ContainerPlace, problems: ProblemList) -> None:
    context = container.securityContext
    if context is None:
        return
    path = f"{place.path}.securityContext"
    for name in ("runAsUser", "runAsGroup"):
        value = getattr(context, name)
        if value is not None:
            problems.invalid(f"{path}.{name}", value, name_rules.check_id(value))
    problems.one_of(f"{path}.procMount", context.procMount, ("Default", "Unmasked"))
    if context.procMount == "Unmasked" and place.spec.hostUsers is not False:
        problems.invalid(f"{path}.procMount", "Unmasked", "`hostUsers` must be false to use `Unmasked`")
    for profile, name in ((context.seccompProfile, "seccompProfile"), (context.appArmorProfile, "appArmorProfile")):
        check_profile(profile, f"{path}.{name}", problems)
    if context.allowPrivilegeEscalation is False and context.privileged:
        problems.invalid(
            path,
            "allowPrivilegeEscalation: false",
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        )
