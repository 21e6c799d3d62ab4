# SPDX-License-Identifier: Apache-2.0
"""UDP sockets and Services: replies carry the Service's address, backends are kept, and nothing is forgotten."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.kernel.programs.conftest import Node
from tests.kernel.programs.service_maps import EXTERNAL_IP, UDP, Endpoint
from tests.kernel.servers import udp_ask, udp_server

CLUSTER = "10.96.0.10"
CLUSTER_V6 = "fd00:96::10"
SOCKET_ORIGINS_FULL = 7
KEPT = 8
"""Frontends that a socket remembers by itself."""
Reply = tuple[str, tuple[str, int]]


@contextlib.contextmanager
def datagram_socket(family: int = socket.AF_INET) -> Iterator[socket.socket]:
    """Open a UDP socket that does not wait for ever."""
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        yield client


def ask(client: socket.socket, address: str, port: int) -> Reply:
    """Send a datagram without connecting; return who answers, and from where the answer seems to come."""
    client.sendto(b"?", (address, port))
    data, source = client.recvfrom(1000)
    return data.decode().split()[0], source[:2]


def ask_once(address: str, port: int, family: int) -> Reply:
    """Ask from a new socket."""
    with datagram_socket(family) as client:
        return ask(client, address, port)


def connected(address: str, port: int, family: int) -> tuple[str, tuple[str, int], tuple[str, int]]:
    """Ask from a connected socket; return who answers, recvfrom()'s source and the peer's name."""
    with datagram_socket(family) as client:
        client.connect((address, port))
        client.send(b"?")
        data, source = client.recvfrom(1000)
        return data.decode().split()[0], source[:2], client.getpeername()[:2]


CASES = [
    (CLUSTER, "10.1.1.1", socket.AF_INET),
    (CLUSTER_V6, "fd00:1::11", socket.AF_INET6),
    (f"::ffff:{CLUSTER}", "10.1.1.1", socket.AF_INET6),
]


@pytest.mark.parametrize(("address", "endpoint", "family"), CASES)
def test_replies_carry_the_services_address(node: Node, address: str, endpoint: str, family: int) -> None:
    """Connected or not; for a connected socket the peer is the Service too."""
    service = node.maps.service([node.serve_udp("server", endpoint)])
    node.maps.frontend(service, address.removeprefix("::ffff:"), 53, UDP)
    assert node.run(ask_once, address, 53, family) == ("server", (address, 53))
    assert node.run(connected, address, 53, family) == ("server", (address, 53), (address, 53))
    assert node.maps.count("service_counters") == {service: (2, 0)}


def test_an_ipv6_socket_connects_by_an_ipv4_address(node: Node) -> None:
    """connect() of a plain IPv4 address is an error on such a socket; the programs must not turn it into another."""
    node.maps.frontend(node.maps.service([node.serve_udp("server", "10.1.1.1")]), CLUSTER, 53, UDP)
    with pytest.raises(OSError, match="Address family"):
        node.run(connected, CLUSTER, 53, socket.AF_INET6)


def test_sockets_spread_over_the_endpoints(node: Node) -> None:
    """Each socket stays with its endpoint, and is counted once."""
    endpoints = [node.serve_udp(f"server{number}", f"10.1.1.{number}") for number in range(1, 4)]
    service = node.maps.service(endpoints)
    node.maps.frontend(service, CLUSTER, 53, UDP)

    def spread() -> list[set[str]]:
        seen = []
        for _ in range(30):
            with datagram_socket() as client:
                seen.append({ask(client, CLUSTER, 53)[0] for _ in range(3)})
        return seen

    seen = node.run(spread)
    assert {len(names) for names in seen} == {1}
    assert set.union(*seen) == {"server1", "server2", "server3"}
    assert node.maps.count("service_counters") == {service: (30, 0)}


def test_a_socket_keeps_its_backend_while_it_serves(node: Node) -> None:
    """Whatever the set becomes; once the backend's generation moves on, the next datagram goes elsewhere."""
    first, second = (node.serve_udp(f"server{number}", f"10.1.1.{number}") for number in (1, 2))
    service = node.maps.service()
    old = node.maps.publish(service, [first])[0]
    node.maps.frontend(service, CLUSTER, 53, UDP)

    def story() -> list[Reply]:
        with datagram_socket() as client:
            replies = [ask(client, CLUSTER, 53)]
            node.maps.publish(service, [second])
            replies += [ask(client, CLUSTER, 53), ask_once(CLUSTER, 53, socket.AF_INET)]
            node.maps.retire(old)
            return [*replies, ask(client, CLUSTER, 53)]

    told = node.run(story)
    assert [name for name, _ in told] == ["server1", "server1", "server2", "server2"]
    assert {source for _, source in told} == {(CLUSTER, 53)}


