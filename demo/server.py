# SPDX-License-Identifier: Apache-2.0
"""The server in each pod: it answers with its name, so that a client sees which endpoint it reached."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any, cast


class NamedStream(asyncio.Protocol):
    """Says its name to whoever connects, then echoes."""

    def __init__(self, name: str) -> None:
        """Remember the name."""
        self._greeting = f"{name}\n".encode()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say the name."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(self._greeting)

    def data_received(self, data: bytes) -> None:
        """Echo."""
        if self._transport is not None:
            self._transport.write(data)


class NamedDatagrams(asyncio.DatagramProtocol):
    """Answers each datagram with its name."""

    def __init__(self, name: str) -> None:
        """Remember the name."""
        self._answer = f"{name}\n".encode()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, _data: bytes, addr: Any) -> None:  # noqa: ANN401 (the type of asyncio)
        """Say the name."""
        if self._transport is not None:
            self._transport.sendto(self._answer, addr)


class Server(threading.Thread):
    """Answers on a port, over TCP and UDP, IPv4 and IPv6, until told to stop; connections that it has go on."""

    def __init__(self, name: str, port: int) -> None:
        """Prepare; it listens once ``start`` was called and ``listening`` is set."""
        super().__init__(daemon=True)
        self.listening = threading.Event()
        self._server_name, self._port = name, port
        self._loop = asyncio.new_event_loop()
        self._stopping, self._stopped = asyncio.Event(), threading.Event()

    def run(self) -> None:
        """Serve, for ever."""
        self._loop.run_until_complete(self._serve())

    def stop(self) -> None:
        """Listen no more."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._stopped.wait()

    async def _serve(self) -> None:
        streams = socket.create_server(("::", self._port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
        server = await self._loop.create_server(lambda: NamedStream(self._server_name), sock=streams)
        datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        datagrams.bind(("::", self._port))
        answering, _ = await self._loop.create_datagram_endpoint(
            lambda: NamedDatagrams(self._server_name), sock=datagrams
        )
        self.listening.set()
        await self._stopping.wait()
        # asyncio forgets, open, what was accepted but has no protocol yet when its server is closed.
        self._loop.remove_reader(streams)
        await asyncio.sleep(0)
        server.close()
        answering.close()
        self._stopped.set()
        await asyncio.Event().wait()
