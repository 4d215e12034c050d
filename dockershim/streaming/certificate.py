"""The certificate of the streaming server, where the operator wants TLS.

Owns loading it, anew when its files were changed, so that a renewal needs no restart. Must not know requests. Upstream
counterpart: containerd's x509_key_pair_streaming, which is loaded once; cri-dockerd has none.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import structlog

from dockershim.errors import ConfigError

_log = structlog.get_logger()


class Certificate:
    """A certificate and its key in files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._loaded = ""

    def load(self) -> ssl.SSLContext:
        """For the start: ConfigError when it cannot be used. Reads files."""
        names = ", ".join(map(str, self._files))
        try:
            self._loaded = self._state()
            for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._context):  # one that may be spoilt is first
                # the password: else OpenSSL asks for that of an encrypted key at the terminal
                context.load_cert_chain(*self._files, password=lambda: b"")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"--streaming-tls-cert-file, --streaming-tls-private-key-file {names}: {error}"
            ) from error
        return self._context

    async def renewed(self) -> ssl.SSLContext:
        """The context as the files are now; as they were when they cannot be used, which is told."""
        await asyncio.to_thread(self._refresh)
        return self._context

    def _refresh(self) -> None:
        try:
            changed = self._state() != self._loaded
        except OSError:
            return  # in the middle of a renewal
        if not changed:
            return
        try:
            self.load()
        except ConfigError as error:
            _log.warning("streaming_certificate_not_renewed", error=str(error))
        else:
            _log.info("streaming_certificate_loaded", file=str(self._files[0]))

    def _state(self) -> str:
        return ",".join(f"{status.st_ino}:{status.st_mtime_ns}" for status in map(os.stat, self._files))