def test_a_late_reply_of_the_former_backend_is_the_services(node: Node) -> None:
    """The datagram crossed the change; the socket asked the Service, and that is who answers."""
    service = node.maps.service()
    first, second = (node.make_pod(f"pod{number}", f"10.1.1.{number}") for number in (1, 2))
    late = node.background(first, node.cgroup, late_server, "10.1.1.1")
    node.background(second, node.cgroup, udp_server, "second", "10.1.1.2", 5353)
    old = node.maps.publish(service, [("10.1.1.1", 5353)])[0]
    node.maps.frontend(service, CLUSTER, 53, UDP)

    def story() -> list[Reply]:
        with datagram_socket() as client:
            client.sendto(b"?", (CLUSTER, 53))
            node.maps.retire(old)
            node.maps.publish(service, [("10.1.1.2", 5353)])
            replies = [ask(client, CLUSTER, 53)]
            client.sendto(b"now", ("10.1.1.1", 5354))
            data, source = client.recvfrom(1000)
            return [*replies, (data.decode(), source)]

    assert node.run(story) == [("second", (CLUSTER, 53)), ("late", (CLUSTER, 53))]
    assert late.alive


def late_server(address: str) -> Iterator[int]:
    """Answer a datagram to 5353 only when another comes to 5354."""
    with datagram_socket() as server, datagram_socket() as signal:
        server.settimeout(None)
        server.bind((address, 5353))
        signal.bind((address, 5354))
        yield 5353
        _, client = server.recvfrom(1000)
        signal.recvfrom(1000)
        server.sendto(b"late", client)
        yield 0


def test_a_withdrawn_frontend_is_not_used_on(node: Node) -> None:
    """A socket that used it meets what is there now: an unknown port of a ClusterIP."""
    service = node.maps.service([node.serve_udp("server", "10.1.1.1")])
    origin = node.maps.frontend(service, CLUSTER, 53, UDP)

    def story() -> int:
        with datagram_socket() as client:
            ask(client, CLUSTER, 53)
            node.maps.withdraw(origin, CLUSTER, 53, UDP)
            try:
                client.sendto(b"?", (CLUSTER, 53))
            except OSError as error:
                return error.errno or -1
            return 0

    assert node.run(story) in (errno.ECONNREFUSED, 0)  # 0 where the kernel leads it to a closed port
    assert node.maps.count("reason_counters") == {4: (1,)}


def test_of_two_frontends_of_one_backend_the_last_used_answers(node: Node) -> None:
    """The datagrams do not say; what was asked last is the best guess."""
    service = node.maps.service([node.serve_udp("server", "10.1.1.1")])
    node.maps.frontend(service, CLUSTER, 53, UDP)
    node.maps.frontend(service, "192.0.2.7", 53, UDP, EXTERNAL_IP)

    def in_turn() -> list[str]:
        with datagram_socket() as client:
            return [ask(client, address, 53)[1][0] for address in (CLUSTER, "192.0.2.7", CLUSTER, CLUSTER, "192.0.2.7")]

    assert node.run(in_turn) == [CLUSTER, "192.0.2.7", CLUSTER, CLUSTER, "192.0.2.7"]


