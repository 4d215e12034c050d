"""What is kept of attachments on disk, and what is not kept of them in memory."""

from __future__ import annotations

import base64
import json
import tracemalloc
from pathlib import Path

from dockershim.network.cni_records import AttachmentRecords

PODS = 300
NETWORK = b'{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge"}]}'


def test_a_result_of_libcni_is_found_by_its_sandbox_and_goes_with_it(tmp_path: Path) -> None:
    mine, others = tmp_path / "results" / "pods-abc123-eth0", tmp_path / "results" / "pods-abc1234-eth0"
    mine.parent.mkdir()
    for path, identifier in ((mine, "abc123"), (others, "abc1234")):
        content = {"kind": "cniCacheV1", "containerId": identifier, "ifName": "eth0", "result": {"ips": []}}
        path.write_text(json.dumps(content | {"config": base64.b64encode(NETWORK).decode()}))
    records = AttachmentRecords(tmp_path, tmp_path / "netns")
    assert records.find("abc123") is not None
    assert records.find("abc") is None
    records.forget("abc123")
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
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        come_and_go(PODS)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 64 * PODS
