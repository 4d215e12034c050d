"""Runs credential provider plugins and keeps their answers.

Owns the processes, one at a time for one question, and the answers' memory. What is asked and what an answer means is
`core.credential_plugins`. A plugin that fails gives no login and a line in the log: the pull goes on without it.

Upstream counterpart: pkg/credentialprovider/plugin/plugin.go. Difference: pods that want the same at the same time wait
for one answer and look for it in the cache; an answer that may not be kept is asked for again by each of them.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol
from weakref import WeakValueDictionary

import structlog

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core import credential_plugins as rules
from kubelet_py.core.credential_plugins import Account, AnswerCache, InvalidAnswer, Plugin, Scope
from kubelet_py.core.keyring import Credential, Keyring, Logins, ServiceAccountSource
from kubelet_py.core.volume_payload import TokenAsk
from kubelet_py.errors import ApiError, KubeletError

TIMEOUT_SECONDS: Final = 60.0
_END_SECONDS: Final = 5.0
_STDERR_TAIL_CHARACTERS: Final = 500

log = structlog.get_logger()


class PluginError(KubeletError):
    """The plugin gave no answer; the message says why."""


class AccountReader(Protocol):
    """Who has service accounts and their tokens."""

    async def service_account(self, namespace: str, name: str) -> core_v1.ServiceAccount:
        """The object; raises ApiError."""

    async def service_account_token(self, ask: TokenAsk) -> str:
        """A token that is good for some time still; raises ApiError."""


class CredentialPlugins:
    """All plugins of the node. `accounts` None: there is no API server, and no plugin gets a token."""

    def __init__(
        self,
        plugins: Sequence[Plugin],
        directory: Path,
        accounts: AccountReader | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runners = [_Runner(plugin, directory, accounts, clock) for plugin in plugins]

    async def find(self, pod: core_v1.Pod, name: str) -> tuple[Credential, ...]:
        """What the plugins have for an image name with its registry and without tag."""
        keyring = Keyring()
        for runner in self._runners:
            if runner.plugin.serves(name):
                try:
                    logins, source = await runner.ask(pod, name)
                except (PluginError, ApiError) as error:
                    effect = "the pull goes on without it"
                    log.warning(
                        "credential_plugin_failed",
                        plugin=runner.plugin.name,
                        image=name,
                        pod=pods.display_name(pod),
                        error=str(error),
                        effect=effect,
                    )
                    continue
                keyring.add(logins, source)
        return keyring.lookup(name)


class _Runner:
    """One plugin."""

    def __init__(
        self, plugin: Plugin, directory: Path, accounts: AccountReader | None, clock: Callable[[], float]
    ) -> None:
        self.plugin = plugin
        self._path = directory / plugin.name
        self._accounts = accounts
        self._clock = clock
        self._cache = AnswerCache()
        self._locks: WeakValueDictionary[tuple[str, Scope], asyncio.Lock] = WeakValueDictionary()

    async def ask(self, pod: core_v1.Pod, name: str) -> tuple[Logins, ServiceAccountSource | None]:
        """The logins and the account that they belong to. Raises PluginError or ApiError."""
        account: Account | None = None
        if self.plugin.tokenAttributes is not None:
            account_name = pods.spec_of(pod).serviceAccountName
            if account_name:
                account = await self._account(pod, account_name)
            if account is None and (account_name or self.plugin.tokenAttributes.requireServiceAccount):
                return {}, None
        source = ServiceAccountSource(account.uid, account.namespace, account.name) if account is not None else None
        return await self._cached(name, account), source

    async def _account(self, pod: core_v1.Pod, name: str) -> Account | None:
        """The pod's account with a token for the plugin; None when it lacks an annotation that the plugin requires."""
        attributes, accounts = self.plugin.tokenAttributes, self._accounts
        if accounts is None or attributes is None:
            raise PluginError("it wants a service account's token, and there is no API server to give one")
        pod_metadata = pods.metadata_of(pod)
        namespace = pod_metadata.namespace or ""
        metadata = (await accounts.service_account(namespace, name)).metadata
        annotations = rules.account_annotations(attributes, (metadata.annotations if metadata else None) or {})
        if annotations is None:
            return None
        audience = attributes.serviceAccountTokenAudience
        uid = (metadata.uid if metadata else None) or ""
        ask = TokenAsk(
            namespace, name, pod_metadata.name or "", pods.uid_of(pod), audience, service_account_uid=uid
        )  # answers are cached by this UID: the token must be the same account's
        return Account(namespace, name, uid, annotations, await accounts.service_account_token(ask))

    async def _cached(self, name: str, account: Account | None) -> Logins:
        scope = rules.scope_of(self.plugin, account)
        lock = self._locks.setdefault((name, scope), asyncio.Lock())
        async with lock:
            kept = self._cache.get(name, scope, self._clock())
            if kept is not None:
                return kept
            printed = await self._run(rules.encode_request(self.plugin, name, account))
            try:
                answer = rules.decode_answer(self.plugin, printed, account)
            except InvalidAnswer as error:
                raise PluginError(str(error)) from error
            self._cache.put(name, scope, answer, self._clock())
            return answer.logins

    async def _run(self, request: bytes) -> bytes:
        """What the plugin prints. It and what it started are ended when it takes too long or nobody waits any more."""
        environment = {**os.environ, **{variable.name: variable.value for variable in self.plugin.env}}
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                self._path,
                *self.plugin.args,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise PluginError(f"{self._path} cannot be run: {error.strerror}") from error
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                printed, said = await process.communicate(request)
        except TimeoutError as error:
            raise PluginError(f"no answer within {TIMEOUT_SECONDS:.0f} s") from error
        finally:
            await _end(process)
        if process.returncode:
            tail = said.decode(errors="replace").strip()[-_STDERR_TAIL_CHARACTERS:]
            raise PluginError(f"exit code {process.returncode}{': ' + tail if tail else ''}")
        return printed


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
