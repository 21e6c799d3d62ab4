# SPDX-License-Identifier: Apache-2.0
"""What the faulty proxy's process does: it passes requests on to the API server, and spoils what it is told to."""

from __future__ import annotations

import asyncio
import enum
import json
import re
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
from aiohttp import web
from yarl import URL

WATCH = "watch=(1|true)"
CONTINUE = "continue="
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_PIECE = 1024
_OF_ONE_HOP = {"connection", "transfer-encoding", "content-length", "host", "accept-encoding"}


class Order(enum.Enum):
    """What the proxy can be told; it answers with a number."""

    BEGIN = enum.auto()
    END = enum.auto()
    CLOSE = enum.auto()
    OPEN = enum.auto()
    RESET = enum.auto()
    VICTIMS = enum.auto()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What becomes of the requests of which path and query match a regular expression. One of the rest is given."""

    where: str = ""
    status: int = 0
    """They are answered with this status, and do not reach the server."""
    reason: str = ""
    """What the Status object in that answer names."""
    retry_after: int = 0
    """Seconds, in that answer."""
    is_reset: bool = False
    """Their connections are reset."""
    is_silent: bool = False
    """Nothing comes any more, and nothing ends."""
    seconds_a_piece: float = 0
    """Each KiB of the answer takes so long."""
    is_cut: bool = False
    """The answer ends in good order, but in the middle of what it says: of the next event, if it is a stream."""
    event: str = ""
    """A line that comes first in each stream, or next in those that there are. Then they go on."""
    answer: str = ""
    """The whole answer, with status 200."""

    def response(self) -> web.Response:
        """Return the answer in the server's place."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else None
        said = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": self.status}
        answer = self.answer or json.dumps(said | {"reason": self.reason, "message": "so says the proxy"})
        return web.Response(status=self.status or 200, text=answer, content_type="application/json", headers=headers)


class _Exchange:
    """A request, while it is being answered."""

    def __init__(self, request: web.BaseRequest) -> None:
        self.request = request
        self.is_stream = re.search(WATCH, request.query_string) is not None
        self.response = web.StreamResponse()
        self._unfinished = b""

    async def write(self, data: bytes) -> None:
        """Pass something on: of a stream, whole lines."""
        if self.is_stream:
            lines, newline, self._unfinished = (self._unfinished + data).rpartition(b"\n")
            data = lines + newline
        if data:
            await self.response.write(data)


class _Proxy:
    def __init__(
        self, orders: Connection, server: str, place: tuple[str, int], certificates: tuple[Path, Path, Path]
    ) -> None:
        self._orders, self._server, self._place = orders, server, place
        certificate, key, authority = certificates
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate, key)
        self._upstream_tls = ssl.create_default_context(cafile=authority)
        self._exchanges: set[_Exchange] = set()
        self._faults: tuple[Fault, ...] = ()
        self._is_over = asyncio.Event()
        self._victims = 0
        self._obeying: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self._upstream_tls, limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=None, connect=10)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        self._listener = web.Server(self._answer, handler_cancellation=True)
        self._runner = web.ServerRunner(self._listener)
        await self._runner.setup()
        await self._open()
        asyncio.get_running_loop().add_reader(self._orders.fileno(), self._take_order)

    async def _open(self) -> None:
        host, port = self._place
        self._site = web.TCPSite(self._runner, host, port, ssl_context=self._tls, reuse_address=True)
        await self._site.start()

    def _take_order(self) -> None:
        order, faults = self._orders.recv()
        task = asyncio.ensure_future(self._obey(order, faults))
        self._obeying.add(task)
        task.add_done_callback(self._obeying.discard)

    async def _obey(self, order: Order, faults: tuple[Fault, ...]) -> None:
        answer = 0
        match order:
            case Order.BEGIN:
                self._faults, self._victims, self._is_over = faults, 0, asyncio.Event()
                await self._spoil_what_is_under_way()
            case Order.END:
                self._faults = ()
                self._is_over.set()
            case Order.CLOSE:
                await self._site.stop()
                self._reset_everybody()
            case Order.OPEN:
                await self._open()
            case Order.RESET:
                self._reset_everybody()
            case Order.VICTIMS:
                answer = self._victims
        self._orders.send(answer)

    def _reset_everybody(self) -> None:
        for connection in self._listener.connections:
            _reset(connection.transport)

    def _fault_of(self, exchange: _Exchange) -> Fault | None:
        path = exchange.request.path_qs
        return next((fault for fault in self._faults if re.search(fault.where, path)), None)

    async def _spoil_what_is_under_way(self) -> None:
        for exchange in list(self._exchanges):
            fault = self._fault_of(exchange)
            if fault and fault.is_reset:
                self._victims += 1
                _reset(exchange.request.transport)
            elif fault and fault.event and exchange.is_stream and exchange.response.prepared:
                self._victims += 1
                await exchange.write(fault.event.encode() + b"\n")

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = _Exchange(request)
        self._exchanges.add(exchange)
        try:
            fault = self._fault_of(exchange)
            if fault:
                self._victims += 1
                if fault.status or fault.answer:
                    return fault.response()
                if fault.is_reset:
                    _reset(request.transport)
                if fault.is_silent:
                    await self._is_over.wait()
            return await self._pass_on(exchange)
        finally:
            self._exchanges.discard(exchange)

    async def _pass_on(self, exchange: _Exchange) -> web.StreamResponse:
        request, response = exchange.request, exchange.response
        url = URL(self._server + request.path_qs, encoded=True)
        body, headers = await request.read() or None, _passed(request.headers)
        async with self._session.request(request.method, url, headers=headers, data=body) as upstream:
            response.set_status(upstream.status)
            response.headers.update(_passed(upstream.headers))
            await response.prepare(request)
            fault = self._fault_of(exchange)
            if fault and fault.event and exchange.is_stream:
                await exchange.write(fault.event.encode() + b"\n")
            async for data in upstream.content.iter_any():
                if await self._is_cut(exchange, data):
                    break
                await self._pass_piece_by_piece(exchange, data)
        await response.write_eof()
        return response

    async def _is_cut(self, exchange: _Exchange, data: bytes) -> bool:
        fault = self._fault_of(exchange)
        if fault is None or not fault.is_cut:
            return False
        self._victims += 1
        await exchange.response.write(data[: len(data) // 2])
        return True

    async def _pass_piece_by_piece(self, exchange: _Exchange, data: bytes) -> None:
        fault = self._fault_of(exchange)
        if fault and fault.is_silent:
            await self._is_over.wait()
        elif fault and fault.seconds_a_piece:
            for start in range(0, len(data), _PIECE):
                await asyncio.sleep(fault.seconds_a_piece)
                await exchange.write(data[start : start + _PIECE])
            return
        await exchange.write(data)


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _OF_ONE_HOP}


def _reset(transport: asyncio.BaseTransport | None) -> None:
    if isinstance(transport, asyncio.WriteTransport):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()


def serve(
    orders: Connection, server: str, place: tuple[str, int], certificates: tuple[Path, Path, Path]
) -> Iterator[int]:
    """Yield the port, then pass on and obey without end.

    ``certificates``: the proxy's certificate, its key, and the authority that signed the server's.
    """
    loop = asyncio.new_event_loop()
    proxy = _Proxy(orders, server, place, certificates)
    loop.run_until_complete(proxy.start())
    yield place[1]
    loop.run_forever()
