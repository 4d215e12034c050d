"""From a command line to the settings of a start: files, drop-ins, flags, defaults and checks, in upstream's order.

Owns precedence and the reading of the files; the only module of this package that touches the disk. Flags are read
twice: once to find the files, once to put their values over what the files say.

Upstream counterpart: cmd/kubelet/app/server.go (NewKubeletCommand) and pkg/kubelet/kubeletconfig/configfiles.
Deliberate difference: everything that is wrong is reported at once, with its file, and unknown fields are refused.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubelet_py.config.decode import Problem, decode_configuration, is_ip_address
from kubelet_py.config.documents import UnreadableDocument, leaf_paths, merge_patch, read_document
from kubelet_py.config.encode import to_document
from kubelet_py.config.flag_texts import flag_texts
from kubelet_py.config.flags import CONFIG_FLAGS, ParsedFlags, flag_of, parse_flags
from kubelet_py.config.gates import FeatureGates
from kubelet_py.config.help_text import help_text, version_text
from kubelet_py.config.model import (
    AnonymousAuthentication,
    CrashLoopBackOffConfig,
    KubeletAuthentication,
    KubeletAuthorization,
    KubeletConfiguration,
    WebhookAuthentication,
)
from kubelet_py.config.node_flags import NodeFlags, node_flag_problems
from kubelet_py.config.shapes import with_values
from kubelet_py.config.unsupported import unsupported_settings
from kubelet_py.config.validation import HostTraits, configuration_problems
from kubelet_py.errors import ConfigError

DEFAULT_EVICTION_HARD: Mapping[str, str] = {
    "memory.available": "100Mi",
    "nodefs.available": "10%",
    "nodefs.inodesFree": "5%",
    "imagefs.available": "15%",
    "imagefs.inodesFree": "5%",
}
FILE_DEFAULTS = KubeletConfiguration()
LEGACY_DEFAULTS = dataclasses.replace(
    FILE_DEFAULTS,
    authentication=KubeletAuthentication(
        anonymous=AnonymousAuthentication(enabled=True), webhook=WebhookAuthentication(enabled=False)
    ),
    authorization=KubeletAuthorization(mode="AlwaysAllow"),
    readOnlyPort=10255,
)
"""What holds when no --config is given, as before there were files."""
PATH_FIELDS = frozenset(
    {
        "staticPodPath",
        "authentication.x509.clientCAFile",
        "tlsCertFile",
        "tlsPrivateKeyFile",
        "resolvConf",
        "volumePluginDir",
        "podLogsDir",
    }
)
"""Paths that the --config file may write as seen from its own directory. Drop-ins and flags are not read that way."""


class Answer(Exception):
    """--help or --version was asked for: print `text` and exit 0."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a start needs to know: the configuration, the node's flags, the gates, and what to warn about."""

    config: KubeletConfiguration
    flags: NodeFlags
    gates: FeatureGates
    warnings: tuple[str, ...] = ()
    command_line: KubeletConfiguration = LEGACY_DEFAULTS
    """What the flags alone say; with --config-dir and no --config, what the drop-ins say with them."""

    @property
    def standalone(self) -> bool:
        """No API server: pods come from files and URLs only."""
        return not self.flags.kubeconfig

    def configz(self) -> dict[str, Any]:
        """The effective configuration as /configz and the start-up log show it."""
        return to_document(self.config)

    def flagz(self) -> dict[str, str]:
        """The value of every flag as /flagz shows it."""
        return flag_texts(self.command_line, self.flags)


