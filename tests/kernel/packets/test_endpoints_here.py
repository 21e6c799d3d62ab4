# SPDX-License-Identifier: Apache-2.0
"""Connections from outside to endpoints on this node: there and back, with the client's address kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.kernel.packets.conftest import SMALL_TABLES, Forward
from tests.kernel.packets.packet import IP, SHOT, TCP, UDP, UNSPEC, Endpoint, IPv6, Packet, ends, network, tcp, udp
from tests.kernel.programs import service_maps
from tests.kernel.programs.service_maps import CLUSTER_IP, EXTERNAL_IP, LOAD_BALANCER, NODE_PORT

CLIENTS: dict[int, Endpoint] = {4: ("198.51.100.7", 40000), 6: ("2001:db8:1::7", 40000)}
FRONTENDS: dict[int, Endpoint] = {4: ("192.0.2.10", 80), 6: ("2001:db8::10", 80)}
BACKENDS: dict[int, Endpoint] = {4: ("10.1.1.1", 8080), 6: ("fd00:1::1", 8080)}
Build = Callable[[Endpoint, Endpoint], Packet]
PROTOCOLS: dict[str, tuple[int, Build, Build]] = {
    "TCP": (service_maps.TCP, lambda a, b: tcp(a, b, "S"), lambda a, b: tcp(a, b, "SA")),
    "UDP": (service_maps.UDP, udp, lambda a, b: udp(a, b, b"answer")),
}
FLOWS_FULL = 12
families = pytest.mark.parametrize("family", [4, 6])
protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


def serve(forward: Forward, family: int, protocol: str = "TCP", kind: int = LOAD_BALANCER, **service: object) -> int:
    """Give the frontend of a family one backend; return the service id."""
    made = forward.maps.service([BACKENDS[family]], **service)  # type: ignore[arg-type]  # handed on
    forward.maps.frontend(made, *FRONTENDS[family], PROTOCOLS[protocol][0], kind)
    return made


@families
@protocols
@pytest.mark.parametrize("kind", [CLUSTER_IP, EXTERNAL_IP, LOAD_BALANCER, NODE_PORT])
def test_there_and_back(forward: Forward, family: int, protocol: str, kind: int) -> None:
    """The endpoint sees the client, and the client sees the frontend; every checksum is right."""
    serve(forward, family, protocol, kind)
    client, frontend, backend = CLIENTS[family], FRONTENDS[family], BACKENDS[family]
    _, request, reply = PROTOCOLS[protocol]
    assert ends(forward.translate("ingress", request(client, frontend))) == (client, backend)
    assert ends(forward.translate("egress", reply(backend, client))) == (frontend, client)


@families
@protocols
def test_only_addresses_and_ports_change(forward: Forward, family: int, protocol: str) -> None:
    """Everything else of a packet stays as it was, its payload too."""
    serve(forward, family, protocol)
    sent = PROTOCOLS[protocol][1](CLIENTS[family], FRONTENDS[family])
    seen = forward.translate("ingress", sent)
    header, ports = (IPv6 if family == 6 else IP), (TCP if protocol == "TCP" else UDP)
    seen[header].dst, seen[ports].dport = FRONTENDS[family]
    for layer in (header, ports):
        if hasattr(seen[layer], "chksum"):
            del seen[layer].chksum
    assert bytes(seen) == bytes(sent)


@families
def test_a_connection_stays_with_its_endpoint(forward: Forward, family: int) -> None:
    """Whatever the Service says later: TCP goes on until it ends by itself."""
    service = serve(forward, family)
    client, frontend, backend = CLIENTS[family], FRONTENDS[family], BACKENDS[family]
    forward.translate("ingress", tcp(client, frontend))
    forward.translate("egress", tcp(backend, client, "SA"))
    forward.maps.publish(service, [])
    for flags in ("A", "PA", "FA", "R"):
        assert ends(forward.translate("ingress", tcp(client, frontend, flags))) == (client, backend)
        assert ends(forward.translate("egress", tcp(backend, client, flags))) == (frontend, client)


@families
def test_an_opening_that_comes_again_follows_the_first(forward: Forward, family: int) -> None:
    """It is sent again when its answer was lost: to the same of many endpoints, and as the same connection."""
    client, frontend = CLIENTS[family], FRONTENDS[family]
    host, port = BACKENDS[family]
    backends = [(f"{host}{digit}", port) for digit in range(10)]
    forward.maps.frontend(forward.maps.service(backends), *frontend, kind=LOAD_BALANCER)
    found = {ends(forward.translate("ingress", tcp(client, frontend))) for _ in range(30)}
    assert len(found) == 1
    assert len(forward.entries("opening_flows")) == 2


@families
def test_a_datagram_leaves_a_backend_that_serves_no_more(forward: Forward, family: int) -> None:
    """With the very next packet of the same flow."""
    other = {4: ("10.1.1.2", 8080), 6: ("fd00:1::2", 8080)}[family]
    service = forward.maps.service()
    (old,) = forward.maps.publish(service, [BACKENDS[family]])
    forward.maps.frontend(service, *FRONTENDS[family], service_maps.UDP, LOAD_BALANCER)
    request = udp(CLIENTS[family], FRONTENDS[family])
    assert ends(forward.translate("ingress", request))[1] == BACKENDS[family]
    forward.maps.publish(service, [other])
    assert ends(forward.translate("ingress", request))[1] == BACKENDS[family], "it still serves"
    forward.maps.retire(old)
    assert ends(forward.translate("ingress", request))[1] == other
    assert ends(forward.translate("egress", udp(other, CLIENTS[family])))[0] == FRONTENDS[family]


@protocols
def test_what_is_answered_twice_stays(forward: Forward, protocol: str) -> None:
    """A connection leaves the table that forgets when its client shows that it got the answer, and not before."""
    serve(forward, 4, protocol)
    client, frontend, backend = CLIENTS[4], FRONTENDS[4], BACKENDS[4]
    _, request, reply = PROTOCOLS[protocol]
    for _ in range(3):
        forward.translate("ingress", request(client, frontend))
    assert len(forward.entries("opening_flows")) == 2
    forward.translate("egress", reply(backend, client))
    assert not forward.entries("flows"), "an answer proves nothing about who asked"
    forward.grow_old("opening_flows")  # what was in vain before the answer is not tried again at once
    forward.translate("ingress", tcp(client, frontend, "A") if protocol == "TCP" else udp(client, frontend))
    assert len(forward.entries("flows")) == 2
    assert not forward.entries("opening_flows")
    assert ends(forward.translate("ingress", request(client, frontend)))[1] == backend
    assert ends(forward.translate("egress", reply(backend, client)))[0] == frontend


def test_a_flood_of_openings_pushes_out_no_connection(forward: Forward) -> None:
    """Ten times as many as the table holds."""
    serve(forward, 4)
    client, frontend, backend = CLIENTS[4], FRONTENDS[4], BACKENDS[4]
    for hook, packet in (
        ("ingress", tcp(client, frontend)),
        ("egress", tcp(backend, client, "SA")),
        ("ingress", tcp(client, frontend, "A")),
    ):
        forward.translate(hook, packet)
    for number in range(640):
        source = (f"203.0.113.{number % 250}", 10000 + number)
        assert ends(forward.translate("ingress", tcp(source, frontend))) == (source, backend)
    assert ends(forward.translate("ingress", tcp(client, frontend, "PA", b"data")))[1] == backend
    assert ends(forward.translate("egress", tcp(backend, client, "A")))[0] == frontend


def test_connections_for_which_there_is_no_room_go_on(forward: Forward) -> None:
    """As such that may be forgotten; those that stand lose nothing, and it is counted."""
    serve(forward, 4)
    frontend, backend = FRONTENDS[4], BACKENDS[4]
    clients = [("203.0.113.1", 10000 + number) for number in range(SMALL_TABLES["flows"] // 2 + 5)]
    for client in clients:
        for hook, packet in (
            ("ingress", tcp(client, frontend)),
            ("egress", tcp(backend, client, "SA")),
            ("ingress", tcp(client, frontend, "A")),
        ):
            forward.translate(hook, packet)
    assert len(forward.entries("flows")) == SMALL_TABLES["flows"]
    assert set(forward.maps.count("reason_counters")) == {FLOWS_FULL}
    for client in clients:
        assert ends(forward.translate("ingress", tcp(client, frontend, "PA", b"data"))) == (client, backend)
        assert ends(forward.translate("egress", tcp(backend, client, "A"))) == (frontend, client)


def crowded_out(forward: Forward) -> tuple[str, int]:
    """Fill the table, and return a client that found no room in it."""
    serve(forward, 4)
    for number in range(SMALL_TABLES["flows"] // 2 + 1):
        client = ("203.0.113.1", 10000 + number)
        for hook, packet in (
            ("ingress", tcp(client, FRONTENDS[4])),
            ("egress", tcp(BACKENDS[4], client, "SA")),
            ("ingress", tcp(client, FRONTENDS[4], "A")),
        ):
            forward.translate(hook, packet)
    return client


def test_room_is_not_looked_for_with_each_packet(forward: Forward) -> None:
    """But from time to time: the rest of its packets go the short way."""
    client = crowded_out(forward)
    before, packets = forward.maps.count("reason_counters")[FLOWS_FULL][0], 200
    for _ in range(packets):
        forward.translate("ingress", tcp(client, FRONTENDS[4], "A"))
    assert forward.maps.count("reason_counters")[FLOWS_FULL][0] - before < packets // 4


def test_what_found_no_room_stays_once_there_is_some(forward: Forward) -> None:
    """The next time that it is looked for."""
    client = crowded_out(forward)
    forward.grow_old()
    for _ in range(2):
        forward.sweep(tcp_established_timeout=1)
    assert not forward.entries("flows")
    forward.grow_old("opening_flows")
    forward.translate("ingress", tcp(client, FRONTENDS[4], "A"))
    assert len(forward.entries("flows")) == 2


def test_a_port_that_is_used_again_is_another_connection(forward: Forward) -> None:
    """A SYN after the end of a connection is judged anew; one before it is the same once more."""
    service = serve(forward, 4)
    client, frontend, other = CLIENTS[4], FRONTENDS[4], ("10.1.1.2", 8080)
    forward.translate("ingress", tcp(client, frontend))
    forward.maps.publish(service, [other])
    assert ends(forward.translate("ingress", tcp(client, frontend)))[1] == BACKENDS[4]
    forward.translate("ingress", tcp(client, frontend, "R"))
    assert ends(forward.translate("ingress", tcp(client, frontend)))[1] == other
    assert ends(forward.translate("egress", tcp(other, client, "SA")))[0] == frontend


def test_a_port_that_is_used_again_while_the_old_connection_is_swept(forward: Forward) -> None:
    """What stood and has ended says nothing of the next: its SYN, sent once more, is the same connection's."""
    service = serve(forward, 4)
    client, frontend, backend = CLIENTS[4], FRONTENDS[4], BACKENDS[4]
    for hook, packet in (
        ("ingress", tcp(client, frontend)),
        ("egress", tcp(backend, client, "SA")),
        ("ingress", tcp(client, frontend, "A")),
        ("egress", tcp(backend, client, "R")),
    ):
        forward.translate(hook, packet)
    assert forward.entries("flows")
    assert ends(forward.translate("ingress", tcp(client, frontend)))[1] == backend
    forward.maps.publish(service, [("10.1.1.2", 8080)])
    assert ends(forward.translate("ingress", tcp(client, frontend)))[1] == backend
    assert ends(forward.translate("egress", tcp(backend, client, "SA")))[0] == frontend


