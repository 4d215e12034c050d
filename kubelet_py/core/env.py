"""The environment of a container.

envFrom first, then env in its order, each value expanded over what came before it; service variables fill what is
left. ConfigMaps, Secrets, Services and the text of env files come in as arguments.

Upstream counterparts: pkg/kubelet/kubelet_pods.go (makeEnvironmentVariables), pkg/kubelet/envvars, pkg/fieldpath,
pkg/api/v1/resource, pkg/kubelet/util/env. Difference: variables keep a stable order (there it is that of a map).
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.api import pod as podlib
from kubelet_py.api import quantity as q
from kubelet_py.core import pod_resources
from kubelet_py.core.expansion import expand
from kubelet_py.core.name_rules import check_qualified_name
from kubelet_py.core.pod_resources import CPU, EPHEMERAL_STORAGE, HUGEPAGES_PREFIX, MEMORY, AnyContainer
from kubelet_py.errors import SyncError

_Object = TypeVar("_Object")

_REASON: Final = "CreateContainerConfigError"
_MASTER_SERVICE: Final = ("default", "kubernetes")
_SUBSCRIPTED_FIELDS: Final = ("metadata.annotations", "metadata.labels")


@dataclass(frozen=True, slots=True)
class EnvSources:
    """What environment variables are taken from. A name that is missing from a mapping does not exist."""

    config_maps: Mapping[str, core_v1.ConfigMap] = field(default_factory=dict)
    """By name, of the pod's namespace."""
    secrets: Mapping[str, core_v1.Secret] = field(default_factory=dict)
    """By name, of the pod's namespace."""
    services: Iterable[core_v1.Service] = ()
    services_known: bool = True
    """The list of services was read at least once, or there is no API server to read it from."""
    has_api: bool = True
    env_files: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Texts by volume name and path."""
    pod_ips: tuple[str, ...] = ()
    """The primary address family of the node first."""
    host_ips: tuple[str, ...] = ()
    node_allocatable: Mapping[str, Any] = field(default_factory=dict)


def compute_env(pod: core_v1.Pod, container: AnyContainer, sources: EnvSources) -> dict[str, str]:
    """The variables by name. Raises SyncError("CreateContainerConfigError") with the Go kubelet's messages."""
    if not podlib.is_static(pod) and not sources.services_known:
        raise _error("services have not yet been read at least once, cannot construct envvars", container)
    services = compute_service_env(pod, sources.services)
    variables = _from_whole_objects(pod, container, sources)
    for entry in container.env or ():
        if entry.value:
            variables[entry.name] = expand(entry.value, variables, services)
        elif entry.valueFrom is None:
            variables[entry.name] = ""
        else:
            value = _referenced_value(pod, container, entry.valueFrom, sources)
            if value is not None:
                variables[entry.name] = value
    return variables | {name: value for name, value in services.items() if name not in variables}


def compute_service_env(pod: core_v1.Pod, services: Iterable[core_v1.Service]) -> dict[str, str]:
    """`kubernetes` of the default namespace always, those of the pod's own namespace with enableServiceLinks."""
    namespace = podlib.metadata_of(pod).namespace
    links = podlib.spec_of(pod).enableServiceLinks is not False
    chosen: dict[str, core_v1.Service] = {}
    for service in services:
        if not _has_cluster_ip(service):
            continue
        metadata = service.metadata or meta_v1.ObjectMeta()
        name, own = metadata.name or "", metadata.namespace
        if (own, name) == _MASTER_SERVICE:
            chosen.setdefault(name, service)
        elif own == namespace and links:
            chosen[name] = service
    variables: dict[str, str] = {}
    for name in sorted(chosen):
        variables.update(_variables_of_service(name, chosen[name].spec or core_v1.ServiceSpec()))
    return variables