@dataclass(slots=True)
class _Files:
    """What the files said together, which file said what, and what is wrong in them."""

    config: KubeletConfiguration = LEGACY_DEFAULTS
    defaults: KubeletConfiguration = LEGACY_DEFAULTS
    """What the files would have said, had they set nothing."""
    paths: set[str] = field(default_factory=set)
    """Every field that they set."""
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def load(argv: Sequence[str], *, host: HostTraits | None = None) -> Settings:
    """The settings of a command line (without the program's name); raises ConfigError with every problem, or Answer."""
    given = parse_flags(argv)
    if given.help_requested:
        raise Answer(help_text())
    if given.version_requested not in ("", "false"):
        raise Answer(version_text(given.version_requested))
    problems = list(given.problems)
    strangers: list[str] = []
    flags = _with_node_ips(dataclasses.replace(NodeFlags(), **given.node_values), strangers)
    files = _read_files(flags)
    problems += files.problems
    config = _with_flags(files.config, given)
    gates = FeatureGates(config.featureGates)
    config = _with_gated_defaults(config, gates, {*files.paths, *given.config_values})
    config = dataclasses.replace(config, clusterDNS=_ip_addresses(config.clusterDNS, "clusterDNS", strangers))
    found = configuration_problems(config, gates, host or read_host_traits())
    problems += [_located(problem, files, given) for problem in found]
    problems += [f"--{problem.path.replace('_', '-')} {problem.text}" for problem in node_flag_problems(flags)]
    if problems:
        raise ConfigError(*problems)
    warnings = (*strangers, *_warnings(config, files.defaults, flags, given))
    command_line = _with_flags(LEGACY_DEFAULTS if flags.config else files.config, given)
    return Settings(config, flags, gates, warnings, command_line)


def read_host_traits() -> HostTraits:
    """What this host is like, as far as a configuration can contradict it."""
    try:
        swap_on = len(Path("/proc/swaps").read_text().splitlines()) > 1
    except OSError:
        swap_on = False
    return HostTraits(cgroup_v2=Path("/sys/fs/cgroup/cgroup.controllers").exists(), swap_on=swap_on)


def _read_files(flags: NodeFlags) -> _Files:
    """The --config file with its defaults, and the drop-ins merged over both.

    A default that follows another field (such as nodeStatusReportFrequency) follows what the file says of that field,
    and a drop-in's evictionHard adds to the file's, which is the default one when the file has none. What the file sets
    to an empty list is not set for the merge, so that `enforceNodeAllocatable: []` is the default again once there is a
    --config-dir, as upstream's JSON has no empty lists.
    """
    files = _Files()
    said: Any = {}
    if flags.config:
        path = Path(flags.config)
        said = _anchored(_read_document(path, files), os.path.dirname(os.path.abspath(path)))
        files.config = _of_the_config_file(decode_configuration(said).values)
        files.defaults = _of_the_config_file({})
    if flags.config_dir:
        merged: Any = to_document(files.config, mask_secrets=False)
        for path in _drop_ins(flags.config_dir, files):
            drop_in = _read_document(path, files, is_patch=True)
            merged, said = merge_patch(merged, drop_in), merge_patch(said, drop_in)
        files.config = _with_defaults(decode_configuration(merged).values)
    files.paths = set(decode_configuration(said).values)
    return files


def _of_the_config_file(values: Mapping[str, Any]) -> KubeletConfiguration:
    """The configuration that a --config file gives: only there evictionHard has defaults, for what it leaves out."""
    config = _with_defaults(values)
    if "evictionHard" not in values:
        return dataclasses.replace(config, evictionHard=DEFAULT_EVICTION_HARD)
    if config.mergeDefaultEvictionSettings:
        return dataclasses.replace(config, evictionHard={**DEFAULT_EVICTION_HARD, **config.evictionHard})
    return config


def _with_defaults(values: Mapping[str, Any]) -> KubeletConfiguration:
    config: KubeletConfiguration = with_values(FILE_DEFAULTS, {**_dependent_defaults(values), **values})
    return config


def _read_document(path: Path, files: _Files, *, is_patch: bool = False) -> dict[str, Any]:
    """What one file says; empty, with the problem noted, when it cannot be read as an object.

    In a patch null is a word of its own, and no value that has to be right.
    """
    try:
        document = read_document(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, UnreadableDocument) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        files.problems.append(f"{path}: {reason}")
        return {}
    problems = decode_configuration(merge_patch({}, document) if is_patch else document).problems
    files.problems += [f"{path}: {_joined(problem)}" for problem in problems]
    if not isinstance(document, dict):
        return {}
    files.origins.update(dict.fromkeys(leaf_paths(document), str(path)))
    return document


def _anchored(document: Mapping[str, Any], directory: str, prefix: str = "") -> dict[str, Any]:
    """The document with each of its relative paths made absolute."""
    result = dict(document)
    for name, value in document.items():
        if isinstance(value, dict):
            result[name] = _anchored(value, directory, f"{prefix}{name}.")
        elif f"{prefix}{name}" in PATH_FIELDS and value and isinstance(value, str) and not os.path.isabs(value):
            result[name] = os.path.normpath(os.path.join(directory, value))
    return result