def test_answers_that_are_anothers_by_now(forward: Forward) -> None:
    """A connection that has ended leaves its answers' key to the next; its own port, used again, takes nothing back."""
    service = serve(forward, 4)
    client, frontend, backend, twin = CLIENTS[4], FRONTENDS[4], BACKENDS[4], ("192.0.2.11", 80)
    forward.maps.frontend(service, *twin, kind=LOAD_BALANCER)
    for address, flags in ((frontend, ("S", "A", "FA")), (twin, ("S", "A"))):
        for flag in flags:
            assert ends(forward.translate("ingress", tcp(client, address, flag))) == (client, backend)
            answer = {"S": "SA"}.get(flag, flag)
            assert ends(forward.translate("egress", tcp(backend, client, answer))) == (address, client)
    again = ends(forward.translate("ingress", tcp(client, frontend)))
    assert again[0] != client, "to the endpoint it would be the twin's connection"
    assert ends(forward.translate("egress", tcp(backend, again[0], "SA"))) == (frontend, client)
    assert ends(forward.translate("ingress", tcp(client, twin, "PA", b"data"))) == (client, backend)
    assert ends(forward.translate("egress", tcp(backend, client, "PA", b"data"))) == (twin, client)


@pytest.mark.parametrize("is_refused", [False, True], ids=["with an endpoint", "refused"])
def test_all_segments_of_a_connection_are_treated_alike(forward: Forward, *, is_refused: bool) -> None:
    """A frontend goes while its connection opens: what goes on goes on with all, what is over is over for all."""
    forward.device("192.0.2.1", "2001:db8::1")
    client, frontend = CLIENTS[4], FRONTENDS[4]
    service = forward.maps.service([] if is_refused else [BACKENDS[4]])
    origin = forward.maps.frontend(service, *frontend, kind=LOAD_BALANCER)
    first = ends(forward.translate("ingress", tcp(client, frontend)))
    forward.maps.withdraw(origin, *frontend)
    forward.maps.address(frontend[0], 0)
    expected = (client, frontend) if is_refused else first
    for flags in ("S", "A", "PA"):
        assert ends(forward.translate("ingress", tcp(client, frontend, flags))) == expected


