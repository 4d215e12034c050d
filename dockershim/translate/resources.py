"""Resource limits in Docker's words and back.

Pure. Upstream counterpart: the resource parts of cri-dockerd's core/container_create.go. Deliberate differences: swap
limits are honoured, and limits that Docker's API has no field for (`unified`, huge pages) become writes to cgroup files
after the start instead of vanishing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim.errors import InvalidArgument

_CGROUP_FILE = re.compile(r"[a-z_]+(?:\.[A-Za-z0-9_]+)+")
_MOVES_PROCESSES = ("cgroup.procs", "cgroup.threads")
_PAGE_SIZE = re.compile(r"[0-9]+[KMG]B")
_PAGES_FILE = re.compile(rf"hugetlb\.({_PAGE_SIZE.pattern})\.(max|limit_in_bytes)")
_LARGEST_LIMIT = 2**64 - 1


def clamp_oom_score(wanted: int, lowest: int) -> int:
    """The value nearest to the wanted one that this host lets a process set."""
    return max(wanted, lowest)


def to_docker_resources(resources: cri.LinuxContainerResources, field: str, *, lowest_oom_score: int) -> dict[str, Any]:
    """The fields of HostConfig for a new container."""
    fields = to_docker_update(resources, field)
    fields["OomScoreAdj"] = clamp_oom_score(resources.oom_score_adj, lowest_oom_score)
    return fields


def to_docker_update(resources: cri.LinuxContainerResources, field: str) -> dict[str, Any]:
    """The fields that Docker lets one change later. Zero means unchanged, or unlimited for a new container."""
    memory = resources.memory_limit_in_bytes
    if memory < 0:
        raise InvalidArgument(
            f"{field}.memory_limit_in_bytes", f"{memory} is negative; Docker cannot take a limit away"
        )
    if resources.memory_swap_limit_in_bytes and not memory:
        raise InvalidArgument(f"{field}.memory_swap_limit_in_bytes", "needs memory_limit_in_bytes beside it")
    fields: dict[str, Any] = {
        "CpuPeriod": resources.cpu_period,
        "CpuQuota": resources.cpu_quota,
        "CpuShares": resources.cpu_shares,
        "CpusetCpus": resources.cpuset_cpus,
        "CpusetMems": resources.cpuset_mems,
    }
    if memory > 0:
        fields["Memory"] = memory
        fields["MemorySwap"] = resources.memory_swap_limit_in_bytes or memory  # equal: no swap
    return fields


def to_cri_resources(host_config: Mapping[str, Any], writes: Mapping[str, str]) -> cri.LinuxContainerResources:
    """What Docker says it enforces, and what was written to the cgroup beside it."""
    pages, unified = [], {}
    for name, value in writes.items():
        file = _PAGES_FILE.fullmatch(name)
        if file and _is_limit(value):
            pages.append(cri.HugepageLimit(page_size=file[1], limit=int(value)))
        else:
            unified[name] = value
    return cri.LinuxContainerResources(
        hugepage_limits=pages,
        unified=unified,
        cpu_period=host_config.get("CpuPeriod") or 0,
        cpu_quota=host_config.get("CpuQuota") or 0,
        cpu_shares=host_config.get("CpuShares") or 0,
        cpuset_cpus=host_config.get("CpusetCpus") or "",
        cpuset_mems=host_config.get("CpusetMems") or "",
        memory_limit_in_bytes=host_config.get("Memory") or 0,
        memory_swap_limit_in_bytes=max(host_config.get("MemorySwap") or 0, 0),
        oom_score_adj=host_config.get("OomScoreAdj") or 0,
    )


def _is_limit(text: str) -> bool:
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(_LARGEST_LIMIT))
    return digits and int(text) <= _LARGEST_LIMIT


def swap_file(update: Mapping[str, Any], before: cri.LinuxContainerResources) -> dict[str, str]:
    """What cgroup v2 has for the swap limit after an update. runc does not tell systemd of one that is nothing."""
    memory = update.get("Memory", before.memory_limit_in_bytes)
    both = update.get("MemorySwap", before.memory_swap_limit_in_bytes)
    return {"memory.swap.max": str(both - memory)} if 0 < memory <= both else {}


def is_limit_file(name: str) -> bool:
    """Whether a cgroup may have a file of this name that sets something for who is in it, and moves nobody there."""
    return _CGROUP_FILE.fullmatch(name) is not None and name not in _MOVES_PROCESSES


def cgroup_writes(resources: cri.LinuxContainerResources, *, cgroup_version: str, field: str) -> dict[str, str]:
    """Files of the container's cgroup and what to write there once it runs."""
    writes: dict[str, str] = {}
    if resources.unified and cgroup_version != "2":
        raise InvalidArgument(f"{field}.unified", "needs cgroup v2, and Docker runs on cgroup v1")
    for key, value in resources.unified.items():
        if not is_limit_file(key):
            raise InvalidArgument(f"{field}.unified[{key!r}]", "is no cgroup file that limits anything")
        writes[key] = value
    for index, limit in enumerate(resources.hugepage_limits):
        if not _PAGE_SIZE.fullmatch(limit.page_size):
            raise InvalidArgument(f"{field}.hugepage_limits[{index}].page_size", f"{limit.page_size!r}: want 2MB, 1GB")
        name = "max" if cgroup_version == "2" else "limit_in_bytes"
        writes[f"hugetlb.{limit.page_size}.{name}"] = str(limit.limit)
    return writes


def reservation_writes(writes: Mapping[str, str]) -> dict[str, str]:
    """The files that hold reservations of huge pages to the limits on their use, for a kernel that has them (5.7).

    A use above the limit ends a process, where a reservation above it is refused when it is asked for.
    """
    found: dict[str, str] = {}
    for name, value in writes.items():
        file = _PAGES_FILE.fullmatch(name)
        if file:
            found[f"hugetlb.{file[1]}.rsvd.{file[2]}"] = value
    return {name: value for name, value in found.items() if name not in writes}
