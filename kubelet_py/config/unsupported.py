"""Settings that are read and checked but that nothing acts on yet.

Owns the list, and the one warning per setting that differs from its default. A feature that arrives takes its
settings off the list; a test holds that nothing on it is read by the agent. Pure.
"""

from collections.abc import Iterator

from kubelet_py.config.model import KubeletConfiguration
from kubelet_py.config.node_flags import NodeFlags
from kubelet_py.config.shapes import value_at

NOT_YET: tuple[str, ...] = (
    "allowedUnsafeSysctls",
    "containerLogMaxFiles",
    "containerLogMaxSize",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "defaultPodSysctls",
    "enableSystemLogQuery",
    "evictionHard",
    "evictionMaxPodGracePeriod",
    "evictionMinimumReclaim",
    "evictionPressureTransitionPeriod",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "imageMaximumGCAge",
    "imageMinimumGCAge",
    "kernelMemcgNotification",
    "kubeReservedCgroup",
    "kubeletCgroups",
    "localStorageCapacityIsolation",
    "memoryManagerPolicy",
    "memoryReservationPolicy",
    "memorySwap.swapBehavior",
    "memoryThrottlingFactor",
    "preloadedImagesVerificationAllowlist",
    "protectKernelDefaults",
    "qosReserved",
    "reservedMemory",
    "rotateCertificates",
    "serverTLSBootstrap",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "systemCgroups",
    "systemReservedCgroup",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "userNamespaces",
    "volumePluginDir",
    "volumeStatsAggPeriod",
)
NOT_YET_FLAGS: tuple[str, ...] = (
    "bootstrap_kubeconfig",
    "exit_on_lock_contention",
    "experimental_allocatable_ignore_eviction",
    "experimental_mounter_path",
    "housekeeping_interval",
    "image_credential_provider_bin_dir",
    "image_credential_provider_config",
    "maximum_dead_containers",
    "maximum_dead_containers_per_container",
    "minimum_container_ttl_duration",
    "runtime_cgroups",
)


def unsupported_settings(config: KubeletConfiguration, base: KubeletConfiguration, flags: NodeFlags) -> Iterator[str]:
    """Name and value of each setting that differs from its default and has no effect yet."""
    for path in NOT_YET:
        value = value_at(config, path)
        if value != value_at(base, path):
            yield path
    defaults = NodeFlags()
    for name in NOT_YET_FLAGS:
        if getattr(flags, name) != getattr(defaults, name):
            yield f"--{name.replace('_', '-')}"
