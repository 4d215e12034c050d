"""What the API server would refuse in a pod, found here for pods that never meet one. All of it at once.

Runs on a pod with its defaults. Containers and volumes have modules of their own.

Upstream counterpart: pkg/apis/core/validation (the rules that a node depends on; affinity terms, scheduling and
Windows fields are left to the API server).
"""

from typing import Any, Final

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.core import name_rules
from kubelet_py.core.container_validation import ContainerPlace, check_container, check_profile, check_resources
from kubelet_py.core.name_rules import check_id, check_qualified_name
from kubelet_py.core.problems import Problem, ProblemList
from kubelet_py.core.volume_validation import check_volumes

RESTART_POLICIES: Final = ("Always", "OnFailure", "Never")
DNS_POLICIES: Final = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_MAX_ANNOTATIONS_BYTES: Final = 256 * 1024
_MAX_DEADLINE_SECONDS: Final = 2**31 - 1
_FQDN_MAX_LENGTH: Final = 64


def validate_pod(pod: core_v1.Pod) -> tuple[Problem, ...]:
    """Everything that is wrong with a pod, nothing when it can run."""
    problems = ProblemList()
    _check_metadata(pod.metadata or meta_v1.ObjectMeta(), problems)
    if pod.spec is None:
        problems.required("spec")
        return tuple(problems.found)
    _check_spec(pod.spec, problems)
    return tuple(problems.found)


def _check_metadata(metadata: meta_v1.ObjectMeta, problems: ProblemList) -> None:
    if not metadata.name:
        problems.required("metadata.name", "name is needed for the pod")
    else:
        problems.invalid("metadata.name", metadata.name, name_rules.check_dns_subdomain(metadata.name))
    if not metadata.namespace:
        problems.required("metadata.namespace")
    else:
        problems.invalid("metadata.namespace", metadata.namespace, name_rules.check_dns_label(metadata.namespace))
    problems.at_least("metadata.generation", metadata.generation, 0)
    _check_label_map(metadata.labels, "metadata.labels", problems)
    annotations_bytes = 0
    for key, value in (metadata.annotations or {}).items():
        problems.invalid("metadata.annotations", key, check_qualified_name(str(key).lower()))
        if not isinstance(value, str):
            problems.invalid(f"metadata.annotations[{key}]", value, "must be text: put it in quotes")
        annotations_bytes += len(str(key)) + len(str(value))
    if annotations_bytes > _MAX_ANNOTATIONS_BYTES:
        problems.forbidden("metadata.annotations", f"may not be more than {_MAX_ANNOTATIONS_BYTES} bytes")


def _check_label_map(labels: dict[str, Any] | None, path: str, problems: ProblemList) -> None:
    for key, value in (labels or {}).items():
        problems.invalid(path, key, check_qualified_name(str(key)))
        if not isinstance(value, str):
            problems.invalid(f"{path}[{key}]", value, "must be text: put it in quotes")
        else:
            problems.invalid(f"{path}[{key}]", value, name_rules.check_label_value(value))


def _check_spec(spec: core_v1.PodSpec, problems: ProblemList) -> None:
    volumes = check_volumes(spec.volumes or (), "spec.volumes", problems)
    _check_containers(spec, frozenset(volumes), problems)
    problems.one_of("spec.restartPolicy", spec.restartPolicy, RESTART_POLICIES)
    problems.one_of("spec.dnsPolicy", spec.dnsPolicy, DNS_POLICIES)
    problems.at_least("spec.terminationGracePeriodSeconds", spec.terminationGracePeriodSeconds, 0)
    if spec.activeDeadlineSeconds is not None and not 1 <= spec.activeDeadlineSeconds <= _MAX_DEADLINE_SECONDS:
        problems.invalid(
            "spec.activeDeadlineSeconds", spec.activeDeadlineSeconds, f"must be between 1 and {_MAX_DEADLINE_SECONDS}"
        )
    if spec.os is not None:
        problems.one_of("spec.os.name", spec.os.name, ("linux", "windows"))
    _check_label_map(spec.nodeSelector, "spec.nodeSelector", problems)
    for index, toleration in enumerate(spec.tolerations or ()):
        _check_toleration(toleration, f"spec.tolerations[{index}]", problems)
    _check_identity(spec, problems)
    _check_dns_config(spec, problems)
    _check_security_context(spec, problems)
    if spec.resources is not None:
        check_resources(spec.resources, "spec.resources", problems, pod_level=True)
    if spec.overhead is not None:
        check_resources(core_v1.ResourceRequirements(limits=spec.overhead), "spec.overhead", problems)
    for index, secret in enumerate(spec.imagePullSecrets or ()):
        if not secret.name:
            problems.required(f"spec.imagePullSecrets[{index}].name")
    for index, gate in enumerate(spec.readinessGates or ()):
        problems.invalid(
            f"spec.readinessGates[{index}].conditionType", gate.conditionType, check_qualified_name(gate.conditionType)
        )
    for name in ("serviceAccountName", "runtimeClassName", "priorityClassName"):
        if value := getattr(spec, name):
            problems.invalid(f"spec.{name}", value, name_rules.check_dns_subdomain(value))


def _check_containers(spec: core_v1.PodSpec, volumes: frozenset[str], problems: ProblemList) -> None:
    if not spec.containers:
        problems.required("spec.containers", "a pod has at least one container")
    names: set[str] = set()
    host_ports: set[tuple[str, str, int]] = set()
    init = tuple(spec.initContainers or ())
    for kind, containers in (("containers", tuple(spec.containers or ())), ("initContainers", init)):
        for index, container in enumerate(containers):
            path = f"spec.{kind}[{index}]"
            if container.name in names:
                problems.duplicate(f"{path}.name", container.name)
            names.add(container.name)
            check_container(
                container, ContainerPlace(path, kind == "initContainers", spec, volumes, host_ports), problems
            )
    if spec.ephemeralContainers:
        problems.forbidden("spec.ephemeralContainers", "cannot be set on create")


