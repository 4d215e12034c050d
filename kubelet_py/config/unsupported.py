"""Settings that are read and checked but that nothing acts on yet.

Owns the list, and the one warning per setting that differs from its default. A feature that arrives takes its
settings off the list. A test holds that every field is either read by the agent or stands in one of these lists. Pure.
"""

from collections.abc import Iterator

from kubelet_py.config.model import KubeletConfiguration
from kubelet_py.config.node_flags import NodeFlags
from kubelet_py.config.shapes import value_at

NOT_YET: tuple[str, ...] = (
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "enableDebugFlagsHandler",
    "enableProfilingHandler",
    "enableSystemLogHandler",
    "enableSystemLogQuery",
    "evictionMaxPodGracePeriod",
    "evictionMinimumReclaim",
    "evictionPressureTransitionPeriod",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "kernelMemcgNotification",
    "kubeletCgroups",
    "makeIPTablesUtilChains",
    "memoryManagerPolicy",
    "podCIDR",
    "protectKernelDefaults",
    "qosReserved",
    "reservedMemory",
    "reservedSystemCPUs",
    "rotateCertificates",
    "serverTLSBootstrap",
    "showHiddenMetricsForVersion",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "systemCgroups",
    "tlsCurvePreferences",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "volumePluginDir",
    "volumeStatsAggPeriod",
)
PARTLY = {"evictionHard": "counts for allocatable, but nothing is evicted yet"}
"""Settings that do less than they say."""

WITHOUT_EFFECT = {
    "contentType": "this agent speaks JSON with every API server",
    "enableContentionProfiling": "a profile of Go's runtime",
    "hairpinMode": "upstream has no use for it either",
    "iptablesDropBit": "upstream has no use for it either",
    "iptablesMasqueradeBit": "upstream has no use for it either",
    "logging.flushFrequency": "every line is written at once",
    "logging.options.json.infoBufferSize": "every line is written at once",
    "logging.options.json.splitStream": "everything goes to standard error",
    "logging.options.text.infoBufferSize": "every line is written at once",
    "logging.options.text.splitStream": "everything goes to standard error",
    "logging.vmodule": "it names source files of the Go kubelet",
    "runOnce": "refused, as upstream",
    "streamingConnectionIdleTimeout": "upstream has no use for it either",
}
"""Settings that will never do anything here, with the reason."""

HANDLED_BY_THE_CONFIGURATION = frozenset({"failCgroupV1", "failSwapOn", "featureGates", "mergeDefaultEvictionSettings"})
"""Settings that are used up before the agent starts."""

NOT_YET_FLAGS: tuple[str, ...] = (
    "bootstrap_kubeconfig",
    "exit_on_lock_contention",
    "experimental_allocatable_ignore_eviction",
    "experimental_mounter_path",
    "housekeeping_interval",
    "lock_file",
    "runtime_cgroups",
)


def unsupported_settings(config: KubeletConfiguration, base: KubeletConfiguration, flags: NodeFlags) -> Iterator[str]:
    """Each setting that differs from its default and has no effect, or not the whole one."""
    for path in NOT_YET:
        if value_at(config, path) != value_at(base, path):
            yield path
    for path, effect in PARTLY.items():
        if value_at(config, path) != value_at(base, path):
            yield f"{path} ({effect})"
    for path, reason in WITHOUT_EFFECT.items():
        if value_at(config, path) != value_at(base, path):
            yield f"{path} ({reason})"
    defaults = NodeFlags()
    for name in NOT_YET_FLAGS:
        if getattr(flags, name) != getattr(defaults, name):
            yield f"--{name.replace('_', '-')}"
