"""The command line: which flags there are, and what a given one sets.

Owns the table of flags and Go's flag syntax (`--flag value`, `--flag=value`, `--switch`, `-v=2`, underscores as
dashes). Knows the configuration's fields only by path. Pure.

Upstream counterpart: cmd/kubelet/app/options and github.com/spf13/pflag.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubelet_py.config import flag_values
from kubelet_py.config.decode import closest
from kubelet_py.config.flag_values import Reader, reader_for
from kubelet_py.config.model import KubeletConfiguration
from kubelet_py.config.node_flags import DEPRECATED_NODE_FLAGS, NodeFlags
from kubelet_py.config.shapes import Shape, fields_of, leaves_of

CONFIG_FLAGS: Mapping[str, str] = {
    "address": "address",
    "allowed-unsafe-sysctls": "allowedUnsafeSysctls",
    "anonymous-auth": "authentication.anonymous.enabled",
    "authentication-token-webhook": "authentication.webhook.enabled",
    "authentication-token-webhook-cache-ttl": "authentication.webhook.cacheTTL",
    "authorization-mode": "authorization.mode",
    "authorization-webhook-cache-authorized-ttl": "authorization.webhook.cacheAuthorizedTTL",
    "authorization-webhook-cache-unauthorized-ttl": "authorization.webhook.cacheUnauthorizedTTL",
    "cgroup-driver": "cgroupDriver",
    "cgroup-root": "cgroupRoot",
    "cgroups-per-qos": "cgroupsPerQOS",
    "client-ca-file": "authentication.x509.clientCAFile",
    "cluster-dns": "clusterDNS",
    "cluster-domain": "clusterDomain",
    "container-log-max-files": "containerLogMaxFiles",
    "container-log-max-size": "containerLogMaxSize",
    "container-runtime-endpoint": "containerRuntimeEndpoint",
    "contention-profiling": "enableContentionProfiling",
    "cpu-cfs-quota": "cpuCFSQuota",
    "cpu-cfs-quota-period": "cpuCFSQuotaPeriod",
    "cpu-manager-policy": "cpuManagerPolicy",
    "cpu-manager-policy-options": "cpuManagerPolicyOptions",
    "cpu-manager-reconcile-period": "cpuManagerReconcilePeriod",
    "enable-controller-attach-detach": "enableControllerAttachDetach",
    "enable-debugging-handlers": "enableDebuggingHandlers",
    "enable-server": "enableServer",
    "enforce-node-allocatable": "enforceNodeAllocatable",
    "event-burst": "eventBurst",
    "event-qps": "eventRecordQPS",
    "eviction-hard": "evictionHard",
    "eviction-max-pod-grace-period": "evictionMaxPodGracePeriod",
    "eviction-minimum-reclaim": "evictionMinimumReclaim",
    "eviction-pressure-transition-period": "evictionPressureTransitionPeriod",
    "eviction-soft": "evictionSoft",
    "eviction-soft-grace-period": "evictionSoftGracePeriod",
    "fail-cgroupv1": "failCgroupV1",
    "fail-swap-on": "failSwapOn",
    "feature-gates": "featureGates",
    "file-check-frequency": "fileCheckFrequency",
    "hairpin-mode": "hairpinMode",
    "healthz-bind-address": "healthzBindAddress",
    "healthz-port": "healthzPort",
    "http-check-frequency": "httpCheckFrequency",
    "image-gc-high-threshold": "imageGCHighThresholdPercent",
    "image-gc-low-threshold": "imageGCLowThresholdPercent",
    "image-service-endpoint": "imageServiceEndpoint",
    "kernel-memcg-notification": "kernelMemcgNotification",
    "kube-api-burst": "kubeAPIBurst",
    "kube-api-content-type": "contentType",
    "kube-api-qps": "kubeAPIQPS",
    "kube-reserved": "kubeReserved",
    "kube-reserved-cgroup": "kubeReservedCgroup",
    "kubelet-cgroups": "kubeletCgroups",
    "local-storage-capacity-isolation": "localStorageCapacityIsolation",
    "log-flush-frequency": "logging.flushFrequency",
    "log-json-info-buffer-size": "logging.options.json.infoBufferSize",
    "log-json-split-stream": "logging.options.json.splitStream",
    "log-text-info-buffer-size": "logging.options.text.infoBufferSize",
    "log-text-split-stream": "logging.options.text.splitStream",
    "logging-format": "logging.format",
    "make-iptables-util-chains": "makeIPTablesUtilChains",
    "manifest-url": "staticPodURL",
    "manifest-url-header": "staticPodURLHeader",
    "max-open-files": "maxOpenFiles",
    "max-pods": "maxPods",
    "memory-manager-policy": "memoryManagerPolicy",
    "minimum-image-ttl-duration": "imageMinimumGCAge",
    "node-status-max-images": "nodeStatusMaxImages",
    "node-status-update-frequency": "nodeStatusUpdateFrequency",
    "oom-score-adj": "oomScoreAdj",
    "pod-cidr": "podCIDR",
    "pod-manifest-path": "staticPodPath",
    "pod-max-pids": "podPidsLimit",
    "pods-per-core": "podsPerCore",
    "port": "port",
    "protect-kernel-defaults": "protectKernelDefaults",
    "provider-id": "providerID",
    "qos-reserved": "qosReserved",
    "read-only-port": "readOnlyPort",
    "register-node": "registerNode",
    "register-with-taints": "registerWithTaints",
    "registry-burst": "registryBurst",
    "registry-qps": "registryPullQPS",
    "reserved-cpus": "reservedSystemCPUs",
    "reserved-memory": "reservedMemory",
    "resolv-conf": "resolvConf",
    "rotate-certificates": "rotateCertificates",
    "rotate-server-certificates": "serverTLSBootstrap",
    "runonce": "runOnce",
    "runtime-request-timeout": "runtimeRequestTimeout",
    "seccomp-default": "seccompDefault",
    "serialize-image-pulls": "serializeImagePulls",
    "streaming-connection-idle-timeout": "streamingConnectionIdleTimeout",
    "sync-frequency": "syncFrequency",
    "system-cgroups": "systemCgroups",
    "system-reserved": "systemReserved",
    "system-reserved-cgroup": "systemReservedCgroup",
    "tls-cert-file": "tlsCertFile",
    "tls-cipher-suites": "tlsCipherSuites",
    "tls-min-version": "tlsMinVersion",
    "tls-private-key-file": "tlsPrivateKeyFile",
    "topology-manager-policy": "topologyManagerPolicy",
    "topology-manager-policy-options": "topologyManagerPolicyOptions",
    "topology-manager-scope": "topologyManagerScope",
    "v": "logging.verbosity",
    "vmodule": "logging.vmodule",
    "volume-plugin-dir": "volumePluginDir",
    "volume-stats-agg-period": "volumeStatsAggPeriod",
}
"""Flag to the path of the configuration field it sets."""

_NOT_DEPRECATED = frozenset({"v", "vmodule", "log-flush-frequency", "provider-id", "fail-cgroupv1", "seccomp-default"})
_OWN_READERS: Mapping[str, Reader] = {
    "cpu-manager-policy-options": flag_values.read_options,
    "eviction-hard": flag_values.read_thresholds,
    "eviction-soft": flag_values.read_thresholds,
    "healthz-bind-address": flag_values.read_ip_address,
    "manifest-url-header": flag_values.read_headers,
    "node-labels": flag_values.read_labels,
    "register-with-taints": flag_values.read_taints,
    "reserved-memory": flag_values.read_reserved_memory,
    "vmodule": flag_values.read_vmodule,
}


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: `path` is a field of the configuration, or of NodeFlags when `node_local`."""

    name: str
    path: str
    read: Reader
    is_switch: bool
    node_local: bool
    deprecated: bool