def test_answers_stay_apart_beside_what_is_swept(forward: Forward) -> None:
    """Two frontends with one endpoint, from one port: also while an ended connection lies under the key of answers."""
    serve(forward, 4)
    client, frontend, backend, twin = CLIENTS[4], FRONTENDS[4], BACKENDS[4], ("192.0.2.11", 80)
    forward.maps.frontend(forward.maps.service([backend]), *twin, service_maps.TCP, LOAD_BALANCER)
    for hook, packet in (
        ("ingress", tcp(client, frontend)),
        ("egress", tcp(backend, client, "SA")),
        ("ingress", tcp(client, frontend, "A")),
        ("ingress", tcp(client, frontend, "R")),
        ("egress", tcp(backend, client, "R")),
    ):
        forward.translate(hook, packet)
    assert ends(forward.translate("ingress", tcp(client, frontend))) == (client, backend)
    source, destination = ends(forward.translate("ingress", tcp(client, twin)))
    assert destination == backend
    assert source != client, "another port: answers to the first connection come under the client's own"
    assert ends(forward.translate("egress", tcp(backend, client, "SA")))[0] == frontend


STRANGERS: dict[str, Packet] = {
    "another port of a load balancer's address": tcp(CLIENTS[4], ("192.0.2.10", 81)),
    "another address": tcp(CLIENTS[4], ("192.0.2.11", 80)),
    "another protocol": udp(CLIENTS[4], FRONTENDS[4]),
    "a TCP connection that nobody saw begin": tcp(CLIENTS[4], FRONTENDS[4], "A"),
    "an answer that nobody asked for": tcp(CLIENTS[4], FRONTENDS[4], "SA"),
    "a reset": tcp(CLIENTS[4], FRONTENDS[4], "R"),
    "ping": network("198.51.100.7", "192.0.2.10", proto=1) / b"\x08\x00\xf7\xff\0\0\0\0",
}


