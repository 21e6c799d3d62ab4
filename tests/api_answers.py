# SPDX-License-Identifier: Apache-2.0
"""What an API server says: events, errors, and answers that are neither."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]
LAST_BOOKMARK = {"annotations": {"k8s.io/initial-events-end": "true"}}


def event(kind: str, raw: Mapping[str, Any]) -> bytes:
    """Return an event as a line."""
    return json.dumps({"type": kind, "object": raw}).encode() + b"\n"


def bookmark(kind: str, version: int, metadata: Mapping[str, Any] | None = None) -> bytes:
    """Return a bookmark as a line."""
    return event("BOOKMARK", {"kind": kind, "metadata": {"resourceVersion": str(version), **(metadata or {})}})


def status(code: int, message: str) -> dict[str, Any]:
    """Return what a server says when something is wrong."""
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}


def refusal(code: int, message: str = "no", headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer that is an error."""
    return web.json_response(status(code, message), status=code, headers=headers)


def refusing(code: int, message: str = "no", headers: Mapping[str, str] | None = None) -> Fault:
    """Return a fault that is an error as answer."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return refusal(code, message, headers)

    return answer


def saying(*parts: bytes) -> Fault:
    """Return a fault that answers with these bytes, and ends."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        return response

    return answer


def silent() -> Fault:
    """Return a fault that begins to answer, and then says nothing, for ever."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    return answer
