"""The feature gates that Kubernetes 1.37 knows, their defaults, and which of them a configuration switches.

Owns the table and its rules (locked gates, AllAlpha, AllBeta). Pure. A gate of another component that shares the
kubelet's registry is accepted as upstream accepts it, and switches nothing here.

Upstream counterpart: pkg/features/kube_features.go and k8s.io/component-base/featuregate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from kubelet_py.config.decode import Problem, closest


class Stage(StrEnum):
    """How far a feature has come."""

    ALPHA = "ALPHA"
    BETA = "BETA"
    GA = "GA"
    DEPRECATED = "DEPRECATED"


@dataclass(frozen=True, slots=True)
class Gate:
    """One feature gate of Kubernetes 1.37."""

    stage: Stage
    default: bool
    locked: bool = False


_BETA_ON = """
APIResponseCompression APIServerIdentity AllowParsingUserUIDFromCertAuth AllowUnsafeMalformedObjectDeletion
AtomicFIFO AuthorizePodWebsocketUpgradeCreatePermission CPUManagerPolicyBetaOptions CRDObservedGenerationTracking
ClearingNominatedNodeNameAfterBinding ClientsAllowCARotation ClientsAllowTLSCacheGC ComponentFlagz ComponentStatusz
ConcurrentWatchObjectDecode ConstrainedImpersonation ContainerCheckpoint ContainerRestartRules ContextualLogging
DRAConsumableCapacity DRADeviceBindingConditions DRAFractionalCapacityRange DRAPartitionableDevices
DRAResourceClaimGranularStatusAuthorization DRASchedulerFilterTimeout DeclarativeValidationBeta
DeploymentReplicaSetTerminatingReplicas DetectCacheInconsistency EnvFiles EtcdRangeStream
ExcludeAdmissionWebhookVirtualResources ExtendWebSocketsToKubelet GracefulNodeShutdown
GracefulNodeShutdownBasedOnPodPriority HPAGeneration HPAOptimizedSelectorStore HPAScaleToZero HugepageAwareEviction
InOrderInformersBatchProcess InPlacePodLevelResourcesVerticalScaling KubeletCrashLoopBackOffMax
KubeletEnsureSecretPulledImages KubeletInUserNamespace KubeletSeparateDiskGC
KubeletServiceAccountTokenForCredentialProviders ListFromCacheSnapshot LoggingBetaOptions
ManifestBasedAdmissionControlConfig MatchLabelKeysInPodTopologySpread MatchLabelKeysInPodTopologySpreadSelectorMerge
MaxUnavailableStatefulSet MemoryQoS MutablePodResourcesForSuspendedJobs MutableSchedulingDirectivesForSuspendedJobs
NFTablesNetlink NativeHistograms NodeControllerLeaseCircuitBreaker NominatedNodeNameForExpectation OpenAPIEnums
OpportunisticBatching PersistentVolumeClaimUnusedSinceTime PodDeletionCost PodLevelResources
PodLevelResourcesFixDefaulting PodLevelResourcesFixKubeletQOSClass PodTopologyLabelsAdmission PodsAPI
PortForwardWebsockets ReloadKubeletClientCAFile ReloadKubeletServerCertificateFile RemoteRequestHeaderUID
ResourceHealthStatus ResourceHealthStatusMessage RestartAllContainersOnContainerExits RotateKubeletServerCertificate
SchedulerAsyncPreemption SchedulerPopFromBackoffQ ServiceAccountNodeAudienceRestriction SizeBasedListCostEstimate
StaleControllerConsistencyDaemonSet StaleControllerConsistencyHPA StaleControllerConsistencyJob
StaleControllerConsistencyReplicaSet StaleControllerConsistencyStatefulSet StatefulSetSemanticRevisionComparison
StorageCapacityScoring StorageVersionHash StrictIPCIDRValidation StructuredAuthenticationConfigurationEgressSelector
StructuredAuthenticationConfigurationJWKSMetrics TokenRequestServiceAccountUIDValidation
TopologyManagerPolicyBetaOptions TranslateStreamCloseWebsocketRequests UnauthenticatedHTTP2DOSMitigation
UnknownVersionInteroperabilityProxy UnlockWhileProcessingFIFO VolumeLimitScaling WatchList WatchListClient
WatchListCompression WebhookRoundTripLoadBalancing WindowsGracefulNodeShutdown
"""
_GA_LOCKED = """
CPUManagerPolicyOptions CRDValidationRatcheting CSIServiceAccountTokenSecrets CustomResourceFieldSelectors
DRAAdminAccess DRAExtendedResource DRAPrioritizedList DRAResourceClaimDeviceStatus DeclarativeValidation
DisableAllocatorDualWrite DynamicResourceAllocation ExecProbeTimeout ExternalServiceAccountTokenSigner
HPAConfigurableTolerance HostnameOverride ImageMaximumGCAge ImageVolume InOrderInformers InPlacePodVerticalScaling
InPlacePodVerticalScalingInitContainers JobManagedBy KubeletCgroupDriverFromCRI KubeletFineGrainedAuthz KubeletPSI
KubeletPodResourcesDynamicResources KubeletPodResourcesGet KubeletTracing MatchLabelKeysInPodAffinity
MultiCIDRServiceAllocator MutableCSINodeAllocatableCount NFTablesProxyMode NodeDeclaredFeatures
NodeInclusionPolicyInPodTopologySpread NodeLogQuery NodeSwap PLEGOnDemandRelist PodObservedGenerationTracking
PodReadyToStartContainersCondition PodSchedulingReadiness PreferSameTrafficDistribution ProcMountType
RecoverVolumeExpansionFailure RecursiveReadOnlyMounts RelaxedEnvironmentVariableValidation
RelaxedServiceNameValidation SELinuxChangePolicy SELinuxMountReadWriteOncePod SeparateTaintEvictionController
ServiceAccountTokenJTI ServiceAccountTokenNodeBinding ServiceAccountTokenNodeBindingValidation
ServiceAccountTokenPodNodeInfo SupplementalGroupsPolicy SystemdWatchdog TopologyManagerPolicyOptions
UserNamespacesSupport VolumeAttributesClass WatchCacheInitializationPostStartHook WinDSR WinOverlay
"""
_ALPHA_OFF = """
APIServerWebhookAuthenticationToken APIServingWithRoutine AtomicWriteVolumeUserFields CBORServingAndStorage
CPUManagerPolicyAlphaOptions CRIListStreaming CSIVolumeHealth ClientsAllowCBOR ClientsPreferCBOR
CloudControllerManagerWatchBasedRoutesReconciliation CloudControllerManagerWebhook CompositePodGroup
ConsistentListFromCacheSkipTimeoutFallback ContainerStopSignals ControllerManagerReleaseLeaderElectionLockOnExit
CrossNamespaceVolumeDataSource DRADerivedAttributes DRADeviceCompatibilityGroups DRAListTypeAttributes
DRANodeAllocatableResources DRAOptionalNodeOperations DRAPartitionableDevicesType DRAResourcePoolStatus
DefaultPodSysctls EmptyDirVolumeMode EventedPLEG EvictionRequestAPI GRPCContainerProbeTLS H2CContainerProbe
ImageVolumeWithDigest InPlacePodVerticalScalingExclusiveCPUs InPlacePodVerticalScalingExclusiveMemory
InPlacePodVerticalScalingMemoryBackedVolumes InPlacePodVerticalScalingSchedulerPreemption
InterPodAffinityHostnameFastPath KubeProxyNFTablesLocalhostNodePorts KubeletAllocatedPodsEndpoint
LoggingAlphaOptions MutablePVNodeAffinity NodeLifecycleConditions PodGroupPreemptionPolicy PodLogsQuerySplitStreams
QOSReserved ReduceDefaultCrashLoopBackOffDecay RuntimeClassInImageCriApi SchedulerPreQueueingHints
ShardedListAndWatch StatefulSetRecreateStrategy StorageVersionAPI TaintTolerationComparisonOperators
TopologyAwareWorkloadScheduling TopologyManagerPolicyAlphaOptions UserNamespacesHostNetworkSupport
VolumeBindMountOptions WindowsCPUAndMemoryAffinity WorkloadWithJob
"""
_GA_ON = """
AllowServiceExternalIPs ClusterTrustBundle ClusterTrustBundleProjection CustomCPUCFSQuotaPeriod DRADeviceTaintRules
DRADeviceTaints InformerResourceVersion MutatingAdmissionPolicy PodCertificateRequest SELinuxMount
StorageVersionMigrator
"""
_BETA_OFF = """
CoordinatedLeaderElection DRAWorkloadResourceClaims GenericWorkload LocalStorageCapacityIsolationFSQuotaMonitoring
PodAndContainerStatsFromCRI PodLevelResourceManagers SchedulerAsyncAPICalls
"""
_DEPRECATED_OFF = """
AllowDNSOnlyNodeCSR AllowInsecureKubeletCertificateSigningRequests ChangeContainerStatusOnKubeletRestart KMSv1
KubeletRegistrationGetOnExistsOnly WindowsHostNetwork
"""
_DEPRECATED_LOCKED_OFF = """
AllowOverwriteTerminationGracePeriodSeconds DeclarativeValidationTakeover GitRepoVolumeDriver SeparateCacheWatchRPC
"""
_DEPRECATED_ON = """
KubeProxyIPVS KubeletPodResourcesListUseActivePods ServiceCIDRStatusFieldWiping StorageNamespaceIndex
"""
_DEPRECATED_LOCKED_ON = """
AggregatedDiscoveryRemoveBetaType DisableCPUQuotaWithExclusiveCPUs DisableNodeKubeProxyVersion
"""

KNOWN_GATES: Mapping[str, Gate] = {
    name: gate
    for names, gate in (
        (_BETA_ON, Gate(Stage.BETA, default=True)),
        (_GA_LOCKED, Gate(Stage.GA, default=True, locked=True)),
        (_ALPHA_OFF, Gate(Stage.ALPHA, default=False)),
        (_GA_ON, Gate(Stage.GA, default=True)),
        (_BETA_OFF, Gate(Stage.BETA, default=False)),
        (_DEPRECATED_OFF, Gate(Stage.DEPRECATED, default=False)),
        (_DEPRECATED_LOCKED_OFF, Gate(Stage.DEPRECATED, default=False, locked=True)),
        (_DEPRECATED_ON, Gate(Stage.DEPRECATED, default=True)),
        (_DEPRECATED_LOCKED_ON, Gate(Stage.DEPRECATED, default=True, locked=True)),
    )
    for name in names.split()
}
_GROUPS = {"AllAlpha": Stage.ALPHA, "AllBeta": Stage.BETA}


@dataclass(frozen=True, slots=True)
class FeatureGates:
    """Which features are on: what was switched, over the defaults."""

    switched: Mapping[str, bool]

    def enabled(self, name: str) -> bool:
        """Whether a known feature is on; an unknown name is a mistake in the program."""
        if name in self.switched:
            return self.switched[name]
        gate = KNOWN_GATES[name]
        group = next((group for group, stage in _GROUPS.items() if stage is gate.stage), "")
        return self.switched.get(group, gate.default)


def gate_problems(switched: Mapping[str, bool]) -> list[Problem]:
    """What is wrong with a featureGates map."""
    problems: list[Problem] = []
    for name, value in switched.items():
        path = f"featureGates.{name}"
        if name in _GROUPS:
            continue
        gate = KNOWN_GATES.get(name)
        if gate is None:
            problems.append(Problem(path, f"is no feature gate of Kubernetes 1.37{closest(name, KNOWN_GATES)}"))
        elif gate.locked and value != gate.default:
            word = "on" if gate.default else "off"
            problems.append(
                Problem(path, f"cannot be {str(value).lower()}: the feature is always {word}, leave it out")
            )
    return problems
