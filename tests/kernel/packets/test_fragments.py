# SPDX-License-Identifier: Apache-2.0
"""Packets in several pieces, of which only the first one has ports: all of them go the same way."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import fragment
from scapy.layers.inet6 import IPv6ExtHdrFragment, fragment6

from tests.kernel.packets.conftest import Forward
from tests.kernel.packets.packet import IP, SHOT, UDP, UNSPEC, Endpoint, Ether, IPv6, Packet, Raw, addresses, udp
from tests.kernel.packets.test_endpoints_elsewhere import NODE
from tests.kernel.packets.test_endpoints_elsewhere import serve as serve_elsewhere
from tests.kernel.packets.test_endpoints_here import BACKENDS, CLIENTS, FRONTENDS, families, serve
from tests.kernel.programs.service_maps import CLUSTER_IP, NODE_PORT

LOST_FRAGMENT = 11
LARGE = bytes(range(256)) * 12
"""Three pieces of what a device carries."""


def pieces(source: Endpoint, destination: Endpoint, number: int = 7) -> list[Packet]:
    """Return the fragments of a large datagram."""
    whole = udp(source, destination, LARGE)
    whole = Ether(bytes(whole))  # with its checksum, which covers all of it
    if IPv6 in whole:
        header = IPv6(src=source[0], dst=destination[0]) / IPv6ExtHdrFragment(id=number)
        link = Ether(src=whole.src, dst=whole.dst)
        cut = fragment6(header / whole[UDP], 1280)  # type: ignore[no-untyped-call]
        return [link / piece for piece in cut]
    whole[IP].id = number
    return [Ether(bytes(piece)) for piece in fragment(whole, 1200)]  # type: ignore[no-untyped-call]


def run(forward: Forward, hook: str, sent: list[Packet]) -> list[Packet]:
    """Return what becomes of fragments, each of which goes on."""
    arrived: list[Packet] = []
    for packet in sent:
        action, data = forward.run(hook, packet)
        assert action == UNSPEC
        arrived.append(Ether(data))
    return arrived


def joined(arrived: list[Packet]) -> Packet:
    """Put fragments together, as their receiver does; the datagram's checksum must be right."""
    header = IPv6 if IPv6 in arrived[0] else IP
    body = b"".join(bytes(packet[IPv6ExtHdrFragment if header is IPv6 else IP].payload) for packet in arrived)
    source, destination = addresses(arrived[0])
    assert all(addresses(packet) == (source, destination) for packet in arrived)
    received = UDP(body)
    expected = UDP(body)
    del expected.chksum
    whole = header(bytes(header(src=source, dst=destination) / expected))
    assert whole[UDP].chksum == received.chksum
    return whole


def ends_of(whole: Packet) -> tuple[Endpoint, Endpoint]:
    """Return where a datagram comes from and goes to."""
    header = whole[IPv6] if IPv6 in whole else whole[IP]
    return (header.src, whole[UDP].sport), (header.dst, whole[UDP].dport)


@families
def test_all_fragments_go_to_the_endpoint_and_back(forward: Forward, family: int) -> None:
    """The datagram that they make up is what was sent, and so is a large answer."""
    serve(forward, family, "UDP")
    client, frontend, backend = CLIENTS[family], FRONTENDS[family], BACKENDS[family]
    sent = pieces(client, frontend)
    assert len(sent) == 3
    arrived = joined(run(forward, "ingress", sent))
    assert ends_of(arrived) == (client, backend)
    assert bytes(arrived[UDP].payload) == LARGE
    assert ends_of(joined(run(forward, "egress", pieces(backend, client)))) == (frontend, client)


@families
def test_fragments_to_another_node_leave_under_this_nodes_name(forward: Forward, family: int) -> None:
    """Each of them is marked on its way in, and none on its way out."""
    serve_elsewhere(forward, family, "UDP")
    client, frontend, backend = CLIENTS[family], FRONTENDS[family], BACKENDS[family]
    sent = run(forward, "egress", run(forward, "ingress", pieces(client, frontend)))
    source, destination = ends_of(joined(sent))
    assert (source[0], destination) == (NODE[family], backend)
    assert not forward.marks
    answer = run(forward, "egress", run(forward, "ingress", pieces(backend, source)))
    assert ends_of(joined(answer)) == (frontend, client)


@families
def test_datagrams_of_one_client_are_told_apart(forward: Forward, family: int) -> None:
    """By their numbers, however their fragments mix."""
    serve(forward, family, "UDP")
    first, second = (pieces(CLIENTS[family], FRONTENDS[family], number) for number in (1, 2))
    mixed = [packet for pair in zip(first, second, strict=True) for packet in pair]
    arrived = run(forward, "ingress", mixed)
    for datagram in (arrived[::2], arrived[1::2]):
        assert ends_of(joined(datagram))[1] == BACKENDS[family]


@families
@pytest.mark.parametrize(("kind", "action"), [(NODE_PORT, UNSPEC), (CLUSTER_IP, SHOT)])
def test_a_fragment_before_the_first_one(forward: Forward, family: int, kind: int, action: int) -> None:
    """May be for the node itself, where the address is the node's; is lost where it can only be a Service's."""
    serve(forward, family, "UDP", kind)
    later = pieces(CLIENTS[family], FRONTENDS[family])[1]
    assert forward.run("ingress", later) == (action, bytes(later))
    counted = forward.maps.count("reason_counters")
    assert counted == ({LOST_FRAGMENT: (1,)} if action == SHOT else {})


@families
def test_fragments_that_are_no_services_are_left_alone(forward: Forward, family: int) -> None:
    """Nothing of them is translated."""
    serve(forward, family, "UDP")
    for packet in pieces(CLIENTS[family], (FRONTENDS[family][0], 81)):
        assert forward.run("egress", packet) == (UNSPEC, bytes(packet))
    other = ("192.0.2.99", 80) if family == 4 else ("2001:db8::99", 80)
    for packet in pieces(CLIENTS[family], other):
        assert forward.run("ingress", packet) == (UNSPEC, bytes(packet))


def test_a_first_fragment_without_ports_is_left_alone(forward: Forward) -> None:
    """As is what follows it: the frontend is a NodePort, so it may be for the node."""
    serve(forward, 4, "UDP", NODE_PORT)
    client, frontend = CLIENTS[4], FRONTENDS[4]
    header: dict[str, Any] = {"src": client[0], "dst": frontend[0], "id": 9, "proto": 17}
    tiny = Ether(bytes(Ether() / IP(**header, flags="MF") / Raw(b"\x9c")))
    rest = Ether(bytes(Ether() / IP(**header, frag=1) / Raw(LARGE[:100])))
    for packet in (tiny, rest):
        assert forward.run("ingress", packet) == (UNSPEC, bytes(packet))


@families
def test_a_later_fragment_whose_header_does_not_add_up_is_left_alone(forward: Forward, family: int) -> None:
    """As a packet in one piece is: the stack throws it away."""
    serve(forward, family, "UDP")
    first, later, _ = pieces(CLIENTS[family], FRONTENDS[family])
    forward.run("ingress", first)
    for version_and_length in (0x35, 0xC3, 0x44) if family == 4 else (0x50, 0x40):
        broken = bytearray(bytes(later))
        broken[14] = version_and_length
        assert forward.run("ingress", bytes(broken)) == (UNSPEC, bytes(broken))
