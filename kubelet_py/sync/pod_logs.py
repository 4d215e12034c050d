"""The log files of a pod on the node: removed with the pod.

Upstream counterpart: removeContainerLog and the log part of kuberuntime_gc.go.
"""

import contextlib
import os
import shutil


def remove_pod_logs(directory: str, links_root: str, link_prefix: str) -> None:
    """The pod's log directory, and the links of log collectors that lead into it. Blocking; again is fine."""
    shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError), os.scandir(links_root) as links:
        for link in links:
            # Another pod of the same name has links of the same prefix, so the target decides.
            if link.name.startswith(link_prefix) and os.readlink(link.path).startswith(f"{directory}/"):
                os.unlink(link.path)
