"""Network configurations of CNI as files: what they say, which one counts, and why the others do not.

Owns the reading of a configuration directory and the rules of the CNI specification (1.1, and 0.3 to 1.0) for
configurations. Must not know plugins' processes or pods. Upstream counterpart: libcni's conf.go and go-cni's loading.
Deliberate difference: a broken file never hides the files after it, and is named in the condition.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = (".conflist", ".conf", ".json")
SUPPORTED_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
FIRST_VERSION_WITH_CHAINS = "0.3.0"
MAX_FILE_BYTES = 1 << 20
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")


class BadConfiguration(ValueError):
    """A file that cannot be used; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class CniNetworkConfig:
    """One network: a chain of plugins, each with its own settings, under one name and version."""

    name: str
    version: str
    plugins: tuple[Mapping[str, Any], ...]
    disable_check: bool = False
    disable_gc: bool = False

    def to_raw(self) -> dict[str, Any]:
        """As a configuration list in JSON."""
        return {
            "cniVersion": self.version,
            "name": self.name,
            "disableCheck": self.disable_check,
            "disableGC": self.disable_gc,
            "plugins": [dict(plugin) for plugin in self.plugins],
        }


@dataclass(frozen=True, slots=True)
class Directory:
    """What a configuration directory amounts to: the network that counts, and why files in it do not."""

    network: CniNetworkConfig | None
    broken: tuple[str, ...]


def load_directory(directory: Path) -> Directory:
    """The first usable network in the order of the file names."""
    broken: list[str] = []
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix in SUFFIXES)
    except FileNotFoundError:
        return Directory(None, ())
    except OSError as error:
        return Directory(None, (str(error),))
    network = None
    for path in paths:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise BadConfiguration(f"larger than {MAX_FILE_BYTES} bytes")
            parsed = parse(path.read_bytes())
        except (OSError, BadConfiguration) as error:
            broken.append(f"{path.name}: {error}")
            continue
        network = network or parsed
    return Directory(network, tuple(broken))


def parse(data: bytes) -> CniNetworkConfig:
    """A configuration list, or a single plugin's configuration, which counts as a list of one."""
    try:
        content = json.loads(data)
    except ValueError as error:
        raise BadConfiguration(f"not JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadConfiguration("not a JSON object")
    return from_raw(content if "plugins" in content else {**content, "plugins": [content]})


def from_raw(content: Mapping[str, Any]) -> CniNetworkConfig:
    """A configuration list from its JSON content."""
    name = content.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadConfiguration(f"name is {name!r}: it must be letters, digits, '_', '.' and '-'")
    plugins = content.get("plugins")
    if not isinstance(plugins, list) or not plugins:
        raise BadConfiguration("plugins must be a list of at least one plugin")
    for at, plugin in enumerate(plugins):
        kind = plugin.get("type") if isinstance(plugin, dict) else None
        if not isinstance(kind, str) or not kind or "/" in kind:
            raise BadConfiguration(f"plugins[{at}].type is {kind!r}: it must be the file name of a plugin")
    version = _version(content)
    if len(plugins) > 1 and _order(version) < _order(FIRST_VERSION_WITH_CHAINS):
        raise BadConfiguration(
            f"cniVersion {version} has no chains of plugins: use {FIRST_VERSION_WITH_CHAINS} or newer"
        )
    disabled = {key: content.get(key) in (True, "true") for key in ("disableCheck", "disableGC")}
    return CniNetworkConfig(name, version, tuple(plugins), disabled["disableCheck"], disabled["disableGC"])


def _version(content: Mapping[str, Any]) -> str:
    """The newest that both the configuration offers and this runtime speaks."""
    offered = content.get("cniVersions") or []
    if not isinstance(offered, list):
        raise BadConfiguration("cniVersions must be a list of versions")
    if not offered or "cniVersion" in content:
        offered = [*offered, content.get("cniVersion") or "0.1.0"]
    known = [version for version in SUPPORTED_VERSIONS if version in offered]
    if not known:
        raise BadConfiguration(
            f"cniVersion {', '.join(map(str, offered))} is not supported: {', '.join(SUPPORTED_VERSIONS)} are"
        )
    return known[-1]


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def plugin_input(
    network: CniNetworkConfig, plugin: Mapping[str, Any], runtime_config: Mapping[str, Any], previous: Any
) -> dict[str, Any]:
    """What a plugin gets on its standard input: its own settings, the list's name and version, and what it can use."""
    content = {key: value for key, value in plugin.items() if key != "capabilities"}
    content["cniVersion"] = network.version
    content["name"] = network.name
    capabilities = plugin.get("capabilities")
    wanted = capabilities if isinstance(capabilities, dict) else {}
    chosen = {key: value for key, value in runtime_config.items() if wanted.get(key) is True}
    if chosen:
        content["runtimeConfig"] = chosen
    if previous is not None:
        content["prevResult"] = previous
    return content