def test_a_backend_that_is_asked_directly_answers_for_itself(node: Node) -> None:
    """Also on a socket that used it through the Service before; and the Service's name comes back with its use."""
    server = node.serve_udp("server", "10.1.1.1")
    node.maps.frontend(node.maps.service([server]), CLUSTER, 53, UDP)

    def in_turn() -> list[tuple[str, int]]:
        with datagram_socket() as client:
            asked = [(CLUSTER, 53), server, server, (CLUSTER, 53), server]
            sources = [ask(client, *address)[1] for address in asked]
            client.connect(server)
            return [*sources, client.getpeername()]

    assert node.run(in_turn) == [(CLUSTER, 53), server, server, (CLUSTER, 53), server, server]


def many_frontends(node: Node, count: int) -> list[Endpoint]:
    """Let one server be a number of services, each with a port of its own on both sides."""
    pod = node.make_pod("server", "10.1.1.1")
    node.background(pod, node.cgroup, ports_server, "10.1.1.1", count)
    for number in range(count):
        service = node.maps.service([("10.1.1.1", 5000 + number)])
        node.maps.frontend(service, CLUSTER, 1000 + number, UDP)
    return [(CLUSTER, 1000 + number) for number in range(count)]


def ports_server(address: str, count: int) -> Iterator[int]:
    """Serve ports from 5000 on, all in one process; each answers with its number."""
    import select  # noqa: PLC0415 -- in the child only

    servers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for number, server in enumerate(servers):
        server.bind((address, 5000 + number))
    yield 5000
    while True:
        for server in select.select(servers, [], [])[0]:
            _, client = server.recvfrom(1000)
            if client[1]:  # else another thread gave up the client's port while this one was sending
                server.sendto(str(server.getsockname()[1] - 5000).encode(), client)


def ask_all(client: socket.socket, frontends: list[Endpoint]) -> None:
    """Ask all frontends before reading any answer; each answer must name the frontend that was asked."""
    for frontend in frontends:
        client.sendto(b"?", frontend)
    for _ in frontends:
        data, source = client.recvfrom(1000)
        assert source == frontends[int(data)]


@pytest.mark.parametrize("count", [KEPT, KEPT + 1, 5 * KEPT])
def test_a_socket_may_use_many_services_at_once(make_node: Callable[..., Node], count: int) -> None:
    """None of the answers is taken for another's; what did not fit the socket is gone when it is closed."""
    node = make_node()
    frontends = many_frontends(node, count)

    def story() -> int:
        with datagram_socket() as client:
            ask_all(client, frontends)
            ask_all(client, frontends)
            return node.maps.entries_of("socket_origins_overflow")

    assert (node.run(story) > 0) == (count > KEPT)
    assert node.maps.entries_of("socket_origins_overflow") == 0


def test_a_socket_whose_memory_is_full_is_told(make_node: Callable[..., Node]) -> None:
    """ENOBUFS for the frontend that is too much, rather than an answer under a wrong name; the others go on."""
    node = make_node(socket_origins_overflow=4)
    frontends = many_frontends(node, KEPT + 5)

    def story() -> list[int]:
        errors = []
        with datagram_socket() as client:
            for _ in range(2):
                ask_all(client, frontends[: KEPT + 4])
            try:
                client.sendto(b"?", frontends[-1])
            except OSError as error:
                errors.append(error.errno or -1)
            ask(client, *frontends[KEPT + 3])
        return errors

    assert node.run(story) in ([errno.ENOBUFS], [errno.EPERM])  # EPERM where no other error can be named
    assert node.maps.count("reason_counters") == {SOCKET_ORIGINS_FULL: (1,)}
    assert node.maps.entries_of("socket_origins_overflow") == 0


