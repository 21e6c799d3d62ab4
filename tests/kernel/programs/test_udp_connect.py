# SPDX-License-Identifier: Apache-2.0
"""connect() of UDP sockets again and again, and to nothing: what a socket remembers stays right, and is given back."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from tests.kernel.programs.conftest import Node
from tests.kernel.programs.service_maps import Endpoint
from tests.kernel.programs.test_tcp import disconnect
from tests.kernel.programs.test_udp import KEPT, Reply, ask, ask_all, datagram_socket, many_frontends, places_taken

ATTEMPTS = 60
"""For an answer, five seconds each: an emulated machine is twenty times slower than others."""


def test_the_last_connect_counts(node: Node) -> None:
    """Without being disconnected in between, and back again."""
    frontends = many_frontends(node, 2)

    def story() -> list[tuple[Endpoint, Reply]]:
        seen = []
        with datagram_socket() as client:
            for number in (0, 1, 0):
                client.connect(frontends[number])
                client.send(b"?")
                data, source = client.recvfrom(1000)
                seen.append((client.getpeername(), (data.decode(), source)))
        return seen

    first, second = (frontends[0], ("0", frontends[0])), (frontends[1], ("1", frontends[1]))
    assert node.run(story) == [first, second, first]


def test_an_answer_that_waits_keeps_its_name(node: Node) -> None:
    """Also if the socket is disconnected and uses something else before it reads the answer."""
    frontends = many_frontends(node, 3)

    def story() -> Endpoint:
        with datagram_socket() as client:
            ask_all(client, frontends[:2])
            client.sendto(b"?", frontends[0])
            client.recv(1000, socket.MSG_PEEK)  # it is there
            disconnect(client)
            client.connect(frontends[2])
            source: Endpoint = client.recvfrom(1000)[1]
            return source

    assert node.run(story) == frontends[0]


def test_a_disconnected_socket_gives_everything_back(make_node: Callable[..., Node]) -> None:
    """Whatever it does before it is closed."""
    node = make_node()
    frontends = many_frontends(node, KEPT + 5)

    def story() -> int:
        with datagram_socket() as client:
            ask_all(client, frontends)
            displaced = node.maps.entries_of("socket_origins_overflow")
            disconnect(client)
            client.connect(frontends[0])
            return displaced

    assert node.run(story) > 0
    assert node.maps.entries_of("socket_origins_overflow") == 0
    assert places_taken(node) == 0


def use_at_random(client: socket.socket, frontends: list[Endpoint], seed: int) -> None:
    """Send, connect and disconnect, and leave the answers to others."""
    chance = random.Random(seed)  # noqa: S311 -- no secret
    for _ in range(1000):
        what, frontend = chance.random(), chance.choice(frontends)
        if what < 0.02:
            disconnect(client)
        elif what < 0.04:
            client.connect(frontend)
        else:
            client.sendto(b"?", frontend)


def wait_for_server(frontends: list[Endpoint]) -> None:
    """Return when nothing is left of a flood: while there is, a slow machine loses datagrams."""
    with datagram_socket() as client:
        for number, frontend in enumerate(frontends):
            answer, attempts = "", 0
            while answer != str(number):
                attempts += 1
                assert attempts < ATTEMPTS, f"no answer of server {number}"
                with suppress(TimeoutError):
                    answer, _ = ask(client, *frontend)


def test_threads_share_a_socket(make_node: Callable[..., Node]) -> None:
    """Whatever they do at the same time, no answer is taken for another's, and nothing is left of the socket."""
    node = make_node()
    frontends = many_frontends(node, 5 * KEPT)

    def story() -> None:
        with datagram_socket() as client:
            threads = [threading.Thread(target=use_at_random, args=(client, frontends, seed)) for seed in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            wait_for_server(frontends)
            disconnect(client)
            ask_all(client, frontends)

    node.run(story)
    assert node.maps.count("reason_counters") == {}
    assert node.maps.entries_of("socket_origins_overflow") == 0
    assert places_taken(node) == 0
