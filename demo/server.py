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


async def serve(name: str, port: int, listening: threading.Event) -> None:
    """Answer on the port, over TCP and UDP, IPv4 and IPv6, for ever."""
    loop = asyncio.get_running_loop()
    streams = socket.create_server(("::", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
    await loop.create_server(lambda: NamedStream(name), sock=streams)
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagrams.bind(("::", port))
    await loop.create_datagram_endpoint(lambda: NamedDatagrams(name), sock=datagrams)
    listening.set()
    await asyncio.Event().wait()
