# SPDX-License-Identifier: Apache-2.0
"""Servers that say who they are and whom they saw, so that a test knows where its connection went."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator


def family_of(address: str) -> socket.AddressFamily:
    """Return the socket family of an address."""
    return socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET


def tcp_server(name: str, address: str, port: int = 0) -> Iterator[int]:
    """Yield the port; answer each connection with ``name client-address client-port``, then echo until it ends."""
    with socket.create_server((address, port), family=family_of(address), backlog=128) as listener:
        yield listener.getsockname()[1]
        while True:
            connection, client = listener.accept()
            threading.Thread(target=_serve, args=(connection, f"{name} {client[0]} {client[1]}"), daemon=True).start()


def _serve(connection: socket.socket, greeting: str) -> None:
    with connection:
        connection.sendall(greeting.encode() + b"\n")
        while data := connection.recv(65536):
            connection.sendall(data)


def udp_server(name: str, address: str, port: int = 0) -> Iterator[int]:
    """Yield the port; answer each datagram with ``name client-address client-port``."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        yield server.getsockname()[1]
        while True:
            _, client = server.recvfrom(65536)
            server.sendto(f"{name} {client[0]} {client[1]}".encode(), client)


def tcp_ask(address: str, port: int, timeout: float = 5) -> str:
    """Connect and return the server's greeting."""
    with socket.create_connection((address, port), timeout=timeout) as connection:
        return connection.makefile().readline().strip()


def udp_ask(address: str, port: int, timeout: float = 5) -> str:
    """Connect a datagram socket, ask and return the answer."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.connect((address, port))
        client.send(b"?")
        return client.recv(65536).decode()
