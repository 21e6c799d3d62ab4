# SPDX-License-Identifier: Apache-2.0
"""Keeps the access to the API server current: files that change are read again, what expires is renewed in time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import structlog

from kubeproxy_ebpf.kubernetes import plugin_login
from kubeproxy_ebpf.kubernetes.access import Access
from kubeproxy_ebpf.kubernetes.errors import KubeconfigError, LoginFailedError
from kubeproxy_ebpf.kubernetes.kubeconfig import Found, read_kubeconfig, read_service_account

_EARLY_SECONDS: Final = 30.0
"""How long before they expire credentials are renewed."""
_RENEWAL_SECONDS: Final = 1.0
"""A server that refuses everybody does not make a plug-in run more often than this."""

_log = structlog.get_logger(__name__)

_Signature = tuple[tuple[int, int, int] | None, ...]


class Login:
    """Who we are to the API server, and where it is. Belongs to one event loop."""

    def __init__(self, kubeconfig: Path | None, api_servers: tuple[str, ...]) -> None:
        """Read a kubeconfig, or what the pod has, for the first time.

        ``api_servers`` take the place of the server named there.

        Raises:
            KubeconfigError: it cannot be read, or lacks something.
        """
        self._kubeconfig = kubeconfig
        self._api_servers = api_servers
        self._found = self._read()
        self._signature = _signature(self._found.files)
        self._renewed_at = 0.0
        self._access: Access | None = None if self._found.needs_plugin else self._found.access
        self._lock = asyncio.Lock()

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers' URLs."""
        return self._api_servers or self._found.access.servers

    async def access(self) -> Access:
        """Return what a request needs now.

        Raises:
            LoginFailedError: credentials cannot be had.
        """
        if self._access is None or self._files_changed() or _has_expired(self._access):
            await self.renew()
        if self._access is None:
            msg = "there are no credentials; see the error before this one"
            raise LoginFailedError(msg)
        return self._access

    async def renew(self) -> None:
        """Read everything again, and run the plug-in if there is one: the server does not take what we have.

        Raises:
            LoginFailedError: credentials cannot be had.
        """
        async with self._lock:
            if self._access is not None and time.monotonic() - self._renewed_at < _RENEWAL_SECONDS:
                return
            self._renewed_at = time.monotonic()
            self._signature = _signature(self._found.files)
            try:
                self._found = self._read()
            except KubeconfigError as error:
                raise LoginFailedError(str(error)) from error
            self._signature = _signature(self._found.files)
            access = self._found.access
            if self._found.needs_plugin and self._kubeconfig is not None:
                access = await plugin_login.log_in(self._kubeconfig, access)
            access = access.at(self._api_servers)
            if access != self._access:
                self._access = access
                _log.info("api_credentials_read", servers=access.servers)

    def _read(self) -> Found:
        found = read_kubeconfig(self._kubeconfig) if self._kubeconfig else read_service_account()
        return found._replace(access=found.access.at(self._api_servers))

    def _files_changed(self) -> bool:
        return _signature(self._found.files) != self._signature


def _signature(files: tuple[Path, ...]) -> _Signature:
    """Return what differs if one of the files was written or replaced."""
    found: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _has_expired(access: Access) -> bool:
    now = time.time()  # noqa: TID251 - credentials name the time of day when they expire
    return access.expires is not None and now >= access.expires - _EARLY_SECONDS
