# SPDX-License-Identifier: Apache-2.0
"""Refusals: packets that this node answers itself, from the address that the client used."""

from __future__ import annotations

from tests.kernel.packets.conftest import Forward
from tests.kernel.packets.packet import UNSPEC, addresses, ends, error_about, ip_bytes, quotation, tcp, udp
from tests.kernel.packets.test_endpoints_elsewhere import NODE
from tests.kernel.packets.test_endpoints_here import BACKENDS, CLIENTS, FRONTENDS, families
from tests.kernel.programs import service_maps
from tests.kernel.programs.service_maps import LOAD_BALANCER

NO_ENDPOINTS = 1


def serve_nobody(forward: Forward, family: int) -> int:
    """Give the frontends of a family a Service without endpoints; return its id."""
    forward.device(NODE[4], NODE[6])
    service = forward.maps.service()
    for protocol in (service_maps.TCP, service_maps.UDP):
        forward.maps.frontend(service, *FRONTENDS[family], protocol, LOAD_BALANCER)
    return service


@families
def test_a_connection_is_reset(forward: Forward, family: int) -> None:
    """The packet goes to port 0 of this node, and what the kernel answers comes from the frontend."""
    service = serve_nobody(forward, family)
    client, frontend, nobody = CLIENTS[family], FRONTENDS[family], (NODE[family], 0)
    assert ends(forward.translate("ingress", tcp(client, frontend))) == (client, nobody)
    assert ends(forward.translate("egress", tcp(nobody, client, "RA"))) == (frontend, client)
    assert forward.maps.count("reason_counters") == {NO_ENDPOINTS: (1,)}
    assert forward.maps.count("service_counters") == {service: (0, 1)}


@families
def test_a_datagram_is_refused(forward: Forward, family: int) -> None:
    """By an ICMP error that quotes it as it was sent."""
    serve_nobody(forward, family)
    client, frontend = CLIENTS[family], FRONTENDS[family]
    request = udp(client, frontend)
    arrived = forward.translate("ingress", request)
    assert ends(arrived) == (client, (NODE[family], 0))
    error = forward.translate("egress", error_about(ip_bytes(arrived), NODE[family], client[0]))
    assert addresses(error) == (frontend[0], client[0])
    assert quotation(error) == ip_bytes(request)


@families
def test_a_refusal_is_not_for_ever(forward: Forward, family: int) -> None:
    """Once there is an endpoint the same client gets it, from the same port."""
    service = serve_nobody(forward, family)
    client, frontend, backend = CLIENTS[family], FRONTENDS[family], BACKENDS[family]
    requests = [tcp(client, frontend), udp(client, frontend)]
    for request in requests:
        forward.translate("ingress", request)
    forward.maps.publish(service, [backend])
    for request in requests:
        assert ends(forward.translate("ingress", request)) == (client, backend)
    assert ends(forward.translate("egress", tcp(backend, client, "SA"))) == (frontend, client)
    assert ends(forward.translate("egress", udp(backend, client))) == (frontend, client)


@families
def test_a_connection_that_an_endpoint_refused_may_be_tried_again(forward: Forward, family: int) -> None:
    """From the same port, and with another endpoint."""
    other = {4: ("10.1.1.2", 8080), 6: ("fd00:1::2", 8080)}[family]
    client, frontend, backend = CLIENTS[family], FRONTENDS[family], BACKENDS[family]
    service = forward.maps.service([backend])
    forward.maps.frontend(service, *frontend, kind=LOAD_BALANCER)
    forward.translate("ingress", tcp(client, frontend))
    forward.translate("egress", tcp(backend, client, "RA"))
    forward.maps.publish(service, [other])
    assert ends(forward.translate("ingress", tcp(client, frontend))) == (client, other)


def test_a_syn_leaves_a_backend_that_is_gone(forward: Forward) -> None:
    """If it was never answered; else it is a stray one of a connection that goes on."""
    client, frontend, other = CLIENTS[4], FRONTENDS[4], ("10.1.1.2", 8080)
    service = forward.maps.service()
    (old,) = forward.maps.publish(service, [BACKENDS[4]])
    forward.maps.frontend(service, *frontend, kind=LOAD_BALANCER)
    forward.translate("ingress", tcp(client, frontend))
    forward.maps.publish(service, [other])
    forward.maps.retire(old)
    assert ends(forward.translate("ingress", tcp(client, frontend))) == (client, other)
    forward.translate("egress", tcp(other, client, "SA"))
    forward.maps.publish(service, [])
    assert ends(forward.translate("ingress", tcp(client, frontend))) == (client, other)


def test_unknown_ports_of_a_cluster_ip(forward: Forward) -> None:
    """They are refused; of an address that belongs to somebody else, too, nothing is."""
    forward.device(NODE[4], NODE[6])
    service = forward.maps.service([BACKENDS[4]])
    forward.maps.frontend(service, "10.96.0.1", 80)
    refused = forward.translate("ingress", tcp(CLIENTS[4], ("10.96.0.1", 81)))
    assert ends(refused)[1] == (NODE[4], 0)
    forward.maps.frontend(service, *FRONTENDS[4], kind=LOAD_BALANCER)
    other = tcp(CLIENTS[4], (FRONTENDS[4][0], 81))
    assert forward.run("ingress", other) == (UNSPEC, bytes(other))
