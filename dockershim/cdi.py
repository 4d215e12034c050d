"""CDI specifications on this host, for an engine that does not read them itself.

Owns the reading of /etc/cdi and /var/run/cdi and the numbers of device nodes that a specification leaves out; read anew
for each container that wants a device, as device drivers write them at any time. Must not know Docker. Upstream
counterpart: container-device-interface's pkg/cdi.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from dockershim.errors import InvalidArgument
from dockershim.translate.cdi import CdiSpecification, Json, requested_edits

DIRECTORIES = (Path("/etc/cdi"), Path("/var/run/cdi"))
_LIMIT_BYTES = 4 * 1024 * 1024
_KINDS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p"}


async def container_edits(wanted: Mapping[str, str], directories: Sequence[Path] = DIRECTORIES) -> Json:
    """What has to change in a container's OCI configuration for these devices. InvalidArgument with the field."""
    return await asyncio.to_thread(_container_edits, wanted, directories)


def _container_edits(wanted: Mapping[str, str], directories: Sequence[Path]) -> Json:
    found, broken = _read(directories)
    edits = requested_edits(wanted, found, broken)
    for node in edits.get("deviceNodes", ()):
        _complete(node)
    return edits


def _read(directories: Sequence[Path]) -> tuple[list[CdiSpecification], list[str]]:
    found, broken = [], []
    for order, directory in enumerate(directories):
        try:
            paths = sorted(path for path in directory.iterdir() if path.suffix in (".json", ".yaml", ".yml"))
        except OSError:
            continue
        for path in paths:
            try:
                content = _parsed(path)
                if not isinstance(content, dict):
                    raise TypeError("no object")
            except (OSError, ValueError, TypeError) as error:
                broken.append(f"{path} ({error})")
            else:
                found.append(CdiSpecification(str(path), order, content))
    return found, broken


def _parsed(path: Path) -> object:
    with path.open("rb") as file:
        data = file.read(_LIMIT_BYTES)
    if path.suffix == ".json":
        return json.loads(data)
    import yaml

    try:
        return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _complete(node: Json) -> None:
    """Type and numbers, from the host's own node where the specification does not say them."""
    source = node.get("hostPath") or node["path"]
    if node.get("type") and (node["type"] == "p" or node.get("major") is not None):
        return
    try:
        status = os.stat(source)
    except OSError as error:
        raise InvalidArgument("config.CDI_devices", f"device node {source}: {error.strerror}") from error
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise InvalidArgument("config.CDI_devices", f"device node {source} is no device")
    node["type"] = kind
    if kind != "p":
        node["major"], node["minor"] = os.major(status.st_rdev), os.minor(status.st_rdev)
