"""Records on disk."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_proto import runtime_v1 as cri
from dockershim.checkpoint import Checkpoints, decode_record, encode_record
from dockershim.translate.views import SandboxRecord

ID = "a" * 64


@given(st.text(max_size=20), st.integers(0, 2**62), st.booleans(), st.lists(st.text(max_size=20), max_size=3))
def test_records_are_read_back(handler: str, created_at_ns: int, flag: bool, ips: list[str]) -> None:
    """Exactly."""
    config = cri.PodSandboxConfig(annotations={"a": "b"}, port_mappings=[cri.PortMapping(host_port=1)])
    record = SandboxRecord(ID, config, handler, created_at_ns, flag, not flag, tuple(ips), {"x": [1]})
    decoded = decode_record(ID, encode_record(record))
    assert decoded == record
    assert decoded.config == config


async def test_one_bad_file_harms_nothing_else(tmp_path: Path) -> None:
    """It is set aside; half-written files vanish."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.prepare()
    good = SandboxRecord(ID, cri.PodSandboxConfig())
    await checkpoints.save(good)
    directory = tmp_path / "sandbox"
    (directory / ("b" * 64)).write_text('{"version": "v1", "data": null')
    (directory / ("c" * 64)).write_text("[]")
    (directory / f"{'d' * 64}.tmp").write_text("half")
    assert await checkpoints.load_all() == {ID: good}
    assert sorted(path.name for path in directory.iterdir()) == [ID, f"{'b' * 64}.unreadable", f"{'c' * 64}.unreadable"]
    await checkpoints.delete(ID)
    await checkpoints.delete(ID)
    await checkpoints.delete("../../etc/passwd")
    assert await checkpoints.load_all() == {}


def test_records_of_cri_dockerd() -> None:
    """Names, ports and host network are all they hold; a missing part is no error."""
    body = {
        "version": "v1",
        "name": "web",
        "namespace": "default",
        "data": {
            "port_mappings": [{"protocol": "udp", "container_port": 53, "host_port": 5353, "host_ip": "127.0.0.1"}],
            "host_network": True,
        },
        "checksum": 1,
    }
    record = decode_record(ID, json.dumps(body).encode())
    assert record.foreign
    assert record.host_network
    assert record.config.metadata.name == "web"
    assert record.config.port_mappings[0].protocol == cri.Protocol.UDP
    assert not decode_record(ID, b'{"version": "v1", "data": null}').host_network


async def test_only_a_durable_record_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File and directory for the first one, neither for what is added later; both are whole and replace the old."""
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    checkpoints = Checkpoints(tmp_path)
    await asyncio.to_thread(checkpoints.prepare)
    record = SandboxRecord(id="a" * 64, config=cri.PodSandboxConfig(), created_at_ns=1)
    await checkpoints.save(record)
    assert len(synced) == 2
    await checkpoints.save(dataclasses.replace(record, ips=("10.0.0.1",)), durable=False)
    assert len(synced) == 2
    assert (await checkpoints.load_all())[record.id].ips == ("10.0.0.1",)


async def test_what_cri_dockerd_kept_elsewhere_is_read_and_goes_with_its_sandbox(tmp_path: Path) -> None:
    """Ours count more; a bad file of its is left where it is."""
    ours, former = tmp_path / "ours", tmp_path / "former"
    (former / "sandbox").mkdir(parents=True)
    first, second, bad = "a" * 64, "b" * 64, "c" * 64
    for identifier in (first, second):
        text = json.dumps({"version": "v1", "name": "old", "namespace": "n", "data": {"host_network": True}})
        (former / "sandbox" / identifier).write_text(text)
    (former / "sandbox" / bad).write_text("{")
    checkpoints = Checkpoints(ours, former)
    checkpoints.prepare()
    own = SandboxRecord(second, cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="new")))
    await checkpoints.save(own)
    records = await checkpoints.load_all()
    assert {identifier: record.config.metadata.name for identifier, record in records.items()} == {
        first: "old",
        second: "new",
    }
    assert records[first].foreign
    assert records[first].host_network
    for identifier in (first, second):
        await checkpoints.delete(identifier)
    assert await checkpoints.load_all() == {}
    assert [path.name for path in (former / "sandbox").iterdir()] == [bad]
