# SPDX-License-Identifier: Apache-2.0
"""A small API server in a thread: lists, parts of lists, watches, streaming lists, and whatever can go wrong."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from tests import raw_objects
from tests.api_answers import LAST_BOOKMARK, Fault, bookmark, event, refusal

T = TypeVar("T")

SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
CIDRS = "/apis/networking.k8s.io/v1/servicecidrs"
NODES = "/api/v1/nodes"
EVENTS = "/apis/events.k8s.io/v1/namespaces"
KINDS = {SERVICES: "Service", SLICES: "EndpointSlice", CIDRS: "ServiceCIDR", NODES: "Node"}


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any = None


@dataclass
class ApiServer:
    """Enter it to start it. Everything may be called from the test's own thread."""

    streams_lists: bool = True
    knows_field_selector: bool = True
    has_cidrs: bool = True
    tokens: frozenset[str] | None = None
    """Those that are let in; None: everybody is."""
    port: int = 0
    enter: Callable[[], None] = field(default=lambda: None)
    """Called in the server's thread at first: into a network namespace, for example."""
    tls: ssl.SSLContext | None = None
    seen: list[Seen] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    """By path: each takes the place of the answer to one request."""
    version: int = 100
    _objects: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {path: {} for path in KINDS})
    _history: dict[str, list[tuple[int, bytes]]] = field(default_factory=lambda: {path: [] for path in KINDS})
    _oldest: int = 0
    _watches: dict[str, list[web.StreamResponse]] = field(default_factory=lambda: {path: [] for path in KINDS})

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def put(self, path: str, raw: dict[str, Any], uid: str) -> None:
        """Create or change an object."""
        self._call(self._put(path, raw, uid))

    def delete(self, path: str, uid: str) -> None:
        """Delete an object."""
        self._call(self._delete(path, uid))

    def compact(self) -> None:
        """Forget what was: watches can begin at the present state only."""
        self._oldest = self.version
        for history in self._history.values():
            history.clear()

    def send(self, path: str, line: bytes) -> None:
        """Send something to whoever watches."""
        self._call(self._send(path, line))

    def break_watches(self, path: str) -> None:
        """Reset the connections of whoever watches."""
        self._call(self._break(path))

    def watches(self, path: str) -> int:
        """Return how many watch."""
        return len(self._watches[path])

    def requests(self, path: str) -> list[Seen]:
        """Return the requests that came for something."""
        return [seen for seen in self.seen if seen.path == path]

    def start(self) -> None:
        """Answer, on the same port as before."""
        self._call(self._start())

    def stop(self) -> None:
        """Do not answer any more; reset every connection."""
        self._call(self._stop())

    def kubeconfig(self, folder: Path, cluster: Mapping[str, object] | None = None, **user: object) -> Path:
        """Write a kubeconfig that leads here."""
        file = folder / "kubeconfig"
        document = {
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url, **(cluster or {})}}],
            "users": [{"name": "test", "user": user}],
        }
        file.write_text(json.dumps(document))
        return file

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._runner: web.AppRunner | None = None
        self.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        self.enter()
        self._loop.run_forever()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _start(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=self.tls)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]  # it was started

    async def _stop(self) -> None:
        for path in KINDS:
            await self._break(path)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.seen.append(Seen(request.method, request.path, dict(request.query), dict(request.headers), body))
        waiting = self.faults.get(request.path)
        if waiting:
            return await waiting.pop(0)(request)
        refused = self._refusal(request)
        if refused is not None:
            return refused
        if request.path.startswith(EVENTS):
            return web.json_response({}, status=201)
        return await self._watch(request) if request.query.get("watch") == "true" else self._list(request)

    def _refusal(self, request: web.Request) -> web.Response | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens is not None and token not in self.tokens:
            return refusal(401, "Unauthorized")
        is_there = request.path in KINDS or request.path.startswith(EVENTS)
        if not is_there or (request.path == CIDRS and not self.has_cidrs):
            return refusal(404, "the server could not find the requested resource")
        if "fieldSelector" in request.query and request.path == SERVICES and not self.knows_field_selector:
            return refusal(400, "field label not supported: spec.clusterIP")
        if request.query.get("sendInitialEvents") == "true" and not self.streams_lists:
            return refusal(422, "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch")
        return None

    def _list(self, request: web.Request) -> web.Response:
        """Return a part of the list; where the next begins says how many came before."""
        limit, begin = int(request.query.get("limit") or 10**9), int(request.query.get("continue") or 0)
        objects = list(self._objects[request.path].values())
        rest = objects[begin + limit :]
        metadata = {"resourceVersion": str(self.version), **({"continue": str(begin + limit)} if rest else {})}
        # As a real one does, items say neither kind nor version.
        items = [
            {key: value for key, value in raw.items() if key not in {"kind", "apiVersion"}}
            for raw in objects[begin : begin + limit]
        ]
        kind = f"{KINDS[request.path]}List"
        return web.json_response({"kind": kind, "apiVersion": "v1", "metadata": metadata, "items": items})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        path, since = request.path, request.query.get("resourceVersion", "")
        lists = request.query.get("sendInitialEvents") == "true"
        if not lists and int(since) < self._oldest:
            return refusal(410, "Expired: too old resource version")
        response = web.StreamResponse()
        response.content_type = "application/json"
        await response.prepare(request)
        if lists:
            lines = [event("ADDED", raw) for raw in self._objects[path].values()]
            lines.append(bookmark(KINDS[path], self.version, LAST_BOOKMARK))
        else:
            lines = [line for version, line in self._history[path] if version > int(since)]
        self._watches[path].append(response)  # and in the same breath, so that nothing comes in between or twice:
        await response.write(b"".join(lines))
        try:
            await asyncio.Event().wait()
        finally:
            with suppress(ValueError):
                self._watches[path].remove(response)
        return response

    async def _put(self, path: str, raw: dict[str, Any], uid: str) -> None:
        self.version += 1
        made = raw_objects.changed(raw, "metadata.uid", uid)
        made["metadata"]["resourceVersion"] = str(self.version)
        is_new = uid not in self._objects[path]
        self._objects[path][uid] = made
        await self._tell(path, event("ADDED" if is_new else "MODIFIED", made))

    async def _delete(self, path: str, uid: str) -> None:
        self.version += 1
        gone = raw_objects.changed(self._objects[path].pop(uid), "metadata.resourceVersion", str(self.version))
        await self._tell(path, event("DELETED", gone))

    async def _tell(self, path: str, line: bytes) -> None:
        self._history[path].append((self.version, line))
        await self._send(path, line)

    async def _send(self, path: str, line: bytes) -> None:
        for response in list(self._watches[path]):
            with suppress(ConnectionError):
                await response.write(line)

    async def _break(self, path: str) -> None:
        for response in list(self._watches[path]):
            request = response._req
            if request is not None and request.transport is not None:
                request.transport.abort()
        self._watches[path].clear()
