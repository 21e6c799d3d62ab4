# SPDX-License-Identifier: Apache-2.0
"""One UDP socket that uses as many Services as a socket is sure to have room for."""

from __future__ import annotations

import resource
import selectors
import socket
from collections.abc import Callable, Iterator

from tests.kernel.programs.conftest import Node
from tests.kernel.programs.service_maps import UDP, Endpoint

CLUSTER, SERVER = "10.96.0.10", "10.1.1.1"
FIRST_FRONTEND, FIRST_BACKEND = 20_000, 5000
STORED, DISPLACED = 8, 1024
"""SOCKET_ORIGINS and SOCKET_OVERFLOW_LIMIT of map_types.h."""
LIMIT = STORED + DISPLACED
ROOM = 2048
BURST = 64
"""Datagrams that a socket buffer surely has room for."""


def numbers_server(count: int) -> Iterator[int]:
    """Serve as many ports in one process; each answers with its number."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (ROOM, ROOM))
    selector = selectors.DefaultSelector()
    for number in range(count):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((SERVER, FIRST_BACKEND + number))
        selector.register(server, selectors.EVENT_READ, (server, str(number).encode()))
    yield count
    while True:
        for ready, _ in selector.select():
            server, answer = ready.data
            _, client = server.recvfrom(1000)
            server.sendto(answer, client)


def ask_each(client: socket.socket, frontends: list[Endpoint]) -> list[Endpoint]:
    """Ask all frontends, some at a time; return from where the answer to each seems to come."""
    sources: dict[int, Endpoint] = {}
    for start in range(0, len(frontends), BURST):
        burst = frontends[start : start + BURST]
        for frontend in burst:
            client.sendto(b"?", frontend)
        for _ in burst:
            data, source = client.recvfrom(1000)
            sources[int(data)] = source
    return [sources[number] for number in range(len(frontends))]


def test_a_socket_uses_a_thousand_services(make_node: Callable[..., Node]) -> None:
    """Each answer carries its Service's address, however often they take turns.

    One that returns from the overflow leaves nothing there, and a socket that is closed leaves nothing at all.
    """
    sizes = dict.fromkeys(("frontends", "services", "slots", "backends", "origins", "socket_origins_overflow"), ROOM)
    node = make_node(**sizes)
    pod = node.make_pod("server", SERVER)
    node.background(pod, node.cgroup, numbers_server, LIMIT)
    frontends = [(CLUSTER, FIRST_FRONTEND + number) for number in range(LIMIT)]
    for number, (address, port) in enumerate(frontends):
        node.maps.frontend(node.maps.service([(SERVER, FIRST_BACKEND + number)]), address, port, UDP)

    def story() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            # Again and again, so that each comes back after it was displaced.
            for _ in range(3):
                assert ask_each(client, frontends) == frontends
            assert ask_each(client, frontends[:1]) == frontends[:1]
            return node.maps.entries_of("socket_origins_overflow")

    assert node.run(story) == DISPLACED
    assert node.maps.count("reason_counters") == {}
    assert node.maps.entries_of("socket_origins_overflow") == 0
