"""Whether a whole configuration makes sense: limits of single fields, and rules between fields.

Owns every check that needs typed values. Limits stand in the model; what relates fields to each other, to feature
gates or to the host stands here. Pure: what the host is like is an argument.

Upstream counterpart: pkg/kubelet/apis/config/validation. Deliberate difference: all problems are reported, with the
field's path first, so that they can be sorted out in one go.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubelet_py.api import quantity
from kubelet_py.api.durations import format_duration
from kubelet_py.config.decode import Problem, is_ip_address, is_quantity
from kubelet_py.config.gates import FeatureGates, gate_problems
from kubelet_py.config.model import HOST, IP_ADDRESS, QUANTITY, Between, KubeletConfiguration, OneOf
from kubelet_py.config.shapes import Shape, fields_of

_TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_ENFORCEMENTS = (
    "none",
    "pods",
    "system-reserved",
    "system-reserved-compressible",
    "kube-reserved",
    "kube-reserved-compressible",
)
_EVICTION_SIGNALS = (
    "memory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    "containerfs.available",
    "containerfs.inodesFree",
    "allocatableMemory.available",
    "pid.available",
)
_CPU_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_HOST_NAME = re.compile(
    r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?)*\.?"
)
_PERCENT = re.compile(r"\d+(\.\d+)?%")
_SYSCTL = re.compile(r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?")
_HIDDEN_METRICS_VERSION = "1.36"


@dataclass(frozen=True, slots=True)
class HostTraits:
    """What of the host a configuration can contradict."""

    cgroup_v2: bool = True
    swap_on: bool = False


def configuration_problems(config: KubeletConfiguration, gates: FeatureGates, host: HostTraits) -> list[Problem]:
    """Everything that is wrong with the effective configuration."""
    return [
        *_limit_problems(config, ""),
        *gate_problems(config.featureGates),
        *_host_problems(config, host),
        *_gated_problems(config, gates),
        *_image_problems(config),
        *_reservation_problems(config),
        *_eviction_problems(config),
        *_shutdown_problems(config, gates),
        *_policy_problems(config, gates),
        *_other_problems(config),
    ]


def _limit_problems(value: Any, prefix: str) -> Iterator[Problem]:
    """The limits that the model states field by field."""
    for name, shape in fields_of(type(value)).items():
        current = getattr(value, name)
        path = f"{prefix}{name}"
        if current is None:
            continue
        if shape.is_object:
            yield from _limit_problems(current, f"{path}.")
        elif shape.base is tuple:
            for index, item in enumerate(current):
                yield from _item_problems(shape.items, item, f"{path}[{index}]")
        elif shape.base is dict:
            for key, item in current.items():
                yield from _item_problems(shape.items, item, f"{path}.{key}")
        else:
            yield from _item_problems(shape, current, path)


def _item_problems(shape: Shape, value: Any, path: str) -> Iterator[Problem]:
    if shape.is_object:
        yield from _limit_problems(value, f"{path}.")
        return
    shown = format_duration(value) if shape.is_duration else repr(value) if isinstance(value, str) else str(value)
    for mark in shape.marks:
        if isinstance(mark, Between) and not mark.low <= value <= mark.high:
            yield Problem(path, f"is {shown}: {_range_text(shape, mark)}")
        elif isinstance(mark, OneOf) and value not in mark.words:
            yield Problem(path, f"is {shown}: write {' or '.join(word for word in mark.words if word)}")
    if shape.has(IP_ADDRESS) and not is_ip_address(value):
        yield Problem(path, f"is {shown}: an IP address is expected")
    if shape.has(HOST) and not is_ip_address(value) and not _HOST_NAME.fullmatch(value):
        yield Problem(path, f"is {shown}: an IP address or a host name is expected")
    if shape.has(QUANTITY) and not is_quantity(value):
        yield Problem(path, f"is {shown}: a quantity is expected, such as 100m, 2 or 512Mi")


def _range_text(shape: Shape, limits: Between) -> str:
    low, high = (
        format_duration(x) if shape.is_duration and x != float("inf") else x for x in (limits.low, limits.high)
    )
    if high == float("inf"):
        return f"at least {low} is expected"
    return f"{low} to {high} is expected"


def _host_problems(config: KubeletConfiguration, host: HostTraits) -> Iterator[Problem]:
    if not host.cgroup_v2:
        if config.failCgroupV1:
            yield Problem(
                "failCgroupV1",
                "is true, and this host uses cgroup v1: move the host to cgroup v2, or write failCgroupV1: false "
                "(--fail-cgroupv1=false) to run on v1 as long as Kubernetes still can",
            )
        if config.singleProcessOOMKill is False:
            yield Problem("singleProcessOOMKill", "is false, which cgroup v1 cannot do: leave it out or write true")
    if host.swap_on and config.failSwapOn:
        yield Problem(
            "failSwapOn", "is true, and swap is on: turn swap off, or write failSwapOn: false (--fail-swap-on=false)"
        )


def _gated_problems(config: KubeletConfiguration, gates: FeatureGates) -> Iterator[Problem]:
    needs: tuple[tuple[str, bool, str], ...] = (
        ("defaultPodSysctls", bool(config.defaultPodSysctls), "DefaultPodSysctls"),
        ("cpuCFSQuotaPeriod", config.cpuCFSQuotaPeriod != 0.1, "CustomCPUCFSQuotaPeriod"),
        ("serverTLSBootstrap", config.serverTLSBootstrap, "RotateKubeletServerCertificate"),
        ("memoryThrottlingFactor", config.memoryThrottlingFactor not in (None, 0.9), "MemoryQoS"),
        ("memoryReservationPolicy", config.memoryReservationPolicy == "TieredReservation", "MemoryQoS"),
        ("qosReserved", bool(config.qosReserved), "QOSReserved"),
        (
            "crashLoopBackOff.maxContainerRestartPeriod",
            config.crashLoopBackOff.maxContainerRestartPeriod is not None,
            "KubeletCrashLoopBackOffMax",
        ),
        (
            "imagePullCredentialsVerificationPolicy",
            config.imagePullCredentialsVerificationPolicy != "",
            "KubeletEnsureSecretPulledImages",
        ),
    )
    for path, is_set, gate in needs:
        if is_set and not gates.enabled(gate):
            yield Problem(path, f"is set, which needs the feature gate {gate}: switch it on, or leave this out")


def _image_problems(config: KubeletConfiguration) -> Iterator[Problem]:
    if config.imageGCLowThresholdPercent >= config.imageGCHighThresholdPercent:
        low, high = config.imageGCLowThresholdPercent, config.imageGCHighThresholdPercent
        text = f"is {low}: less than imageGCHighThresholdPercent ({high}) is expected"
        yield Problem("imageGCLowThresholdPercent", text)
    if 0 < config.imageMaximumGCAge <= config.imageMinimumGCAge:
        shown, least = format_duration(config.imageMaximumGCAge), format_duration(config.imageMinimumGCAge)
        yield Problem("imageMaximumGCAge", f"is {shown}: more than imageMinimumGCAge ({least}), or 0s, is expected")
    if config.serializeImagePulls and (config.maxParallelImagePulls or 1) > 1:
        text = f"is {config.maxParallelImagePulls} while serializeImagePulls is true: write serializeImagePulls: false"
        yield Problem("maxParallelImagePulls", text)
    if (
        config.preloadedImagesVerificationAllowlist
        and config.imagePullCredentialsVerificationPolicy != "NeverVerifyAllowlistedImages"
    ):
        text = "is set: it needs imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages"
        yield Problem("preloadedImagesVerificationAllowlist", text)


def _reservation_problems(config: KubeletConfiguration) -> Iterator[Problem]:
    path = "enforceNodeAllocatable"
    chosen = config.enforceNodeAllocatable
    for word in sorted({word for word in chosen if chosen.count(word) > 1}):
        yield Problem(path, f"names {word} more than once")
    if "none" in chosen and len(chosen) > 1:
        yield Problem(path, "has none together with others: write none alone")
    for owner in ("system", "kube"):
        both = (f"{owner}-reserved", f"{owner}-reserved-compressible")
        if all(word in chosen for word in both):
            yield Problem(path, f"has {both[0]} and {both[1]}: write one of them")
        if any(word in chosen for word in both) and not getattr(config, f"{owner}ReservedCgroup"):
            yield Problem(f"{owner}ReservedCgroup", f"is empty: {path} with {owner}-reserved needs it")
    for word in chosen:
        if word not in _ENFORCEMENTS:
            yield Problem(path, f"has {word!r}: write {', '.join(_ENFORCEMENTS)}")
        elif word != "none" and not config.cgroupsPerQOS:
            yield Problem("cgroupsPerQOS", f"is false: {path} with {word} needs it")
    for path in ("systemReserved", "kubeReserved"):
        for name in getattr(config, path):
            if name not in ("cpu", "memory", "ephemeral-storage", "pid"):
                yield Problem(f"{path}.{name}", "is not reservable: write cpu, memory, ephemeral-storage or pid")
    if config.reservedSystemCPUs:
        if not _CPU_LIST.fullmatch(config.reservedSystemCPUs):
            yield Problem("reservedSystemCPUs", f"is {config.reservedSystemCPUs!r}: write a CPU list such as 0-1,4")
        if config.systemReservedCgroup or config.kubeReservedCgroup:
            yield Problem("reservedSystemCPUs", "cannot go with systemReservedCgroup or kubeReservedCgroup")
    yield from _reserved_memory_problems(config)


def _reserved_memory_problems(config: KubeletConfiguration) -> Iterator[Problem]:
    seen: set[tuple[int, str]] = set()
    for index, reservation in enumerate(config.reservedMemory):
        for name, amount in reservation.limits.items():
            path = f"reservedMemory[{index}].limits.{name}"
            if name != "memory" and not name.startswith("hugepages-"):
                yield Problem(path, "is not reservable here: write memory or hugepages-SIZE")
            if not amount.strip("+-0.kMGTPEinum"):
                yield Problem(path, f"is {amount!r}: more than zero is expected")
            if (reservation.numaNode, name) in seen:
                yield Problem(path, f"stands twice for NUMA node {reservation.numaNode}")
            seen.add((reservation.numaNode, name))


def _eviction_problems(config: KubeletConfiguration) -> Iterator[Problem]:
    for path in ("evictionHard", "evictionSoft", "evictionMinimumReclaim"):
        for signal, amount in getattr(config, path).items():
            if signal not in _EVICTION_SIGNALS:
                yield Problem(f"{path}.{signal}", f"is no eviction signal: write {', '.join(_EVICTION_SIGNALS)}")
            elif not _PERCENT.fullmatch(amount) and not is_quantity(amount):
                yield Problem(f"{path}.{signal}", f"is {amount!r}: a quantity or a percentage is expected")
            elif path != "evictionMinimumReclaim" and not _is_threshold(amount):
                yield Problem(f"{path}.{signal}", f"is {amount!r}: more than zero, or 0% to 100%, is expected")
    for signal in config.evictionSoft:
        if signal not in config.evictionSoftGracePeriod:
            yield Problem(f"evictionSoftGracePeriod.{signal}", "is missing: each signal of evictionSoft needs one")


def _is_threshold(amount: str) -> bool:
    if amount.endswith("%"):
        return float(amount[:-1]) <= 100
    return quantity.parse(amount).nanos > 0


def _shutdown_problems(config: KubeletConfiguration, gates: FeatureGates) -> Iterator[Problem]:
    total, critical = config.shutdownGracePeriod, config.shutdownGracePeriodCriticalPods
    for path, value in (("shutdownGracePeriod", total), ("shutdownGracePeriodCriticalPods", critical)):
        if value and not gates.enabled("GracefulNodeShutdown"):
            yield Problem(path, "is set, which needs the feature gate GracefulNodeShutdown")
        if value < 0 or 0 < value < 1:
            yield Problem(path, f"is {format_duration(value)}: 0s, or 1s and more, is expected")
    if critical > total:
        text = f"is {format_duration(critical)}: at most shutdownGracePeriod ({format_duration(total)}) is expected"
        yield Problem("shutdownGracePeriodCriticalPods", text)
    if config.shutdownGracePeriodByPodPriority:
        path = "shutdownGracePeriodByPodPriority"
        if not gates.enabled("GracefulNodeShutdownBasedOnPodPriority"):
            yield Problem(path, "is set, which needs the feature gate GracefulNodeShutdownBasedOnPodPriority")
        elif total or critical:
            yield Problem(path, "cannot go with shutdownGracePeriod: write one of them")


def _policy_problems(config: KubeletConfiguration, gates: FeatureGates) -> Iterator[Problem]:
    for index, taint in enumerate(config.registerWithTaints):
        if taint.effect not in _TAINT_EFFECTS:
            yield Problem(f"registerWithTaints[{index}].effect", f"is {taint.effect!r}: write {_or(_TAINT_EFFECTS)}")
        if taint.timeAdded is not None:
            yield Problem(f"registerWithTaints[{index}].timeAdded", "is set: leave it out")
    factor = config.memoryThrottlingFactor
    if factor is not None and not 0 < factor <= 1:
        yield Problem("memoryThrottlingFactor", f"is {factor}: more than 0 and at most 1 is expected")
    for name in config.defaultPodSysctls:
        if len(name) > 253 or not _SYSCTL.fullmatch(name):
            yield Problem(f"defaultPodSysctls.{name}", "is no name of a sysctl")
    limit = config.crashLoopBackOff.maxContainerRestartPeriod
    if limit is None and gates.enabled("KubeletCrashLoopBackOffMax"):
        yield Problem("crashLoopBackOff.maxContainerRestartPeriod", "is missing: write 1s to 5m")
    namespaces = config.userNamespaces
    if namespaces is not None and namespaces.idsPerPod is not None and namespaces.idsPerPod % 65536:
        yield Problem("userNamespaces.idsPerPod", f"is {namespaces.idsPerPod}: a multiple of 65536 is expected")


def _other_problems(config: KubeletConfiguration) -> Iterator[Problem]:
    if config.runOnce:
        yield Problem("runOnce", "is true, which is no longer possible: leave it out")
    if config.systemCgroups and not config.cgroupRoot:
        yield Problem("systemCgroups", "is set: cgroupRoot must be set too")
    if config.enableSystemLogQuery and not config.enableSystemLogHandler:
        yield Problem("enableSystemLogQuery", "is true: it needs enableSystemLogHandler: true")
    if not config.containerRuntimeEndpoint:
        yield Problem("containerRuntimeEndpoint", "is empty: write the runtime's socket, such as unix:///run/x.sock")
    for path in ("containerRuntimeEndpoint", "imageServiceEndpoint"):
        endpoint = getattr(config, path)
        if endpoint and not endpoint.startswith(("unix:", "/", "tcp://")):
            yield Problem(path, f"is {endpoint!r}: write unix:///path/to/the.sock")
    if not config.podLogsDir.startswith("/"):
        yield Problem("podLogsDir", f"is {config.podLogsDir!r}: an absolute path is expected")
    elif not _is_clean(config.podLogsDir):
        yield Problem(
            "podLogsDir", f"is {config.podLogsDir!r}: a path without //, /./, /../ and / at the end is expected"
        )
    if not config.podLogsDir.isascii():
        yield Problem("podLogsDir", f"is {config.podLogsDir!r}: ASCII characters only are expected")
    if config.showHiddenMetricsForVersion not in ("", _HIDDEN_METRICS_VERSION):
        text = f"is {config.showHiddenMetricsForVersion!r}: write {_HIDDEN_METRICS_VERSION}, the previous minor version"
        yield Problem("showHiddenMetricsForVersion", text)
    if bool(config.tlsCertFile) != bool(config.tlsPrivateKeyFile):
        missing = "tlsPrivateKeyFile" if config.tlsCertFile else "tlsCertFile"
        yield Problem(missing, "is empty: a certificate and its key are given together")


def _is_clean(path: str) -> bool:
    parts = path.split("/")
    inner_empty = any(part == "" for part in parts[1:]) and path != "/"
    return not inner_empty and not any(part in (".", "..") for part in parts)


def _or(words: tuple[str, ...]) -> str:
    return " or ".join(words)
