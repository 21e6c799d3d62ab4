# SPDX-License-Identifier: Apache-2.0
"""Connections from outside to endpoints on other nodes: out with this node's address, so that the answers come here."""

from __future__ import annotations

import pytest

from tests.kernel.packets.conftest import Forward
from tests.kernel.packets.packet import SHOT, Endpoint, ends, tcp
from tests.kernel.packets.test_endpoints_here import BACKENDS, FRONTENDS, PROTOCOLS, families, protocols
from tests.kernel.programs.service_maps import LOAD_BALANCER

CLIENTS: dict[int, Endpoint] = {4: ("198.51.100.7", 20000), 6: ("2001:db8:1::7", 20000)}
"""From a port that no socket of this node has by itself."""
OURS = {*range(1024, 30000), *range(61000, 65536)}
"""Ports for masquerading: neither NodePorts' nor those that the kernel gives to sockets."""
NODE = {4: "192.0.2.1", 6: "2001:db8::1"}
NO_DEVICE_ADDRESS = 10


def serve(forward: Forward, family: int, protocol: str = "TCP", frontend: Endpoint | None = None) -> int:
    """Give a frontend a backend on another node; return the service id."""
    forward.device(NODE[4], NODE[6])
    made = forward.maps.service([BACKENDS[family]], elsewhere=[BACKENDS[family]])
    forward.maps.frontend(made, *(frontend or FRONTENDS[family]), PROTOCOLS[protocol][0], LOAD_BALANCER)
    return made


@families
@protocols
def test_there_and_back(forward: Forward, family: int, protocol: str) -> None:
    """In and out and in and out again: the endpoint sees this node, and the client sees the frontend."""
    serve(forward, family, protocol)
    client, frontend, backend = CLIENTS[family], FRONTENDS[family], BACKENDS[family]
    _, request, reply = PROTOCOLS[protocol]
    for _ in range(2):
        routed = forward.translate("ingress", request(client, frontend))
        assert ends(routed) == (client, backend), "the stack routes it by its endpoint"
        sent = forward.translate("egress", routed)
        source, destination = ends(sent)
        assert (source, destination) == ((NODE[family], client[1]), backend), "the client's port, where it is free"
        assert not forward.marks, "the mark is for us alone"
        back = forward.translate("ingress", reply(backend, source))
        assert ends(back) == (backend, client)
        assert ends(forward.translate("egress", back)) == (frontend, client)


@families
@pytest.mark.parametrize("port", [30080, 40000, 53])
def test_a_port_of_this_nodes_own_is_not_taken(forward: Forward, family: int, port: int) -> None:
    """A socket of this node may have it, with a connection of its own to the endpoint."""
    serve(forward, family)
    client, frontend, backend = (CLIENTS[family][0], port), FRONTENDS[family], BACKENDS[family]
    source, _ = ends(forward.translate("egress", forward.translate("ingress", tcp(client, frontend))))
    assert source[0] == NODE[family]
    assert source[1] in OURS
    back = forward.translate("ingress", tcp(backend, source, "SA"))
    assert ends(forward.translate("egress", back)) == (frontend, client)


def test_both_halves_stay_once_the_client_answered(forward: Forward) -> None:
    """Four entries of an established connection, none that may be forgotten."""
    serve(forward, 4)
    client, frontend, backend = CLIENTS[4], FRONTENDS[4], BACKENDS[4]
    for flags, answer in (("S", "SA"), ("A", "A"), ("PA", "A")):
        sent = forward.translate("egress", forward.translate("ingress", tcp(client, frontend, flags)))
        forward.translate("egress", forward.translate("ingress", tcp(backend, ends(sent)[0], answer)))
    assert len(forward.entries("flows")) == 4
    assert not forward.entries("opening_flows")


@protocols
def test_clients_with_the_same_port_are_told_apart(forward: Forward, protocol: str) -> None:
    """The second one gets another port of this node, and each gets its own answers."""
    serve(forward, 4, protocol)
    frontend, backend = FRONTENDS[4], BACKENDS[4]
    _, request, reply = PROTOCOLS[protocol]
    clients = [(f"198.51.100.{number}", 40000) for number in range(1, 6)]
    sources = [
        ends(forward.translate("egress", forward.translate("ingress", request(client, frontend))))[0]
        for client in clients
    ]
    assert len(set(sources)) == len(clients)
    assert {address for address, _ in sources} == {NODE[4]}
    assert all(1024 <= port < 30000 or port >= 61000 for _, port in sources[1:]), "no socket's, and no NodePort"
    for client, source in zip(clients, sources, strict=True):
        assert ends(forward.translate("egress", forward.translate("ingress", reply(backend, source))))[1] == client


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_one_port_of_a_client_for_two_frontends(forward: Forward, *, elsewhere: bool) -> None:
    """Both lead to one endpoint, to which the connections would look alike: the second gets another source port."""
    forward.device(NODE[4], NODE[6])
    client, backend, frontends = CLIENTS[4], BACKENDS[4], [FRONTENDS[4], ("192.0.2.11", 80)]
    service = forward.maps.service([backend], elsewhere=[backend] if elsewhere else [])
    for frontend in frontends:
        forward.maps.frontend(service, *frontend, kind=LOAD_BALANCER)
    sources = []
    for frontend in frontends:
        sent = forward.translate("ingress", tcp(client, frontend))
        sources.append(ends(forward.translate("egress", sent) if elsewhere else sent)[0])
    assert sources[0] != sources[1]
    for source, frontend in zip(sources, frontends, strict=True):
        back = tcp(backend, source, "SA")
        if elsewhere:
            back = forward.translate("ingress", back)
        assert ends(forward.translate("egress", back)) == (frontend, client)


@families
def test_a_device_without_an_address(forward: Forward, family: int) -> None:
    """What cannot be answered is not sent."""
    serve(forward, family)
    forward.device("0.0.0.0", "::")  # noqa: S104 - "none", nobody binds to it
    routed = forward.translate("ingress", tcp(CLIENTS[family], FRONTENDS[family]))
    assert forward.run("egress", routed)[0] == SHOT
    assert forward.maps.count("reason_counters") == {NO_DEVICE_ADDRESS: (1,)}
