"""What plugins are run with."""

from __future__ import annotations

import json
from pathlib import Path

from dockershim.network import NetworkRequest
from dockershim.network.cni import CniNetwork

SANDBOX_ID = "a1" * 32
INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"


async def test_a_pod_nobody_has_a_record_of_is_torn_down_whatever_its_annotations_say(tmp_path: Path) -> None:
    """What was never set up must not keep a pod for ever."""
    plugins, configuration, told = tmp_path / "bin", tmp_path / "net.d", tmp_path / "told"
    plugins.mkdir()
    configuration.mkdir()
    (plugins / "shaper").write_text(f"#!/bin/sh\nexec cat > {told}\n")
    (plugins / "shaper").chmod(0o755)
    plugin = {"type": "shaper", "capabilities": {"bandwidth": True}}
    content = {"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}
    (configuration / "10-pods.conflist").write_text(json.dumps(content))
    network = CniNetwork(configuration, [plugins], tmp_path / "state", tmp_path / "netns")
    network.reload()
    annotations = {INGRESS: "fast", EGRESS: "1M"}
    await network.tear_down(NetworkRequest(SANDBOX_ID, "web", "shop", "u1", "", (), annotations, None), {})
    assert json.loads(told.read_text())["runtimeConfig"]["bandwidth"]["egressRate"] == 10**6
