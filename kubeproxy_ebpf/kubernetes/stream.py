# SPDX-License-Identifier: Apache-2.0
"""A watch's answer, which goes on for minutes, to events: one JSON object a line, of any length."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import aiohttp
import orjson

from kubeproxy_ebpf.kubernetes.errors import BrokenStreamError, ErrorEventError, ListGoneError

LARGEST_EVENT: Final = 64 << 20
INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
"""The annotation of the bookmark that says: that was all there is."""


class WatchEvent(NamedTuple):
    """One event."""

    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    raw: Mapping[str, Any]
    """The object."""
    version: str
    """Its resourceVersion, from which a watch can go on."""

    @property
    def ends_listing(self) -> bool:
        """Whether it is the bookmark after the last of the objects that there were."""
        annotations = self.raw["metadata"].get("annotations")
        return (
            self.type == "BOOKMARK" and isinstance(annotations, dict) and annotations.get(INITIAL_EVENTS_END) == "true"
        )


async def read_lines(response: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    """Yield the lines that have come, as many at a time as there are.

    Raises:
        BrokenStreamError: the answer ends in the middle of a line, or a line does not end.
    """
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        head, newline, tail = chunk.rpartition(b"\n")
        if not newline:
            parts.append(chunk)
            size += len(chunk)
            if size > LARGEST_EVENT:
                msg = f"an event of more than {LARGEST_EVENT >> 20} MiB"
                raise BrokenStreamError(msg)
            continue
        parts.append(head)
        lines = b"".join(parts).split(b"\n")
        parts, size = ([tail], len(tail)) if tail else ([], 0)
        yield lines
    if parts:
        msg = "the middle of an event, and then nothing"
        raise BrokenStreamError(msg)


def parse_event(line: bytes) -> WatchEvent:
    """Parse a line.

    Raises:
        BrokenStreamError: it is no event.
        ListGoneError: the server says that it cannot go on from where the watch began.
        ErrorEventError: the server says that something else went wrong.
    """
    try:
        event = orjson.loads(line)
        kind, raw = event["type"], event["object"]
        if kind in _TYPES:
            version = raw["metadata"]["resourceVersion"]
            if not isinstance(version, str) or not version:
                raise TypeError  # noqa: TRY301 - as for what is missing
            return WatchEvent(kind, raw, version)
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        msg = f"something that is no event: {line[:80]!r}"
        raise BrokenStreamError(msg) from error
    if kind != "ERROR" or not isinstance(raw, dict):
        msg = f"an event of type {kind!r}"
        raise BrokenStreamError(msg)
    raise _error(raw)


_TYPES: Final = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK"})


def _error(status: Mapping[str, Any]) -> Exception:
    code, message = status.get("code"), str(status.get("message", "no reason given"))
    if code == HTTPStatus.GONE:
        return ListGoneError(message)
    details = status.get("details")
    seconds = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    return ErrorEventError(
        code if isinstance(code, int) else HTTPStatus.INTERNAL_SERVER_ERROR,
        message,
        float(seconds) if isinstance(seconds, int) else 0.0,
    )