def _check_toleration(toleration: core_v1.Toleration, path: str, problems: ProblemList) -> None:
    problems.one_of(f"{path}.effect", toleration.effect or None, ("NoSchedule", "PreferNoSchedule", "NoExecute"))
    problems.one_of(f"{path}.operator", toleration.operator or None, ("Equal", "Exists", "Lt", "Gt"))
    if toleration.key:
        problems.invalid(f"{path}.key", toleration.key, check_qualified_name(toleration.key))
    elif toleration.operator != "Exists":
        problems.invalid(f"{path}.operator", toleration.operator or "", "operator must be Exists when `key` is empty")
    if toleration.operator == "Exists" and toleration.value:
        problems.invalid(f"{path}.value", toleration.value, "value must be empty when `operator` is 'Exists'")
    if toleration.tolerationSeconds is not None and toleration.effect != "NoExecute":
        problems.invalid(
            f"{path}.effect", toleration.effect or "", "effect must be 'NoExecute' when `tolerationSeconds` is set"
        )


def _check_identity(spec: core_v1.PodSpec, problems: ProblemList) -> None:
    for name in ("hostname", "subdomain"):
        if value := getattr(spec, name):
            problems.invalid(f"spec.{name}", value, name_rules.check_dns_label(value))
    if spec.hostnameOverride is not None:
        wrong = name_rules.check_dns_subdomain(spec.hostnameOverride)
        if not wrong and len(spec.hostnameOverride) > _FQDN_MAX_LENGTH:
            wrong = f"must be no more than {_FQDN_MAX_LENGTH} characters"
        problems.invalid("spec.hostnameOverride", spec.hostnameOverride, wrong)
        if spec.setHostnameAsFQDN:
            problems.forbidden("spec.setHostnameAsFQDN", "may not be set together with hostnameOverride")
        if spec.hostNetwork:
            problems.forbidden("spec.hostNetwork", "may not be set together with hostnameOverride")
    for index, alias in enumerate(spec.hostAliases or ()):
        problems.invalid(f"spec.hostAliases[{index}].ip", alias.ip, name_rules.check_ip(alias.ip))
        for position, hostname in enumerate(alias.hostnames or ()):
            problems.invalid(
                f"spec.hostAliases[{index}].hostnames[{position}]", hostname, name_rules.check_dns_subdomain(hostname)
            )
    if spec.shareProcessNamespace and spec.hostPID:
        problems.invalid("spec.shareProcessNamespace", True, "ShareProcessNamespace and HostPID cannot both be enabled")
    if spec.hostUsers is False:
        for name in ("hostPID", "hostIPC", "hostNetwork"):
            if getattr(spec, name):
                problems.forbidden(f"spec.{name}", "when `pod.Spec.HostUsers` is false")


def _check_dns_config(spec: core_v1.PodSpec, problems: ProblemList) -> None:
    config = spec.dnsConfig
    nameservers = (config.nameservers if config is not None else None) or ()
    if spec.dnsPolicy == "None" and not nameservers:
        problems.required(
            "spec.dnsConfig.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"
        )
    if config is None:
        return
    if len(nameservers) > 3:
        problems.invalid("spec.dnsConfig.nameservers", list(nameservers), "must not have more than 3 nameservers")
    for index, address in enumerate(nameservers):
        problems.invalid(f"spec.dnsConfig.nameservers[{index}]", address, name_rules.check_ip(address))
    searches = config.searches or ()
    if len(searches) > 32:
        problems.invalid("spec.dnsConfig.searches", len(searches), "must not have more than 32 search paths")
    if len(" ".join(searches)) > 2048:
        problems.invalid("spec.dnsConfig.searches", len(" ".join(searches)), "must not have more than 2048 characters")
    for index, search in enumerate(searches):
        problems.invalid(f"spec.dnsConfig.searches[{index}]", search, name_rules.check_dns_search(search))
    for index, option in enumerate(config.options or ()):
        if not option.name:
            problems.required(f"spec.dnsConfig.options[{index}]", "must not be empty")


def _check_security_context(spec: core_v1.PodSpec, problems: ProblemList) -> None:
    context = spec.securityContext
    if context is None:
        return
    path = "spec.securityContext"
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        value = getattr(context, name)
        if value is not None:
            problems.invalid(f"{path}.{name}", value, check_id(value))
    for index, group in enumerate(context.supplementalGroups or ()):
        problems.invalid(f"{path}.supplementalGroups[{index}]", group, check_id(group))
    problems.one_of(f"{path}.supplementalGroupsPolicy", context.supplementalGroupsPolicy, ("Merge", "Strict"))
    problems.one_of(f"{path}.fsGroupChangePolicy", context.fsGroupChangePolicy, ("OnRootMismatch", "Always"))
    for profile, name in ((context.seccompProfile, "seccompProfile"), (context.appArmorProfile, "appArmorProfile")):
        check_profile(profile, f"{path}.{name}", problems)
    seen: set[str] = set()
    for index, sysctl in enumerate(context.sysctls or ()):
        where = f"{path}.sysctls[{index}].name"
        if not sysctl.name:
            problems.required(where)
        elif not name_rules.is_sysctl_name(sysctl.name):
            problems.invalid(where, sysctl.name, "must be parts such as 'net.ipv4.ip_forward', at most 253 characters")
        elif sysctl.name in seen:
            problems.duplicate(where, sysctl.name)
        seen.add(sysctl.name)
