"""Labels, annotations and log paths by which a runtime's sandboxes and containers name their pod.

They are the agent's only memory across restarts, and the Go kubelet's as well: keys, values and paths are its own.

Upstream counterparts: pkg/kubelet/kuberuntime/labels.go, helpers.go, legacy.go, k8s.io/kubelet/pkg/types/labels.go.
"""

import posixpath
from collections.abc import Mapping
from typing import Final

from kubelet_py.api import codec, core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.api.pod import CONTAINER_NAME_LABEL, POD_NAME_LABEL, POD_NAMESPACE_LABEL, POD_UID_LABEL
from kubelet_py.core.container_hash import compute_container_hash
from kubelet_py.core.pod_resources import AnyContainer

HASH_ANNOTATION: Final = "io.kubernetes.container.hash"
RESTART_COUNT_ANNOTATION: Final = "io.kubernetes.container.restartCount"
TERMINATION_MESSAGE_PATH_ANNOTATION: Final = "io.kubernetes.container.terminationMessagePath"
TERMINATION_MESSAGE_POLICY_ANNOTATION: Final = "io.kubernetes.container.terminationMessagePolicy"
PRE_STOP_ANNOTATION: Final = "io.kubernetes.container.preStopHandler"
PORTS_ANNOTATION: Final = "io.kubernetes.container.ports"
DELETION_GRACE_PERIOD_ANNOTATION: Final = "io.kubernetes.pod.deletionGracePeriod"
TERMINATION_GRACE_PERIOD_ANNOTATION: Final = "io.kubernetes.pod.terminationGracePeriod"

LEGACY_LOG_LINK_MAX_LENGTH: Final = 255


def compute_sandbox_labels(pod: core_v1.Pod) -> dict[str, str]:
    """The pod's labels and its identity."""
    return {**(podlib.metadata_of(pod).labels or {}), **_identity(pod)}


def compute_sandbox_annotations(pod: core_v1.Pod) -> dict[str, str]:
    """The pod's annotations."""
    return dict(podlib.annotations_of(pod))


def compute_container_labels(pod: core_v1.Pod, container: AnyContainer) -> dict[str, str]:
    """The identity of pod and container; the pod's own labels stay with the sandbox."""
    return {**_identity(pod), CONTAINER_NAME_LABEL: container.name}


def compute_container_annotations(
    pod: core_v1.Pod, container: AnyContainer, restart_count: int, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What must be known of a container when its pod's manifest is gone. `extra` comes from device plugins."""
    annotations = {
        **(extra or {}),
        HASH_ANNOTATION: compute_container_hash(container),
        RESTART_COUNT_ANNOTATION: str(restart_count),
        TERMINATION_MESSAGE_PATH_ANNOTATION: container.terminationMessagePath or "",
        TERMINATION_MESSAGE_POLICY_ANNOTATION: container.terminationMessagePolicy or "",
    }
    deletion_seconds = podlib.metadata_of(pod).deletionGracePeriodSeconds
    if deletion_seconds is not None:
        annotations[DELETION_GRACE_PERIOD_ANNOTATION] = str(deletion_seconds)
    grace_seconds = podlib.spec_of(pod).terminationGracePeriodSeconds
    if grace_seconds is not None:
        annotations[TERMINATION_GRACE_PERIOD_ANNOTATION] = str(grace_seconds)
    if container.lifecycle is not None and container.lifecycle.preStop is not None:
        annotations[PRE_STOP_ANNOTATION] = codec.encode(container.lifecycle.preStop).decode()
    if container.ports:
        annotations[PORTS_ANNOTATION] = codec.encode(container.ports).decode()
    return annotations


def pod_log_directory(pod_logs_root: str, namespace: str, name: str, uid: str) -> str:
    """`/var/log/pods/<namespace>_<name>_<uid>`."""
    return f"{pod_logs_root.rstrip('/')}/{namespace}_{name}_{uid}"


def log_links_root(pod_logs_root: str) -> str:
    """Where the links for log collectors are: `/var/log/containers`, or beside a podLogsDir of somebody's own."""
    return f"{posixpath.dirname(pod_logs_root.rstrip('/'))}/containers"


def pod_uid_of_log_directory(directory_name: str) -> str:
    """The UID in the last path element of a pod's log directory."""
    return directory_name.rpartition("_")[2]


def container_log_path(container_name: str, restart_count: int) -> str:
    """Below the pod's log directory: `<container>/<restart count>.log`."""
    return f"{container_name}/{restart_count}.log"


def legacy_log_link_name(pod_name: str, namespace: str, container_name: str, container_id: str) -> str:
    """The link in /var/log/containers, cut to what a file name may be long, the suffix kept."""
    stem = f"{pod_name}_{namespace}_{container_name}-{container_id}"
    return stem[: LEGACY_LOG_LINK_MAX_LENGTH - len(".log")] + ".log"


def _identity(pod: core_v1.Pod) -> dict[str, str]:
    metadata = podlib.metadata_of(pod)
    return {
        POD_NAME_LABEL: metadata.name or "",
        POD_NAMESPACE_LABEL: metadata.namespace or "",
        POD_UID_LABEL: podlib.uid_of(pod),
    }