@pytest.mark.parametrize("packet", STRANGERS.values(), ids=STRANGERS.keys())
@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_what_is_no_services_is_left_alone(forward: Forward, hook: str, packet: Packet) -> None:
    """Not a bit of it changes, and nothing is remembered."""
    serve(forward, 4)
    assert forward.run(hook, packet) == (UNSPEC, bytes(packet))
    assert not forward.entries("opening_flows")


REFUSED: dict[str, tuple[int, int]] = {
    "no endpoints": (0, 1),
    "none on this node": (service_maps.HAS_ENDPOINTS | service_maps.EXTERNAL_LOCAL, 2),
}


@pytest.mark.parametrize(("flags", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_service_without_endpoints_answers_nobody(forward: Forward, flags: int, reason: int) -> None:
    """The packet is gone, counted by its reason."""
    service = forward.maps.service([], flags=flags)
    forward.maps.frontend(service, *FRONTENDS[4], kind=LOAD_BALANCER)
    assert forward.run("ingress", tcp(CLIENTS[4], FRONTENDS[4]))[0] == SHOT
    assert forward.maps.count("reason_counters") == {reason: (1,)}
    assert forward.maps.count("service_counters") == {service: (0, 1)}


@families
def test_source_ranges(forward: Forward, family: int) -> None:
    """Only those may come who are allowed to, and only to the load balancer's address."""
    service = serve(forward, family, flags=service_maps.HAS_ENDPOINTS | service_maps.SOURCE_RANGES)
    forward.maps.allow_source(service, {4: "198.51.100.0/25", 6: "2001:db8:1::/64"}[family])
    stranger = {4: ("198.51.100.200", 40000), 6: ("2001:db8:2::7", 40000)}[family]
    assert ends(forward.translate("ingress", tcp(CLIENTS[family], FRONTENDS[family])))[1] == BACKENDS[family]
    assert forward.run("ingress", tcp(stranger, FRONTENDS[family]))[0] == SHOT


@families
def test_affinity_is_by_the_clients_address(forward: Forward, family: int) -> None:
    """Whatever port it comes from."""
    backends = [{4: (f"10.1.1.{n}", 8080), 6: (f"fd00:1::{n}", 8080)}[family] for n in range(1, 5)]
    service = forward.maps.service(backends, affinity_seconds=60)
    forward.maps.frontend(service, *FRONTENDS[family], kind=LOAD_BALANCER)
    client, _ = CLIENTS[family]
    seen = {ends(forward.translate("ingress", tcp((client, port), FRONTENDS[family])))[1] for port in range(1000, 1020)}
    assert len(seen) == 1


def test_endpoints_share_the_connections(forward: Forward) -> None:
    """Without affinity every one of them gets some: that one of four gets none of 100 happens once in 10**12."""
    backends = [(f"10.1.1.{number}", 8080) for number in range(1, 5)]
    service = forward.maps.service(backends)
    forward.maps.frontend(service, *FRONTENDS[4], kind=LOAD_BALANCER)
    ports = range(1000, 1100)
    seen = [ends(forward.translate("ingress", tcp(("198.51.100.7", port), FRONTENDS[4])))[1] for port in ports]
    assert set(seen) == set(backends)