def _drop_ins(directory: str, files: _Files) -> Iterator[Path]:
    """Every *.conf below the directory, in lexical order of the whole path."""
    if not directory:
        return
    if not Path(directory).is_dir():
        files.problems.append(f"--config-dir {directory}: is no directory")
        return
    found = [Path(folder) / name for folder, _, names in os.walk(directory) for name in names]
    yield from sorted(path for path in found if path.name.endswith(".conf"))


def _dependent_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults that depend on what else a document sets."""
    defaults: dict[str, Any] = {}
    if "nodeStatusUpdateFrequency" in values:
        defaults["nodeStatusReportFrequency"] = values["nodeStatusUpdateFrequency"]
    if values.get("maxParallelImagePulls", 1) >= 2:
        defaults["serializeImagePulls"] = False
    return defaults


def _with_flags(config: KubeletConfiguration, given: ParsedFlags) -> KubeletConfiguration:
    """Flags win over files; feature gates are merged key by key, and --seccomp-default can only switch on."""
    values = dict(given.config_values)
    if "featureGates" in values:
        values["featureGates"] = {**config.featureGates, **values["featureGates"]}
    if "seccompDefault" in values:
        values["seccompDefault"] = config.seccompDefault or values["seccompDefault"]
    if values.get("podPidsLimit", config.podPidsLimit) < 0:
        values["podPidsLimit"] = -1
    result: KubeletConfiguration = with_values(config, values)
    return result


def _with_gated_defaults(config: KubeletConfiguration, gates: FeatureGates, given: set[str]) -> KubeletConfiguration:
    """Defaults that exist only while their feature is on."""
    if not gates.switched.get("KubeletCrashLoopBackOffMax", True) and (
        "crashLoopBackOff.maxContainerRestartPeriod" not in given
    ):
        none = CrashLoopBackOffConfig(maxContainerRestartPeriod=None)
        config = dataclasses.replace(config, crashLoopBackOff=none)
    if not gates.switched.get("KubeletEnsureSecretPulledImages", True) and (
        "imagePullCredentialsVerificationPolicy" not in given
    ):
        config = dataclasses.replace(config, imagePullCredentialsVerificationPolicy="")
    return config


def _with_node_ips(flags: NodeFlags, strangers: list[str]) -> NodeFlags:
    ips = [text.strip() for text in flags.node_ip.split(",") if text.strip()]
    return dataclasses.replace(flags, node_ip=",".join(_ip_addresses(ips, "--node-ip", strangers)))


def _ip_addresses(texts: Sequence[str], where: str, strangers: list[str]) -> tuple[str, ...]:
    """Those that are IP addresses. Upstream starts without the others, so they are told and left out."""
    others = [repr(text) for text in texts if not is_ip_address(text)]
    if others:
        strangers.append(f"no IP address, ignored: {', '.join(others)} in {where}")
    return tuple(text for text in texts if is_ip_address(text))


def _located(problem: Problem, files: _Files, given: ParsedFlags) -> str:
    """The problem with the place it came from: a flag, a file, or neither (a default)."""
    path = problem.path.partition("[")[0]
    for candidate in _prefixes(path):
        if candidate in given.config_values and candidate in CONFIG_FLAGS.values():
            return f"{flag_of(candidate)}: {_joined(problem)}"
        if candidate in files.origins:
            return f"{files.origins[candidate]}: {_joined(problem)}"
    return _joined(problem)


def _prefixes(path: str) -> Iterator[str]:
    """The path itself, then each shorter one."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def _joined(problem: Problem) -> str:
    return f"{problem.path} {problem.text}" if problem.path else problem.text


def _warnings(
    config: KubeletConfiguration, defaults: KubeletConfiguration, flags: NodeFlags, given: ParsedFlags
) -> Iterator[str]:
    if given.deprecated:
        yield f"deprecated flags, set them in the --config file instead: {' '.join(given.deprecated)}"
    ignored = list(unsupported_settings(config, defaults, flags))
    if ignored:
        yield f"not implemented, ignored: {', '.join(ignored)}"