def test_pairs_of_backends_that_are_gone_make_room(make_node: Callable[..., Node]) -> None:
    """A socket that lives through endless changes of endpoints is never full."""
    node = make_node(backends=3000, slots=3000, socket_origins_overflow=16)
    service = node.maps.service()
    node.maps.frontend(service, CLUSTER, 53, UDP)

    def story() -> int:
        with datagram_socket() as client:
            for number in range(1000):
                backend = node.maps.publish(service, [("10.1.1.1", 1 + number)])[0]
                client.sendto(b"?", (CLUSTER, 53))
                node.maps.retire(backend)
        return node.maps.entries_of("socket_origins_overflow")

    assert node.run(story) == 0
    assert node.maps.count("reason_counters") == {}


def test_other_datagrams_are_untouched(node: Node) -> None:
    """What is no Service's has its own source, on sockets that use Services and on others."""
    direct = node.serve_udp("direct", "10.1.1.1")
    node.maps.frontend(node.maps.service([node.serve_udp("server", "10.1.1.2")]), CLUSTER, 53, UDP)

    def story() -> list[Reply]:
        with datagram_socket() as client:
            return [ask(client, *direct), ask(client, CLUSTER, 53), ask(client, *direct)]

    assert node.run(story) == [("direct", direct), ("server", (CLUSTER, 53)), ("direct", direct)]
    assert node.run(udp_ask, *direct).startswith("direct")


SOLE_ORIGINS = 1 << 15
SO_COOKIE = 57


def cookie_of(client: socket.socket) -> int:
    """Return a socket's cookie, which the kernel gives it at the first request."""
    return int.from_bytes(client.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), sys.byteorder)


@contextlib.contextmanager
def rivals() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Open two sockets whose cookies name the same place in sole_origins."""
    with contextlib.ExitStack() as opened:
        # Cookies are consecutive; one of many places is met again as soon as they come round.
        earlier = [opened.enter_context(datagram_socket()) for _ in range(300)]
        places = {cookie_of(client) % SOLE_ORIGINS: client for client in earlier}
        for _ in range(20 * SOLE_ORIGINS):
            later = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            first = places.get(cookie_of(later) % SOLE_ORIGINS)
            if first:
                later.settimeout(5)
                yield first, opened.enter_context(later)
                return
            later.close()
        pytest.fail("no cookie named the same place")


def places_taken(node: Node) -> int:
    """Return how many places of sole_origins belong to a socket."""
    return sum(any(value[8:16]) for _, value in node.maps.store.entries_of("sole_origins"))


def test_sockets_whose_cookies_meet_keep_apart(node: Node) -> None:
    """One place for two sockets: the later one remembers elsewhere; closing gives the place back."""
    frontends = many_frontends(node, 2)

    def story() -> list[int]:
        with rivals() as (client, rival):
            for asker, frontend in ((client, 0), (rival, 1), (client, 0), (rival, 1), (rival, 0), (client, 1)):
                assert ask(asker, *frontends[frontend]) == (str(frontend), frontends[frontend])
            taken = [places_taken(node)]
        with rivals() as (client, rival):
            ask(rival, *frontends[0])
            ask(client, *frontends[1])
            rival.close()
            assert ask(client, *frontends[1]) == ("1", frontends[1])
            return [*taken, places_taken(node)]

    assert node.run(story) == [0, 0]
    assert node.run(ask_once, CLUSTER, 1000, socket.AF_INET) == ("0", frontends[0])
    assert places_taken(node) == 0


def test_a_socket_with_one_frontend_has_one_place(node: Node) -> None:
    """Until it is closed."""
    frontends = many_frontends(node, 1)

    def story() -> int:
        with datagram_socket() as client:
            ask(client, *frontends[0])
            ask(client, *frontends[0])
            return places_taken(node)

    assert node.run(story) == 1
    assert places_taken(node) == 0
