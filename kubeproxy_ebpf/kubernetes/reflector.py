# SPDX-License-Identifier: Apache-2.0
"""Keeps up with all objects of one kind: lists them, watches them, and survives whatever the server does.

What it hands over is in order, and complete: an object that vanished while nobody watched is said to be gone after
the next list.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from http import HTTPStatus
from typing import Final, NamedTuple

import orjson
import structlog

from kubeproxy_ebpf.garbage import collecting_later
from kubeproxy_ebpf.kubernetes.api_client import ApiClient
from kubeproxy_ebpf.kubernetes.errors import (
    ApiError,
    BrokenStreamError,
    ErrorEventError,
    ListGoneError,
    LoginFailedError,
    ServerUnreachableError,
)
from kubeproxy_ebpf.kubernetes.kinds import WatchedKind
from kubeproxy_ebpf.kubernetes.objects import KnownObjects
from kubeproxy_ebpf.kubernetes.retry import RetryDelays
from kubeproxy_ebpf.kubernetes.stream import WatchEvent, parse_event, read_lines
from kubeproxy_ebpf.source import Update

CHUNK: Final = 500
"""Objects in one part of a list: raw ones take ten times the memory of their models."""
SHORTEST_WATCH, LONGEST_WATCH = 300, 600
"""Seconds after which the server ends a watch, so that one that comes back gets its share of the agents."""
FIRST_LOOK, LONGEST_LOOK = 30.0, 1800.0
"""Seconds until a kind that the server does not have is looked for again."""
MOST_SILENCES: Final = 2
"""Watches in a row without a word, after which everything is listed: what was watched from may be no version at all."""
SHORTEST_CALM: Final = 1.0
"""Seconds. A watch that ends sooner has failed, even if it ends without an error."""
_LOG_SECONDS: Final = 60.0
_REFUSALS: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
_NOT_SERVED: Final = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})

_log = structlog.get_logger(__name__)


class Batch(NamedTuple):
    """What is handed over at a time."""

    kind: str
    updates: list[Update]
    is_listed: bool
    """Whether with these everything is handed over that there was at the start."""
    refused: int = 0
    """How many objects there are that cannot be used."""


class Reflector:
    """One kind of object. Belongs to one event loop."""

    def __init__(self, kind: WatchedKind, client: ApiClient, deliver: Callable[[Batch], None]) -> None:
        """Start without objects. ``deliver`` is called with what is news, often."""
        self._kind = kind
        self._client = client
        self._deliver = deliver
        self._objects = KnownObjects(kind)
        self._is_listed = False
        self._was_served = False
        """Whether the server has had this kind before."""
        self._handed_over: tuple[bool, int] | None = None
        self._version = ""
        """From where to watch; empty: everything has to be listed."""
        self._floor = ""
        """What a list must not be older than."""
        self._streams_lists = True
        self._field_selector = kind.field_selector
        self._is_streaming = False
        self._silences = 0
        self._delays = RetryDelays()
        self._next_look = FIRST_LOOK
        self._failure = ""
        self._logged_at = 0.0

    async def run(self) -> None:
        """Keep up, for ever."""
        while True:
            started = time.monotonic()
            try:
                await self._follow()
                if time.monotonic() - started >= SHORTEST_CALM:
                    continue
                failure: Exception = ServerUnreachableError(self._client.server, EOFError("a watch ended at once"))
            except (ApiError, BrokenStreamError, ListGoneError, LoginFailedError, ServerUnreachableError) as error:
                failure = error
            await asyncio.sleep(await self._recover(failure, time.monotonic() - started))

    async def _follow(self) -> None:
        """Return when the server ends a watch in good order."""
        if not self._version and not self._streams_lists:
            await self._list_in_chunks()
        self._is_streaming = False
        with ExitStack() as bulk:
            if not self._version:
                self._objects.begin_listing()
                bulk.enter_context(collecting_later())
            async with self._client.get(self._kind.path, self._watch_parameters()) as response:
                self._is_streaming = True
                async for lines in read_lines(response):
                    self._take_lines(lines)
                    if self._version:
                        bulk.close()
            if not self._version:
                msg = "the end of a list before its last object"
                raise BrokenStreamError(msg)

    def _watch_parameters(self) -> dict[str, str]:
        seconds = random.randint(SHORTEST_WATCH, LONGEST_WATCH)  # noqa: S311 - spreads agents, hides nothing
        parameters = {
            **self._selectors(),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        if self._version:
            return {**parameters, "resourceVersion": self._version}
        listing = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "resourceVersion": self._floor}
        return {**parameters, **listing}

    def _selectors(self) -> dict[str, str]:
        selectors = {"labelSelector": self._kind.label_selector, "fieldSelector": self._field_selector}
        return {name: value for name, value in selectors.items() if value}

    async def _list_in_chunks(self) -> None:
        self._objects.begin_listing()
        parameters = {**self._selectors(), "limit": str(CHUNK)}
        with collecting_later():
            while True:
                async with self._client.get(self._kind.path, parameters) as response:
                    version, more = self._take_chunk(await response.read())
                if not more:
                    break
                parameters["continue"] = more
        self._hand_over(self._end_listing(version))

    def _take_chunk(self, body: bytes) -> tuple[str, str]:
        """Take over a part of a list; return its resourceVersion and where the next part begins."""
        try:
            raw = orjson.loads(body)
            kind, items, metadata = raw["kind"], raw["items"] or [], raw["metadata"]
            version, more = metadata["resourceVersion"], metadata.get("continue", "")
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            msg = f"something that is no list: {body[:80]!r}"
            raise BrokenStreamError(msg) from error
        if kind != f"{self._kind.kind}List" or not isinstance(items, list) or not isinstance(version, str):
            msg = f"a {kind!r} in place of a list of {self._kind.kind}"
            raise BrokenStreamError(msg)
        updates = [update for item in items if (update := self._objects.set(item)) is not None]
        self._hand_over(updates)
        return version, more

    def _take_lines(self, lines: list[bytes]) -> None:
        """Take over some events; those before one that is wrong count."""
        updates: list[Update] = []
        try:
            for line in lines:
                if line:
                    self._take(parse_event(line), updates)
        finally:
            self._hand_over(updates)
        self._silences = 0
        if self._failure and self._version:
            self._failure = ""
            _log.info("api_watch_resumed", kind=self._kind.kind)

    def _take(self, event: WatchEvent, updates: list[Update]) -> None:
        if event.type == "BOOKMARK":
            if not self._version and event.ends_listing:
                updates += self._end_listing(event.version)
        elif event.type == "DELETED":
            updates.append(self._objects.delete(event.raw))
        else:
            update = self._objects.set(event.raw)
            if update is not None:
                updates.append(update)
        if self._version:
            self._version = event.version

    def _end_listing(self, version: str) -> list[Update]:
        self._version = version
        self._is_listed = self._was_served = True
        return self._objects.end_listing()

    def _hand_over(self, updates: list[Update]) -> None:
        state = (self._is_listed, self._objects.refused)
        if updates or state != self._handed_over:
            self._handed_over = state
            self._deliver(Batch(self._kind.kind, updates, *state))

    async def _recover(self, error: Exception, lasted: float) -> float:
        """Decide how to go on after a failure; return how many seconds to wait before that."""
        if isinstance(error, ApiError) and not isinstance(error, ErrorEventError):
            if self._asks_for_less(error):
                return 0.0
            if error.status in _NOT_SERVED and self._kind.is_optional and not self._was_served:
                return self._look_again_later(error)
            if error.status == HTTPStatus.UNAUTHORIZED:
                await self._renew_login()
        if isinstance(error, ListGoneError) or (isinstance(error, ApiError) and error.means_gone):
            self._version = self._floor = ""
        elif isinstance(error, BrokenStreamError | ErrorEventError):
            self._version, self._floor = "", self._version or self._floor
        elif self._was_silent(error):
            self._version = self._floor = ""
        delay = self._delays.after(error, lasted)
        self._log_failure(error, delay)
        return delay

    def _asks_for_less(self, error: ApiError) -> bool:
        """Whether the server may do without something that it does not know; from now on it is not asked for."""
        if error.status not in _REFUSALS:
            return False
        if self._version:
            self._version = ""  # whatever was wrong with it
            return False
        if self._field_selector and error.status == HTTPStatus.BAD_REQUEST:
            self._field_selector = ""
            return True
        if self._streams_lists:
            self._streams_lists = False
            return True
        return False

    def _look_again_later(self, error: ApiError) -> float:
        """Go on without this kind."""
        if not self._is_listed:
            _log.info("api_kind_not_served", kind=self._kind.kind, reason=str(error))
        self._is_listed = True
        self._hand_over([])
        delay, self._next_look = self._next_look, min(self._next_look * 2, LONGEST_LOOK)
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads agents, hides nothing

    async def _renew_login(self) -> None:
        try:
            await self._client.renew_login()
        except LoginFailedError as error:
            _log.warning("api_login_failed", reason=str(error))

    def _was_silent(self, error: Exception) -> bool:
        """Whether too many watches in a row have ended without a word."""
        if self._is_streaming and isinstance(error.__cause__, TimeoutError):
            self._silences += 1
        return self._silences >= MOST_SILENCES

    def _log_failure(self, error: Exception, delay: float) -> None:
        """Log what is new, and once a minute what is not."""
        now = time.monotonic()
        failure = str(error)
        if failure != self._failure or now - self._logged_at >= _LOG_SECONDS:
            self._failure, self._logged_at = failure, now
            _log.warning("api_watch_failed", kind=self._kind.kind, reason=failure, seconds=round(delay, 2))
