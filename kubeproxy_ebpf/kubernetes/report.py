# SPDX-License-Identifier: Apache-2.0
"""Writes events (events.k8s.io/v1) on objects: few, and never in anybody's way. The only thing ever written."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import structlog

from kubeproxy_ebpf.kubernetes.api_client import ApiClient
from kubeproxy_ebpf.kubernetes.errors import ApiError, LoginFailedError, ServerUnreachableError
from kubeproxy_ebpf.kubernetes.retry import RetryDelays
from kubeproxy_ebpf.source import Occurrence

CONTROLLER: Final = "kubeproxy-ebpf"
BURST: Final = 25
"""Events that may be written at once; what goes beyond waits its turn."""
SECONDS_PER_EVENT: Final = 12.0
MOST_WAITING: Final = 100
"""Events that wait to be written; the oldest are forgotten when there are more."""
MOST_KNOWN: Final = 256
"""Events that are remembered, to count repetitions."""
SERIES_SECONDS: Final = 360.0
"""How often a repetition is written at most."""
_LONGEST_NOTE: Final = 1024
_LONGEST_INSTANCE: Final = 128
_API_VERSIONS: Final = {"Node": "v1", "Service": "v1"}
_AGAIN: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.UNAUTHORIZED})

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Written:
    """An event that there is, or is about to be."""

    path: str
    name: str
    occurrence: Occurrence
    count: int = 1
    written_at: float | None = None
    is_waiting: bool = True


class Reporter:
    """Belongs to one event loop."""

    def __init__(self, client: ApiClient, node_name: str) -> None:
        """Start with nothing to say."""
        self._client = client
        self._instance = f"{CONTROLLER}-{node_name}"[:_LONGEST_INSTANCE]
        self._known: dict[Occurrence, _Written] = {}
        self._waiting: deque[_Written] = deque()
        self._wake = asyncio.Event()
        self._allowance = float(BURST)
        self._counted_at = time.monotonic()
        self._is_refused = False

    def add(self, occurrence: Occurrence) -> None:
        """Have an event written, unless it only repeats one that was written a moment ago."""
        if self._is_refused:
            return
        event = self._known.get(occurrence)
        if event is None:
            event = self._known[occurrence] = self._new(occurrence)
            if len(self._known) > MOST_KNOWN:
                del self._known[next(iter(self._known))]
        else:
            event.count += 1
            if event.is_waiting or time.monotonic() - (event.written_at or 0.0) < SERIES_SECONDS:
                return
            event.is_waiting = True
        if len(self._waiting) >= MOST_WAITING:
            self._known.pop(self._waiting.popleft().occurrence, None)  # it is news when it comes again
        self._waiting.append(event)
        self._wake.set()

    async def run(self) -> None:
        """Write what there is to write, for ever."""
        delays = RetryDelays()
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            await self._await_turn()
            event = self._waiting.popleft()
            try:
                await self._write(event)
            except (ApiError, LoginFailedError, ServerUnreachableError) as error:
                if self._has_expired(event, error):
                    event.name, event.count, event.written_at = _name(event.occurrence), 1, None
                elif self._is_hopeless(error):
                    continue
                self._waiting.appendleft(event)
                await asyncio.sleep(delays.after(error, 0.0))

    def _new(self, occurrence: Occurrence) -> _Written:
        namespace = occurrence.regarding.name.namespace or "default"
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        return _Written(path=path, name=_name(occurrence), occurrence=occurrence)

    async def _await_turn(self) -> None:
        now = time.monotonic()
        self._allowance = min(float(BURST), self._allowance + (now - self._counted_at) / SECONDS_PER_EVENT)
        self._counted_at = now
        if self._allowance < 1:
            await asyncio.sleep((1 - self._allowance) * SECONDS_PER_EVENT)
        self._allowance -= 1

    async def _write(self, event: _Written) -> None:
        if event.written_at is not None:
            series = {"series": {"count": event.count, "lastObservedTime": _now()}}
            path = f"{event.path}/{event.name}"
            await self._client.send("PATCH", path, series, "application/merge-patch+json")
        else:
            await self._client.send("POST", event.path, self._body(event))
        event.written_at = time.monotonic()
        event.is_waiting = False

    def _body(self, event: _Written) -> dict[str, Any]:
        occurrence = event.occurrence
        kind, (namespace, name) = occurrence.regarding
        regarding = {"apiVersion": _API_VERSIONS[kind], "kind": kind, "name": name, "uid": occurrence.uid}
        if namespace:
            regarding["namespace"] = namespace
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": event.name, "namespace": namespace or "default"},
            "eventTime": _now(),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "type": "Warning" if occurrence.is_warning else "Normal",
            "reason": occurrence.reason,
            "action": occurrence.action,
            "note": occurrence.note.encode()[:_LONGEST_NOTE].decode(errors="ignore"),
            "regarding": regarding,
        }

    @staticmethod
    def _has_expired(event: _Written, error: Exception) -> bool:
        """Whether what would be counted on is gone: the API server keeps events for an hour, as a rule."""
        is_gone = isinstance(error, ApiError) and error.status == HTTPStatus.NOT_FOUND
        return is_gone and event.written_at is not None

    def _is_hopeless(self, error: Exception) -> bool:
        """Whether it makes no sense to try again: what the server refuses once it refuses again."""
        if not isinstance(error, ApiError) or error.status in _AGAIN:
            return False
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return False
        if error.status == HTTPStatus.FORBIDDEN:
            self._is_refused = True
            self._waiting.clear()
        _log.warning("event_refused", reason=str(error))
        return True


def _name(occurrence: Occurrence) -> str:
    return f"{occurrence.regarding.name.name}.{time.time_ns():x}"  # noqa: TID251 - only has to be new


def _now() -> str:
    now = datetime.now(UTC)  # noqa: TID251 - for people
    return now.isoformat(timespec="microseconds").replace("+00:00", "Z")
