# SPDX-License-Identifier: Apache-2.0
"""kopf, the operator framework: it brings this node's Node object. The only file that knows it.

kopf reads only: every way in which it would write to an object is shut here. Services and EndpointSlices do not come
through it (docs/decisions/0012-reflector-beside-kopf.md). Importing this module is what costs, so import it late.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, NoReturn, cast

import aiohttp
import structlog

from kubeproxy_ebpf.kubernetes.api_client import CONNECT_SECONDS, SILENCE_SECONDS, ApiClient
from kubeproxy_ebpf.kubernetes.discovery import DiscoverySession
from kubeproxy_ebpf.kubernetes.errors import LoginFailedError, ServerUnreachableError
from kubeproxy_ebpf.kubernetes.retry import LONGEST_DELAY_UNREACHABLE, RetryDelays
from kubeproxy_ebpf.lean_import import as_if_absent

with as_if_absent(
    "kubernetes", "kubernetes_asyncio", "pykube"
):  # imported to recognise their objects: a third of a second, 18 MB
    import kopf

SHORTEST_WATCH, LONGEST_WATCH = 300, 600
"""Seconds after which the server ends a watch."""
_REQUEST_SECONDS: Final = 30.0
_REFUSALS: Final = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}

OnNode = Callable[[str | None, Mapping[str, Any]], None]
"""Called with the type of an event (None: it was there already) and the raw Node."""

_log = structlog.get_logger(__name__)


async def serve(client: ApiClient, node_name: str, on_node: OnNode) -> NoReturn:
    """Run the operator, for ever. If it ends, as some answers of a server make it, another one takes its place."""
    _quiet_kopf()
    delays = RetryDelays()
    streams_lists = True
    while True:
        started = time.monotonic()
        try:
            await kopf.operator(
                registry=_registry(client, on_node),
                settings=_settings(node_name, streams_lists=streams_lists),
                identity="kubeproxy-ebpf",  # type: ignore[arg-type]  # a type of its own for a text
                clusterwide=True,
                standalone=True,
            )
            reason = "for no reason"
            error: Exception = ServerUnreachableError(client.server, EOFError("the operator ended"))
        except Exception as failure:  # noqa: BLE001 - whatever it is, the Node is still wanted
            reason, error = f"{type(failure).__name__}: {failure}", failure
            if getattr(failure, "status", None) in _REFUSALS:  # a server before 1.34 does not stream lists
                streams_lists = False
        delay = delays.after(error, time.monotonic() - started)
        _log.warning("operator_ended", reason=reason, seconds=round(delay, 2))
        await asyncio.sleep(delay)


def _registry(client: ApiClient, on_node: OnNode) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    logins = _Logins(client)
    kopf.on.login(registry=registry)(logins.log_in)
    kopf.on.cleanup(registry=registry)(logins.forget)

    @kopf.on.event("", "v1", "nodes", registry=registry)
    async def node(
        event: kopf.RawEvent, **_: object
    ) -> None:  # returns nothing: what it returned would be written to the Node
        on_node(event["type"], event["object"])

    return registry


class _Logins:
    """Gives kopf sessions of our making: its own would know neither other servers nor dead connections."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._session: aiohttp.ClientSession | None = None
        self._is_outdated = False
        self._delays = RetryDelays()
        self._logged_in_at = time.monotonic()

    async def log_in(self, **_: object) -> kopf.AiohttpSession:
        """Return a session for the server in use; kopf asks again when it is refused (401), or we have closed it."""
        refused = self._session is not None and not self._is_outdated
        self._is_outdated = False
        lasted, self._logged_in_at = time.monotonic() - self._logged_in_at, time.monotonic()
        while True:
            try:
                if refused:
                    await asyncio.sleep(self._delays.after(LoginFailedError(), lasted))
                    await self._client.renew_login()
                self._session = await self._client.own_session()
            except LoginFailedError as error:
                _log.warning("api_login_failed", reason=str(error))
                refused = True
            else:
                break
        self._client.on_change = self._close
        server = self._client.server
        session = cast("aiohttp.ClientSession", DiscoverySession(self._session, server))
        return kopf.AiohttpSession(server=server, aiohttp_session=session)

    async def forget(self, **_: object) -> None:
        """Take note that this operator has ended."""
        self._client.on_change = None

    def _close(self) -> None:
        """Close the session of a server that is not used any more."""
        self._is_outdated = True
        if self._session is not None:
            self._closing = asyncio.get_running_loop().create_task(self._session.close())


class _Backoffs:
    """Delays between tries of a request, without end: kopf ends with their end."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.1, 0.2, 0.5)
        yield from (random.uniform(0.5, LONGEST_DELAY_UNREACHABLE) for _ in itertools.repeat(None))  # noqa: S311


class _NullDiffBase(kopf.DiffBaseStorage):
    """Keeps nothing: kopf would copy each object twice to know what changed."""

    def build(self, **_: object) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: object) -> None:
        return None

    def store(self, **_: object) -> None:
        pass


class _NullProgress(kopf.ProgressStorage):
    """Keeps nothing."""

    def fetch(self, **_: object) -> None:
        return None

    def store(self, **_: object) -> None:
        pass

    def purge(self, **_: object) -> None:
        pass

    def touch(self, **_: object) -> None:
        pass

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence

    def flush(self) -> None:
        pass


def _settings(node_name: str, *, streams_lists: bool = True) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = _NullDiffBase()
    settings.persistence.progress_storage = _NullProgress()
    settings.persistence.finalizer = "kubeproxy-ebpf.io/never"  # not kopf's, which it would take off an object
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.queueing.idle_timeout = 0.1
    settings.process.ultimate_exiting_timeout = None  # or an operator that ended kills the process 10 minutes later
    settings.networking.error_backoffs = _Backoffs()
    settings.networking.request_timeout = _REQUEST_SECONDS
    settings.networking.connect_timeout = CONNECT_SECONDS
    settings.watching.connect_timeout = CONNECT_SECONDS
    settings.watching.inactivity_timeout = SILENCE_SECONDS
    settings.watching.server_timeout = random.randint(SHORTEST_WATCH, LONGEST_WATCH)  # noqa: S311 - spreads agents
    settings.watching.initial_streaming = streams_lists
    settings.watching.field_selectors["nodes"] = f"metadata.name={node_name}"
    return settings


def _quiet_kopf() -> None:
    """Leave kopf's log to those who look for it: its every retry is an error to it."""
    logger = logging.getLogger("kopf")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(_ToDebug())


class _ToDebug(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _log.debug("kopf", level_of_kopf=record.levelname.lower(), message=record.getMessage())