@dataclass(slots=True)
class ParsedFlags:
    """What a command line sets, by path, with what is wrong in it."""

    config_values: dict[str, Any] = field(default_factory=dict)
    node_values: dict[str, Any] = field(default_factory=dict)
    deprecated: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    help_requested: bool = False
    version_requested: str = ""


def _all_flags() -> Iterator[Flag]:
    shapes: dict[str, Shape] = dict(leaves_of(KubeletConfiguration))
    for name, path in CONFIG_FLAGS.items():
        read = _OWN_READERS.get(name) or reader_for(shapes[path])
        is_switch = shapes[path].base is bool
        yield Flag(name, path, read, is_switch, node_local=False, deprecated=name not in _NOT_DEPRECATED)
    for attribute, shape in fields_of(NodeFlags).items():
        deprecated = attribute in DEPRECATED_NODE_FLAGS
        name = attribute.replace("_", "-")
        read = _OWN_READERS.get(name) or reader_for(shape)
        yield Flag(name, attribute, read, shape.base is bool, node_local=True, deprecated=deprecated)


FLAGS: Mapping[str, Flag] = {flag.name: flag for flag in _all_flags()}


def flag_of(path: str) -> str:
    """The flag that sets a configuration field, with its dashes; empty when there is none."""
    return next((f"--{name}" for name, target in CONFIG_FLAGS.items() if target == path), "")


def parse_flags(argv: Sequence[str]) -> ParsedFlags:
    """Read a whole command line, without the program's name; mistakes are collected, not raised."""
    result = ParsedFlags()
    given: dict[str, list[str]] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            result.problems += [_unknown_command(rest) for rest in words]
            break
        if not word.startswith("-") or word == "-":
            result.problems.append(_unknown_command(word))
        else:
            _take(word, words, given, result)
    for name, texts in given.items():
        _read(FLAGS[name], texts, result)
    return result


def _take(word: str, words: list[str], given: dict[str, list[str]], result: ParsedFlags) -> None:
    """One flag with its value, which may be the next word."""
    name, equals, text = _split(word)
    if name == "help":
        result.help_requested = True
    elif name == "version":
        result.version_requested = text or "true"
    elif name not in FLAGS:
        result.problems.append(f"unknown flag: {word.partition('=')[0]}{closest(name, FLAGS)}")
    elif equals:
        given.setdefault(name, []).append(text)
    elif FLAGS[name].is_switch:
        given.setdefault(name, []).append("true")
    elif words:
        given.setdefault(name, []).append(words.pop(0))
    else:
        result.problems.append(f"flag needs an argument: {word}")


def _split(word: str) -> tuple[str, str, str]:
    """Name, `=` if there is one, value."""
    if word.startswith("--"):
        name, equals, text = word[2:].partition("=")
        return name.replace("_", "-"), equals, text
    if word.startswith("-h"):
        return "help", "", ""
    name, rest = word[1:2], word[2:]
    return name, "=" if rest else "", rest.removeprefix("=")


def _read(flag: Flag, texts: list[str], result: ParsedFlags) -> None:
    try:
        value = flag.read(texts)
    except ValueError as error:
        result.problems.append(f"--{flag.name}: {texts[-1]!r}: {error}")
        return
    (result.node_values if flag.node_local else result.config_values)[flag.path] = value
    if flag.deprecated:
        result.deprecated.append(f"--{flag.name}")


def _unknown_command(word: str) -> str:
    return f'unknown command "{word}": kubelet-py takes flags only here'
