"""What is kept of attachments on disk, and what is not kept of them in memory."""

from __future__ import annotations

import base64
import json
import tracemalloc
from pathlib import Path

from dockershim.network import cni_records
from dockershim.network.cni_records import AttachmentRecords

PODS = 300
FRAMES = 16
"""Deep enough to see through pathlib to who called it."""


def keep_result(directory: Path, network: str, sandbox_id: str, plugin: str) -> Path:
    """A file as libcni writes it."""
    config = {"cniVersion": "0.4.0", "name": network, "plugins": [{"type": plugin}]}
    content = {"kind": "cniCacheV1", "containerId": sandbox_id, "ifName": "eth0", "networkName": network, "result": {}}
    path = directory / "results" / f"{network}-{sandbox_id}-eth0"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content | {"config": base64.b64encode(json.dumps(config).encode()).decode()}))
    return path


def test_a_result_of_libcni_is_found_by_its_sandbox_and_goes_with_it(tmp_path: Path) -> None:
    """Of the two networks that cri-dockerd attaches a pod to it is the one that has something to give back."""
    loopback = keep_result(tmp_path, "cni-loopback", "abc123", "loopback")
    mine = keep_result(tmp_path, "pods", "abc123", "bridge")
    others = keep_result(tmp_path, "pods", "abc1234", "bridge")
    records = AttachmentRecords(tmp_path, tmp_path / "netns")
    found = records.find("abc123")
    assert found is not None
    assert found["network"]["name"] == "pods"
    assert records.find("abc") is None
    records.forget("abc123")
    assert not loopback.exists()
    assert not mine.exists()
    assert others.exists()


def test_nothing_is_kept_in_memory_of_a_pod_that_has_gone(tmp_path: Path) -> None:
    """Less than the name of a file for each."""
    (tmp_path / "results").mkdir()
    records = AttachmentRecords(tmp_path, tmp_path / "netns")

    def come_and_go(first: int) -> None:
        for number in range(first, first + PODS):
            records.find(f"{number:064x}")
            records.forget(f"{number:064x}")

    come_and_go(0)
    tracemalloc.start(FRAMES)
    try:
        come_and_go(PODS)
        traced = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    ours = tracemalloc.Filter(True, cni_records.__file__, all_frames=True)  # other threads allocate, too
    assert sum(each.size for each in traced.filter_traces([ours]).traces) < 64 * PODS
