"""KubeletConfiguration v1beta1 as frozen values: every field with its type, its limits and its default.

Owns the shape of the configuration and the defaults that hold when a file is given. Must not know where values come
from (that is `load`) nor what the agent does with them. Fields keep the API's own spelling, so that what stands in a
file is what stands in the code. Durations are seconds inside; only the file and configz spell them `1m30s`.

Upstream counterpart: k8s.io/kubelet/config/v1beta1/types.go and pkg/kubelet/apis/config/v1beta1/defaults.go.
Deliberate difference: a field that always has a default is never optional here, so no reader needs to ask twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from kubelet_py.api import core_v1

API_VERSION = "kubelet.config.k8s.io/v1beta1"
KIND = "KubeletConfiguration"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Marker:
    """What a field's type alone does not say."""

    name: str


@dataclass(frozen=True, slots=True)
class Between:
    """The smallest and the largest value that is allowed."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OneOf:
    """The words that are allowed."""

    words: tuple[str, ...]


DURATION = Marker("duration")
ZERO_IS_A_VALUE = Marker("zero is a value")
QUANTITY = Marker("quantity")
NUMBER_TOO = Marker("a bare number is a quantity too")
NANOSECONDS_TOO = Marker("a bare number is a duration in nanoseconds")
IP_ADDRESS = Marker("IP address")
HOST = Marker("IP address or host name")

Seconds = Annotated[float, DURATION]
Pointer = Annotated[T, ZERO_IS_A_VALUE]
"""Upstream's pointer fields: a zero or an empty string in a file is meant; for other fields it means the default."""

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
Int32 = Annotated[int, Between(-(2**31), INT32_MAX)]
Count = Annotated[int, Between(0, INT32_MAX)]
Percent = Annotated[int, Between(0, 100)]
Port = Annotated[int, Between(1, 65535)]
PortOrOff = Annotated[int, Between(0, 65535)]
NonNegative = Annotated[float, DURATION, Between(0, float("inf"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Authentication:
    """Client certificates."""

    clientCAFile: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookAuthentication:
    """Bearer tokens, asked of the API server."""

    enabled: Pointer[bool] = True
    cacheTTL: Seconds = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnonymousAuthentication:
    """Callers without credentials."""

    enabled: Pointer[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeletAuthentication:
    """Who calls the HTTP API."""

    x509: X509Authentication = X509Authentication()
    webhook: WebhookAuthentication = WebhookAuthentication()
    anonymous: AnonymousAuthentication = AnonymousAuthentication()


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookAuthorization:
    """How long the API server's answers are kept."""

    cacheAuthorizedTTL: Seconds = 300.0
    cacheUnauthorizedTTL: Seconds = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeletAuthorization:
    """What callers of the HTTP API may do."""

    mode: Annotated[str, OneOf(("AlwaysAllow", "Webhook"))] = "Webhook"
    webhook: WebhookAuthorization = WebhookAuthorization()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySwapConfiguration:
    """Swap for pods."""

    swapBehavior: Annotated[str, OneOf(("", "NoSwap", "LimitedSwap"))] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashLoopBackOffConfig:
    """The restart back-off."""

    maxContainerRestartPeriod: Annotated[float, DURATION, ZERO_IS_A_VALUE, Between(1, 300)] | None = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UserNamespaces:
    """User namespaces of pods."""

    idsPerPod: Annotated[int, ZERO_IS_A_VALUE, Between(65536, 2**32 - 1)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownGracePeriodByPodPriority:
    """One band of pod priorities at node shutdown."""

    priority: Pointer[Int32] = 0
    shutdownGracePeriodSeconds: Pointer[Annotated[int, Between(0, INT64_MAX)]] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReservation:
    """Memory of one NUMA node that pods do not get."""

    numaNode: Pointer[Count] = 0
    limits: Mapping[str, Annotated[str, QUANTITY, NUMBER_TOO]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingConfiguration:
    """The OTLP exporter; `endpoint` None is the collector on this host."""

    endpoint: Pointer[str] | None = None
    samplingRatePerMillion: Annotated[int, ZERO_IS_A_VALUE, Between(0, 1_000_000)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VModuleItem:
    """A log level for source files."""

    filePattern: str = ""
    verbosity: Pointer[Count] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRouting:
    """Where log lines of one format go."""

    splitStream: bool = False
    infoBufferSize: Annotated[str, QUANTITY, NUMBER_TOO] = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingOptions:
    """Options by log format."""

    text: OutputRouting = OutputRouting()
    json: OutputRouting = OutputRouting()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingConfiguration:
    """Logs of the agent itself."""

    format: Annotated[str, OneOf(("text", "json"))] = "text"
    flushFrequency: Annotated[float, DURATION, NANOSECONDS_TOO] = 5.0
    verbosity: Count = 0
    vmodule: tuple[VModuleItem, ...] = ()
    options: LoggingOptions = LoggingOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeletConfiguration:
    """The whole configuration, in the order of the upstream type. Defaults are those of a start with a file."""

    enableServer: Pointer[bool] = True
    staticPodPath: str = ""
    podLogsDir: str = "/var/log/pods"
    syncFrequency: Seconds = 60.0
    fileCheckFrequency: Seconds = 20.0
    httpCheckFrequency: Seconds = 20.0
    staticPodURL: str = ""
    staticPodURLHeader: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    address: Annotated[str, IP_ADDRESS] = "0.0.0.0"
    port: Port = 10250
    readOnlyPort: PortOrOff = 0
    tlsCertFile: str = ""
    tlsPrivateKeyFile: str = ""
    tlsCipherSuites: tuple[str, ...] = ()
    tlsCurvePreferences: tuple[Int32, ...] = ()
    tlsMinVersion: Annotated[str, OneOf(("", "VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"))] = ""
    rotateCertificates: bool = False
    serverTLSBootstrap: bool = False
    authentication: KubeletAuthentication = KubeletAuthentication()
    authorization: KubeletAuthorization = KubeletAuthorization()
    registryPullQPS: Pointer[Count] = 5
    registryBurst: Count = 10
    imagePullCredentialsVerificationPolicy: Annotated[
        str,
        OneOf(("", "NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify")),
    ] = "NeverVerifyPreloadedImages"
    preloadedImagesVerificationAllowlist: tuple[str, ...] = ()
    eventRecordQPS: Pointer[Count] = 50
    eventBurst: Count = 100
    enableDebuggingHandlers: Pointer[bool] = True
    enableContentionProfiling: bool = False
    healthzPort: Pointer[PortOrOff] = 10248
    healthzBindAddress: Annotated[str, HOST] = "127.0.0.1"
    oomScoreAdj: Pointer[Annotated[int, Between(-1000, 1000)]] = -999
    clusterDomain: str = ""
    clusterDNS: tuple[str, ...] = ()
    streamingConnectionIdleTimeout: Seconds = 4 * 3600.0
    nodeStatusUpdateFrequency: Seconds = 10.0
    nodeStatusReportFrequency: Seconds = 300.0
    nodeLeaseDurationSeconds: Annotated[int, Between(1, INT32_MAX)] = 40
    imageMinimumGCAge: NonNegative = 120.0
    imageMaximumGCAge: NonNegative = 0.0
    imageGCHighThresholdPercent: Pointer[Percent] = 85
    imageGCLowThresholdPercent: Pointer[Percent] = 80
    volumeStatsAggPeriod: Seconds = 60.0
    kubeletCgroups: str = ""
    systemCgroups: str = ""
    cgroupRoot: str = ""
    cgroupsPerQOS: Pointer[bool] = True
    cgroupDriver: Annotated[str, OneOf(("cgroupfs", "systemd"))] = "cgroupfs"
    cpuManagerPolicy: Annotated[str, OneOf(("none", "static"))] = "none"
    singleProcessOOMKill: Pointer[bool] | None = None
    cpuManagerPolicyOptions: Mapping[str, str] = field(default_factory=dict)
    cpuManagerReconcilePeriod: Seconds = 10.0
    memoryManagerPolicy: Annotated[str, OneOf(("None", "Static"))] = "None"
    topologyManagerPolicy: Annotated[str, OneOf(("none", "best-effort", "restricted", "single-numa-node"))] = "none"
    topologyManagerScope: Annotated[str, OneOf(("container", "pod"))] = "container"
    topologyManagerPolicyOptions: Mapping[str, str] = field(default_factory=dict)
    qosReserved: Mapping[str, str] = field(default_factory=dict)
    runtimeRequestTimeout: Seconds = 120.0
    hairpinMode: Annotated[str, OneOf(("promiscuous-bridge", "hairpin-veth", "none"))] = "promiscuous-bridge"
    maxPods: Count = 110
    podCIDR: str = ""
    podPidsLimit: Pointer[Annotated[int, Between(-(2**63), INT64_MAX)]] = -1
    resolvConf: Pointer[str] = "/etc/resolv.conf"
    runOnce: bool = False
    cpuCFSQuota: Pointer[bool] = True
    cpuCFSQuotaPeriod: Pointer[Annotated[float, DURATION, Between(0.001, 1)]] = 0.1
    nodeStatusMaxImages: Pointer[Annotated[int, Between(-1, INT32_MAX)]] = 50
    maxOpenFiles: Annotated[int, Between(0, INT64_MAX)] = 1_000_000
    contentType: str = "application/vnd.kubernetes.protobuf"
    kubeAPIQPS: Pointer[Count] = 50
    kubeAPIBurst: Count = 100
    serializeImagePulls: Pointer[bool] = True
    maxParallelImagePulls: Annotated[int, ZERO_IS_A_VALUE, Between(1, INT32_MAX)] | None = None
    evictionHard: Mapping[str, str] = field(default_factory=dict)
    evictionSoft: Mapping[str, str] = field(default_factory=dict)
    evictionSoftGracePeriod: Mapping[str, str] = field(default_factory=dict)
    evictionPressureTransitionPeriod: Seconds = 300.0
    evictionMaxPodGracePeriod: Int32 = 0
    evictionMinimumReclaim: Mapping[str, str] = field(default_factory=dict)
    mergeDefaultEvictionSettings: Pointer[bool] = False
    podsPerCore: Count = 0
    enableControllerAttachDetach: Pointer[bool] = True
    protectKernelDefaults: bool = False
    makeIPTablesUtilChains: Pointer[bool] = True
    iptablesMasqueradeBit: Pointer[Annotated[int, Between(0, 31)]] = 14
    iptablesDropBit: Pointer[Annotated[int, Between(0, 31)]] = 15
    featureGates: Mapping[str, bool] = field(default_factory=dict)
    failSwapOn: Pointer[bool] = True
    memorySwap: MemorySwapConfiguration = MemorySwapConfiguration()
    containerLogMaxSize: Annotated[str, QUANTITY] = "10Mi"
    containerLogMaxFiles: Pointer[Annotated[int, Between(2, INT32_MAX)]] = 5
    containerLogMaxWorkers: Pointer[Annotated[int, Between(1, INT32_MAX)]] = 1
    containerLogMonitorInterval: Pointer[Annotated[float, DURATION, Between(3, float("inf"))]] = 10.0
    configMapAndSecretChangeDetectionStrategy: Annotated[str, OneOf(("Get", "Cache", "Watch"))] = "Watch"
    systemReserved: Mapping[str, Annotated[str, QUANTITY]] = field(default_factory=dict)
    kubeReserved: Mapping[str, Annotated[str, QUANTITY]] = field(default_factory=dict)
    reservedSystemCPUs: str = ""
    showHiddenMetricsForVersion: str = ""
    systemReservedCgroup: str = ""
    kubeReservedCgroup: str = ""
    enforceNodeAllocatable: tuple[str, ...] = ("pods",)
    allowedUnsafeSysctls: tuple[str, ...] = ()
    defaultPodSysctls: Mapping[str, str] = field(default_factory=dict)
    volumePluginDir: str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/"
    providerID: str = ""
    kernelMemcgNotification: bool = False
    logging: LoggingConfiguration = LoggingConfiguration()
    enableSystemLogHandler: Pointer[bool] = True
    enableSystemLogQuery: Pointer[bool] = False
    shutdownGracePeriod: Seconds = 0.0
    shutdownGracePeriodCriticalPods: Seconds = 0.0
    shutdownGracePeriodByPodPriority: tuple[ShutdownGracePeriodByPodPriority, ...] = ()
    crashLoopBackOff: CrashLoopBackOffConfig = CrashLoopBackOffConfig()
    reservedMemory: tuple[MemoryReservation, ...] = ()
    enableProfilingHandler: Pointer[bool] = True
    enableDebugFlagsHandler: Pointer[bool] = True
    seccompDefault: Pointer[bool] = False
    memoryThrottlingFactor: Pointer[float] | None = None
    memoryReservationPolicy: Annotated[str, OneOf(("None", "TieredReservation"))] = "None"
    registerWithTaints: tuple[core_v1.Taint, ...] = ()
    registerNode: Pointer[bool] = True
    tracing: TracingConfiguration | None = None
    localStorageCapacityIsolation: Pointer[bool] = True
    containerRuntimeEndpoint: str = "unix:///run/containerd/containerd.sock"
    imageServiceEndpoint: str = ""
    failCgroupV1: Pointer[bool] = True
    userNamespaces: UserNamespaces | None = None
