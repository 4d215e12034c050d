"""Where logins for a pull come from: the pod's pull secrets, the node's own files, the credential plugins.

Owns reading the node's files and asking for the secrets; `core.keyring` says which logins fit. Must not know: pulls.
The files are read for each pull that needs them, so that a new login works at once.

Upstream counterpart: pkg/credentialprovider/provider.go and config.go. Difference: there the files are read at most
every five minutes.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from kubelet_py.api import core_v1
from kubelet_py.core.keyring import (
    Credential,
    InvalidLogins,
    Keyring,
    Logins,
    keyring_of_secrets,
    parse_config_json,
    parse_docker_cfg,
)
from kubelet_py.managers.images.plugins import CredentialPlugins

_CONFIG_JSON: Final = "config.json"
_DOCKER_CFG: Final = ".dockercfg"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PodSecrets:
    """The pull secrets that a pod names, and the names of those that cannot be had."""

    found: Sequence[core_v1.Secret] = ()
    missing: tuple[str, ...] = ()


class SecretReader(Protocol):
    """Who has the pods' secrets."""

    async def pull_secrets(self, pod: core_v1.Pod) -> PodSecrets:
        """Those of `imagePullSecrets`; a secret that cannot be read is missing and no error."""


@dataclass(frozen=True, slots=True)
class Found:
    """What to try at the registry, in turn; nothing: anonymous."""

    credentials: tuple[Credential, ...] = ()
    missing_secrets: tuple[str, ...] = ()


class PullCredentials:
    """The credentials of this node's pods."""

    def __init__(self, secrets: SecretReader, node: "NodeLogins", plugins: CredentialPlugins | None = None) -> None:
        self._secrets = secrets
        self._node = node
        self._plugins = plugins

    async def find(self, pod: core_v1.Pod, name: str) -> Found:
        """All that fit the image, the pod's own first. Raises InvalidLogins for a secret that cannot be understood."""
        secrets = await self._secrets.pull_secrets(pod)
        found = keyring_of_secrets(secrets.found).lookup(name)
        keyring = Keyring()
        keyring.add(await asyncio.to_thread(self._node.read))
        by_plugins = await self._plugins.find(pod, name) if self._plugins is not None else ()
        return Found((*found, *keyring.lookup(name), *by_plugins), secrets.missing)


class NodeLogins:
    """The docker configuration of the node, where one lies: the first file that can be read and understood."""

    def __init__(self, root_dir: Path, home: Path | None = None, top: Path = Path("/")) -> None:
        """`root_dir` is the agent's; `home` None: that of the user it runs as."""
        here = Path()
        home = home or Path(os.environ.get("HOME") or here)
        self._places: list[tuple[Path, Callable[[bytes], Logins]]] = [
            *(
                (directory / _CONFIG_JSON, parse_config_json)
                for directory in (root_dir, here, home / ".docker", top / ".docker")
            ),
            *((directory / _DOCKER_CFG, parse_docker_cfg) for directory in (root_dir, here, home, top)),
        ]
        self._told: set[str] = set()

    def read(self) -> Logins:
        """The logins now. Blocking."""
        for path, parse in self._places:
            try:
                return parse(path.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, InvalidLogins) as error:
                self._tell(path, str(error))
        return {}

    def _tell(self, path: Path, problem: str) -> None:
        """Each trouble once: the file is read at every pull."""
        if (told := f"{path}: {problem}") not in self._told:
            self._told.add(told)
            log.warning(
                "registry_logins_unreadable",
                file=str(path.absolute()),
                error=problem,
                consequence="the next place is tried",
            )