def read_env_file(text: str, key: str) -> str:
    """One variable of an env file; "" when it is not there. Raises ValueError naming the line that is wrong."""
    lines = iter(enumerate((line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")), start=1))
    for number, raw in lines:
        line = raw.lstrip(" \t")
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        prefix = f"invalid environment variable format at line {number}"
        if not equals:
            raise ValueError(f"{prefix}: missing '='")
        if not name.rstrip(" \t"):
            raise ValueError(f"{prefix}: empty variable name")
        if name != name.rstrip(" \t"):
            raise ValueError(f"{prefix}: whitespace before '=' is not allowed")
        if value[:1] in (" ", "\t"):
            content = ""  # as a shell reads it: an empty assignment, and then something else
        elif not value.startswith("'"):
            raise ValueError(f"{prefix}: value must be enclosed in single quotes")
        else:
            content = _quoted_content(value[1:], number, lines)
        if name == key:
            return content
    return ""


def compute_field_value(pod: core_v1.Pod, selector: core_v1.ObjectFieldSelector, sources: EnvSources) -> str:
    """A field of the pod, as the downward API names it. Raises ValueError for one that it does not offer."""
    if (selector.apiVersion or "v1") != "v1":
        raise ValueError(f"unsupported pod version: {selector.apiVersion}")
    path = selector.fieldPath or ""
    spec, metadata = podlib.spec_of(pod), podlib.metadata_of(pod)
    if path in ("status.hostIP", "status.hostIPs") and not sources.host_ips:
        raise ValueError("host IP unknown; the node has no address yet")
    match path:
        case "spec.nodeName" | "spec.host":  # its name in v1beta1, which the API server takes and keeps
            return spec.nodeName or ""
        case "spec.serviceAccountName":
            return spec.serviceAccountName or ""
        case "status.hostIP":
            return sources.host_ips[0]
        case "status.hostIPs":
            return ",".join(sources.host_ips)
        case "status.podIP":
            return sources.pod_ips[0] if sources.pod_ips else ""
        case "status.podIPs":
            return ",".join(sources.pod_ips)
        case "metadata.name":
            return metadata.name or ""
        case "metadata.namespace":
            return metadata.namespace or ""
        case "metadata.uid":
            return podlib.uid_of(pod)
    return _subscripted_value(metadata, path)


def compute_resource_value(
    pod: core_v1.Pod,
    container: AnyContainer,
    selector: core_v1.ResourceFieldSelector,
    node_allocatable: Mapping[str, Any],
) -> str:
    """A request or limit divided by the divisor, rounded up. Without a limit the pod's or the node's stands in."""
    if selector.containerName:
        container = _container_named(pod, selector.containerName)
    kind, _, name = (selector.resource or "").partition(".")
    known = name in (CPU, MEMORY, EPHEMERAL_STORAGE) or name.startswith(HUGEPAGES_PREFIX)
    if kind not in ("limits", "requests") or not known:
        raise ValueError(f"unsupported container resource : {selector.resource}")
    amounts = pod_resources.limits_of(container) if kind == "limits" else pod_resources.requests_of(container)
    amount = pod_resources.quantity_of(amounts, name)
    if kind == "limits" and not amount and not name.startswith(HUGEPAGES_PREFIX):
        in_node = pod_resources.quantity_of(node_allocatable, name)
        amount = (pod_resources.pod_level_limits_of(pod).get(name) or in_node) if in_node else in_node
    divisor = q.parse(selector.divisor) if selector.divisor is not None else q.ZERO
    if not divisor:
        divisor = q.from_units(1)
    if name == CPU:
        return str(-(-amount.milli_value // divisor.milli_value))
    return str(-(-amount.value // divisor.value))


def _from_whole_objects(pod: core_v1.Pod, container: AnyContainer, sources: EnvSources) -> dict[str, str]:
    variables: dict[str, str] = {}
    for entry in container.envFrom or ():
        if entry.configMapRef is not None:
            found = _config_map(pod, container, entry.configMapRef, sources)
            data = (found.data or {}) if found is not None else {}
        elif entry.secretRef is not None:
            secret = _secret(pod, container, entry.secretRef, sources)
            data = _secret_data(secret) if secret is not None else {}
        else:
            continue
        variables.update((f"{entry.prefix or ''}{key}", data[key]) for key in sorted(data))
    return variables


def _referenced_value(
    pod: core_v1.Pod, container: AnyContainer, reference: core_v1.EnvVarSource, sources: EnvSources
) -> str | None:
    """None where an optional reference leads nowhere: the variable is then not set at all."""
    try:
        if reference.fieldRef is not None:
            return compute_field_value(pod, reference.fieldRef, sources)
        if reference.resourceFieldRef is not None:
            return compute_resource_value(pod, container, reference.resourceFieldRef, sources.node_allocatable)
    except ValueError as error:
        raise _error(str(error), container) from error
    if reference.configMapKeyRef is not None:
        found = _config_map(pod, container, reference.configMapKeyRef, sources)
        data = None if found is None else found.data or {}
        return _key_of(pod, container, "ConfigMap", reference.configMapKeyRef, data)
    if reference.secretKeyRef is not None:
        secret = _secret(pod, container, reference.secretKeyRef, sources)
        data = None if secret is None else _secret_data(secret)
        return _key_of(pod, container, "Secret", reference.secretKeyRef, data)
    if reference.fileKeyRef is not None:
        return _file_value(container, reference.fileKeyRef, sources)
    return ""


def _config_map(
    pod: core_v1.Pod, container: AnyContainer, reference: Any, sources: EnvSources
) -> core_v1.ConfigMap | None:
    return _look_up(pod, container, ("configMap", "configmap"), reference, sources.config_maps, sources.has_api)


def _secret(pod: core_v1.Pod, container: AnyContainer, reference: Any, sources: EnvSources) -> core_v1.Secret | None:
    return _look_up(pod, container, ("secret", "secret"), reference, sources.secrets, sources.has_api)


def _look_up(
    pod: core_v1.Pod,
    container: AnyContainer,
    kinds: tuple[str, str],
    reference: Any,
    objects: Mapping[str, _Object],
    has_api: bool,
) -> _Object | None:
    name = reference.name or ""
    if not has_api:
        namespace = podlib.metadata_of(pod).namespace
        raise _error(f"couldn't get {kinds[0]} {namespace}/{name}, no kubeClient defined", container)
    if name not in objects and not reference.optional:
        raise _error(f'{kinds[1]} "{name}" not found', container)
    return objects.get(name)


def _key_of(
    pod: core_v1.Pod, container: AnyContainer, kind: str, reference: Any, data: Mapping[str, str] | None
) -> str | None:
    value = data.get(reference.key) if data is not None else None
    if value is None and not reference.optional:
        where = f"{podlib.metadata_of(pod).namespace}/{reference.name}"
        raise _error(f"couldn't find key {reference.key} in {kind} {where}", container)
    return value


def _secret_data(secret: core_v1.Secret) -> dict[str, str]:
    # The environment is bytes: what is no UTF-8 goes through unharmed and comes out again in `to_cri_env`.
    return {
        key: base64.b64decode(value or "").decode("utf-8", "surrogateescape")
        for key, value in (secret.data or {}).items()
    }


def _file_value(container: AnyContainer, reference: core_v1.FileKeySelector, sources: EnvSources) -> str | None:
    text = sources.env_files.get((reference.volumeName, reference.path))
    try:
        value = read_env_file(text, reference.key) if text is not None else ""
    except ValueError as error:
        raise _error("couldn't parse env file", container) from error
    if text is None and not reference.optional:
        raise _error("couldn't parse env file", container)
    if value:
        return value
    if reference.optional:
        return None
    raise _error(f'environment variable key "{reference.key}" not found in file "{reference.path}"', container)


def _quoted_content(rest: str, start: int, lines: Iterable[tuple[int, str]]) -> str:
    """Up to the closing quote, over as many lines as it takes."""
    content: list[str] = []
    number = start
    following = iter(lines)
    while "'" not in rest:
        content.append(rest + "\n")
        number, rest = next(following, (0, ""))
        if number == 0:
            raise ValueError(f"invalid environment variable format starting at line {start}: unclosed single quote")
    inside, _, after = rest.partition("'")
    if after.strip(" \t") and not after.lstrip(" \t").startswith("#"):
        raise ValueError(
            f"invalid environment variable format at line {number}: unexpected content after closing quote"
        )
    return "".join(content) + inside


def _subscripted_value(metadata: meta_v1.ObjectMeta, path: str) -> str:
    name, bracket, key = path.removesuffix("']").partition("['")
    if not (bracket and name and path.endswith("']")):
        raise ValueError(f"field label not supported: {path}")
    if name not in _SUBSCRIPTED_FIELDS:
        raise ValueError(f"field label does not support subscript: {path}")
    is_annotation = name == "metadata.annotations"
    if wrong := check_qualified_name(key.lower() if is_annotation else key):
        raise ValueError(f"invalid key subscript in {path}: {wrong}")
    values = metadata.annotations if is_annotation else metadata.labels
    return str((values or {}).get(key, ""))


def _container_named(pod: core_v1.Pod, name: str) -> AnyContainer:
    for container in (*podlib.containers_of(pod), *podlib.init_containers_of(pod)):
        if container.name == name:
            return container
    raise ValueError(f"container {name} not found")


def _has_cluster_ip(service: core_v1.Service) -> bool:
    spec = service.spec
    return spec is not None and spec.type != "ExternalName" and spec.clusterIP not in (None, "", "None")


def _variables_of_service(service_name: str, spec: core_v1.ServiceSpec) -> dict[str, str]:
    name = _as_variable(service_name)
    ip = spec.clusterIP or ""
    host = f"[{ip}]" if ":" in ip else ip
    ports = spec.ports or ()
    variables = {f"{name}_SERVICE_HOST": ip}
    for index, port in enumerate(ports):
        protocol = port.protocol or "TCP"
        url = f"{protocol.lower()}://{host}:{port.port}"
        if index == 0:
            variables[f"{name}_SERVICE_PORT"] = str(port.port)
            variables[f"{name}_PORT"] = url
        if port.name:
            variables[f"{name}_SERVICE_PORT_{_as_variable(port.name)}"] = str(port.port)
        prefix = f"{name}_PORT_{port.port}_{protocol.upper()}"
        variables |= {
            prefix: url,
            f"{prefix}_PROTO": protocol.lower(),
            f"{prefix}_PORT": str(port.port),
            f"{prefix}_ADDR": ip,
        }
    return variables


def _as_variable(name: str) -> str:
    return name.replace("-", "_").upper()


def _error(message: str, container: AnyContainer) -> SyncError:
    return SyncError(_REASON, message, container.name)
