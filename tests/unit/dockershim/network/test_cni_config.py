"""Which CNI configuration counts, what a plugin is given of it, and what is said about the broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockershim.network.cni_config import (
    SUPPORTED_VERSIONS,
    BadConfiguration,
    CniNetworkConfig,
    from_raw,
    load_directory,
    parse,
    plugin_input,
)


def config(**fields: Any) -> bytes:
    """A list of one plugin, with other fields."""
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge"}], **fields}).encode()


def test_the_first_usable_file_in_the_order_of_names_counts_and_broken_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "00-broken.conflist").write_text("{")
    (tmp_path / "05-notes.txt").write_bytes(config(name="text"))
    (tmp_path / "20-second.conf").write_text('{"cniVersion":"0.4.0","name":"second","type":"ptp"}')
    (tmp_path / "10-first.json").write_bytes(config(name="first"))
    (tmp_path / "30-empty.conflist").write_bytes(config(plugins=[]))
    found = load_directory(tmp_path)
    assert found.network is not None
    assert found.network.name == "first"
    assert [line.partition(":")[0] for line in found.broken] == ["00-broken.conflist", "30-empty.conflist"]


def test_no_directory_is_no_configuration(tmp_path: Path) -> None:
    found = load_directory(tmp_path / "none")
    assert (found.network, found.broken) == (None, ())


def test_a_single_plugins_file_is_a_list_of_one() -> None:
    single = {"cniVersion": "0.4.0", "name": "n", "type": "ptp", "mtu": 9000}
    assert parse(json.dumps(single).encode()) == CniNetworkConfig("n", "0.4.0", (single,))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "not a JSON object"),
        (config(name="a/b"), "name is 'a/b'"),
        (config(name=""), "name is ''"),
        (config(plugins={}), "at least one plugin"),
        (config(plugins=[{"type": "../sh"}]), "plugins[0].type is '../sh'"),
        (config(plugins=[{"type": "bridge"}, {}]), "plugins[1].type is None"),
        (config(cniVersion="9.9.9"), "cniVersion 9.9.9 is not supported"),
        (config(cniVersions="1.0.0"), "cniVersions must be a list"),
        (config(cniVersion="0.2.0", plugins=[{"type": "a"}, {"type": "b"}]), "no chains"),
    ],
)
def test_what_is_wrong_is_told(data: bytes, reason: str) -> None:
    with pytest.raises(BadConfiguration) as bad:
        parse(data)
    assert reason in str(bad.value)


def test_of_several_versions_the_newest_that_is_known_is_spoken() -> None:
    offered = from_raw({"cniVersions": ["0.4.0", "1.1.0", "7.0.0"], "name": "n", "plugins": [{"type": "bridge"}]})
    assert offered.version == "1.1.0"
    assert from_raw({**json.loads(config()), "cniVersion": "0.3.1", "cniVersions": ["0.4.0"]}).version == "0.4.0"


@given(
    st.sampled_from(SUPPORTED_VERSIONS[2:]),
    st.lists(st.dictionaries(st.sampled_from(["mtu", "ipam"]), st.integers()), min_size=1, max_size=3),
    st.booleans(),
)
def test_a_configuration_survives_the_checkpoint(version: str, settings: list[dict[str, int]], check: bool) -> None:
    network = CniNetworkConfig("n", version, tuple({"type": "t", **each} for each in settings), check)
    assert from_raw(json.loads(json.dumps(network.to_raw()))) == network


def test_a_plugin_gets_the_lists_name_and_version_its_own_settings_and_only_the_capabilities_it_declares() -> None:
    plugin = {"type": "portmap", "name": "own", "snat": True, "capabilities": {"portMappings": True, "dns": False}}
    network = CniNetworkConfig("pods", "1.0.0", (plugin,))
    runtime = {"portMappings": [1], "dns": {}, "bandwidth": {}}
    assert plugin_input(network, plugin, runtime, {"ips": []}) == {
        "type": "portmap",
        "name": "pods",
        "cniVersion": "1.0.0",
        "snat": True,
        "runtimeConfig": {"portMappings": [1]},
        "prevResult": {"ips": []},
    }
    assert plugin_input(network, {"type": "bridge"}, runtime, None) == {
        "type": "bridge",
        "name": "pods",
        "cniVersion": "1.0.0",
    }
