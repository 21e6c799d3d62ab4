# SPDX-License-Identifier: Apache-2.0
"""Requests to one of several API servers, with whatever credentials are current."""

from __future__ import annotations

import asyncio
import errno
import math
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import orjson
import structlog

from kubeproxy_ebpf import __version__
from kubeproxy_ebpf.kubernetes.access import Access, Trust, tls_context
from kubeproxy_ebpf.kubernetes.errors import ApiError, ServerUnreachableError
from kubeproxy_ebpf.kubernetes.login import Login

USER_AGENT: Final = f"kubeproxy-ebpf/{__version__}"
CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 90.0
"""A server says something once a minute, a bookmark if nothing else; one that does not is gone."""
_KEEP_ALIVE: Final = {
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 20_000,
}
"""Seconds and, the last one, milliseconds: a dead peer is noticed within half a minute, and soon after it is back."""
_LONGEST_MESSAGE: Final = 500
_READ_BUFFER: Final = 1 << 18

_log = structlog.get_logger(__name__)


class ApiClient:
    """Sends requests. Belongs to one event loop."""

    def __init__(self, login: Login, silence_seconds: float = SILENCE_SECONDS) -> None:
        """Start without a connection."""
        self._login = login
        self._silence = silence_seconds
        self._at = 0
        self._trust: Trust | None = None
        self._session: aiohttp.ClientSession | None = None
        self.on_change: Callable[[], None] | None = None
        """Called when another server is asked from now on."""

    @property
    def server(self) -> str:
        """The server that is asked now."""
        servers = self._login.servers
        return servers[self._at % len(servers)]

    @asynccontextmanager
    async def get(self, path: str, parameters: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for something; the answer may go on for as long as it is not silent for too long.

        Raises:
            ApiError: the server refuses.
            ServerUnreachableError: it does not answer, or stops to; the next request goes to the next server.
            LoginFailedError: credentials cannot be had.
        """
        async with self._request("GET", path, parameters, None) as response:
            yield response

    async def send(self, method: str, path: str, body: object, content_type: str = "application/json") -> None:
        """Write something. Raises as :meth:`get`."""
        async with self._request(method, path, {}, (orjson.dumps(body), content_type)):
            pass

    async def renew_login(self) -> None:
        """Get other credentials, as the server does not take these."""
        await self._login.renew()

    async def own_session(self) -> aiohttp.ClientSession:
        """Return a session like this client's for somebody else, who has to close it."""
        access = await self._login.access()
        return _session(access.trust, self._silence, access.headers())

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, parameters: Mapping[str, str], body: tuple[bytes, str] | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        access = await self._login.access()
        session = await self._session_for(access)
        server = self.server
        headers = {**access.headers(), "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = body[1]
        try:
            async with session.request(
                method, server + path, params=parameters, headers=headers, data=body[0] if body else None
            ) as response:
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    raise await _error(response)
                yield response
        except (aiohttp.ClientError, OSError) as error:  # OSError: TimeoutError, too
            if not session.closed:
                self._fail_over(server)
            raise ServerUnreachableError(server, error) from error
        except RuntimeError as error:
            if not session.closed:
                raise
            # Closed by _session_for(): aiohttp says it in this way to a reader that comes before the socket's end.
            raise ServerUnreachableError(server, error) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # It was not this task that was cancelled, but one that aiohttp had made: kopf does that when it ends.
            raise ServerUnreachableError(server, error) from error

    async def _session_for(self, access: Access) -> aiohttp.ClientSession:
        """Return the session, a new one if certificates changed. Streams of the old one break, and are begun anew."""
        if self._session is None or access.trust != self._trust:
            old, self._session = self._session, _session(access.trust, self._silence, {})
            self._trust = access.trust
            if old is not None:
                await old.close()
        return self._session

    def _fail_over(self, failed: str) -> None:
        if failed == self.server and len(self._login.servers) > 1:
            self._at += 1
            _log.warning("api_server_changed", failed=failed, server=self.server)
            if self.on_change is not None:
                self.on_change()


def _session(trust: Trust, silence: float, headers: Mapping[str, str]) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        limit=0, ssl=tls_context(trust), socket_factory=_socket, ttl_dns_cache=10, keepalive_timeout=30
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers},
        proxy=trust.proxy_url or None,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence),
        read_bufsize=_READ_BUFFER,
    )


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE.items():
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            made.close()
            raise
    return made


async def _error(response: aiohttp.ClientResponse) -> ApiError:
    text = (await response.content.read(_LONGEST_MESSAGE * 8)).decode(errors="replace")
    try:
        status = orjson.loads(text)
        message = str(status["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = text
    message = " ".join(message.split())[:_LONGEST_MESSAGE] or response.reason or "no reason given"
    return ApiError(response.status, message, _seconds(response.headers.get("Retry-After", "0")))


def _seconds(text: str) -> float:
    """Read how long a server wants to be left alone; what it does not say as a number of seconds is not heeded."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0
