# SPDX-License-Identifier: Apache-2.0
"""Headers in every shape: those that are rare, those that are cut off, and those that somebody made up."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IPOption_NOP, IPOption_Timestamp
from scapy.layers.inet6 import (
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)

from tests.kernel.packets.conftest import Forward
from tests.kernel.packets.packet import IP, SHOT, TCP, UDP, UNSPEC, Ether, IPv6, Packet, ends, tcp, udp
from tests.kernel.packets.test_endpoints_here import BACKENDS, CLIENTS, FRONTENDS, serve

ETHERNET = 14
RARE: dict[str, tuple[int, Packet]] = {
    "IPv4 options": (4, IP(options=[IPOption_NOP(), IPOption_Timestamp(), IPOption_NOP()])),
    "the longest IPv4 options": (4, IP(options=[IPOption_NOP()] * 40)),
    "an IPv4 fragment, the first": (4, IP(flags="MF")),
    "hop-by-hop options": (6, IPv6() / IPv6ExtHdrHopByHop()),
    "destination options": (6, IPv6() / IPv6ExtHdrDestOpt()),
    "a routing header": (6, IPv6() / IPv6ExtHdrRouting()),
    "an IPv6 fragment, the first": (6, IPv6() / IPv6ExtHdrFragment(m=1)),
    "several extensions": (6, IPv6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(m=1)),
}
STRANGE: dict[str, tuple[int, Packet]] = {
    "an IPv4 header that is too short": (4, IP(ihl=4)),
    "version 6 in an IPv4 header": (4, IP(version=6)),
    "a later fragment behind other extensions": (6, IPv6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(offset=1)),
    "version 4 in an IPv6 header": (6, IPv6(version=4)),
    "too many extensions": (6, IPv6() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt()),
    "an extension longer than the packet": (6, IPv6() / IPv6ExtHdrDestOpt(len=255)),
}
STRANGE["too many extensions"][1].add_payload(IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt())


def packet_with(family: int, headers: Packet) -> Packet:
    """Return a TCP segment to the frontend, with these headers below it."""
    headers = headers.copy()
    headers.src, headers.dst = CLIENTS[family][0], FRONTENDS[family][0]
    whole = tcp(CLIENTS[family], FRONTENDS[family])
    return Ether(src=whole.src, dst=whole.dst) / headers / whole[TCP].copy()


@pytest.mark.parametrize(("family", "headers"), RARE.values(), ids=RARE.keys())
def test_rare_headers(forward: Forward, family: int, headers: Packet) -> None:
    """They are in nobody's way."""
    serve(forward, family)
    assert ends(forward.translate("ingress", packet_with(family, headers))) == (CLIENTS[family], BACKENDS[family])


@pytest.mark.parametrize(("family", "headers"), STRANGE.values(), ids=STRANGE.keys())
def test_strange_headers_are_left_alone(forward: Forward, family: int, headers: Packet) -> None:
    """What does not add up is the stack's to judge."""
    serve(forward, family)
    packet = packet_with(family, headers)
    assert forward.run("ingress", packet) == (UNSPEC, bytes(packet))


def test_ipv4_inside_ipv6_addresses_is_no_ipv4(forward: Forward) -> None:
    """The maps know IPv4 addresses by their mapped form; on a wire it means nothing."""
    serve(forward, 4)
    packet = tcp((f"::ffff:{CLIENTS[4][0]}", 40000), (f"::ffff:{FRONTENDS[4][0]}", 80))
    assert forward.run("ingress", packet) == (UNSPEC, bytes(packet))


def test_a_udp_checksum_that_was_left_out_stays_so(forward: Forward) -> None:
    """IPv4 allows that (RFC 768)."""
    serve(forward, 4, "UDP")
    packet = udp(CLIENTS[4], FRONTENDS[4])
    packet[UDP].chksum = 0
    seen = forward.translate("ingress", packet)
    assert ends(seen)[1] == BACKENDS[4]
    assert seen[UDP].chksum == 0


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize("family", [4, 6])
def test_packets_that_are_cut_off(forward: Forward, family: int, protocol: str) -> None:
    """At every byte behind the IP header, without which the kernel runs nothing: untouched unless all is there."""
    serve(forward, family, protocol)
    build = tcp if protocol == "TCP" else udp
    whole = bytes(build(CLIENTS[family], FRONTENDS[family]))
    network = ETHERNET + (20 if family == 4 else 40)
    headers = network + (20 if protocol == "TCP" else 8)
    for length in range(network, len(whole)):
        action, seen = forward.run("ingress", whole[:length])
        assert action == UNSPEC
        assert (seen == whole[:length]) == (length < headers), f"{length} bytes"


@pytest.fixture
def everything_served(forward: Forward) -> Forward:
    """Serve both frontends, over both protocols."""
    for family in (4, 6):
        for protocol in ("TCP", "UDP"):
            serve(forward, family, protocol)
    return forward


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_made_up_packets(everything_served: Forward, data: st.DataObject) -> None:
    """A packet with some wrong bytes is left alone, refused, or gets the endpoint's address and port and no more."""
    family = data.draw(st.sampled_from([4, 6]))
    build = tcp if data.draw(st.booleans()) else udp
    packet = bytearray(bytes(build(CLIENTS[family], FRONTENDS[family])))
    for place in data.draw(st.lists(st.integers(ETHERNET, len(packet) - 1), max_size=3)):
        packet[place] = data.draw(st.integers(0, 255))
    action, seen = everything_served.run("ingress", bytes(packet))
    assert action in {UNSPEC, SHOT}
    assert seen == bytes(packet) or seen == rewritten(bytes(packet), family)


def rewritten(packet: bytes, family: int) -> bytes:
    """Return a packet with the endpoint as its destination, and each checksum as wrong as it was (RFC 1624)."""
    network, (address, port) = ETHERNET, BACKENDS[family]
    transport = network + (4 * (packet[network] & 15) if family == 4 else 40)
    protocol = packet[network + (9 if family == 4 else 6)]
    places = {network + (16 if family == 4 else 24): ip_address(address).packed, transport + 2: port.to_bytes(2, "big")}
    checksum = transport + (16 if protocol == 6 else 6)
    seen = bytearray(packet)
    for place, new in places.items():
        old = bytes(packet[place : place + len(new)])
        seen[place : place + len(new)] = new
        if family == 4 and place < transport:
            update_checksum(seen, network + 10, old, new)
        if protocol == 6 or any(packet[checksum : checksum + 2]):
            update_checksum(seen, checksum, old, new)
    return bytes(seen)


def update_checksum(packet: bytearray, place: int, old: bytes, new: bytes) -> None:
    """Note in a checksum that some words became others."""
    total = int.from_bytes(packet[place : place + 2], "big") ^ 0xFFFF
    for before, after in zip(words(old), words(new), strict=True):
        total += (before ^ 0xFFFF) + after
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    packet[place : place + 2] = (total ^ 0xFFFF).to_bytes(2, "big")


def words(data: bytes) -> list[int]:
    """Return the numbers of 16 bits that a checksum adds up."""
    return [int.from_bytes(data[start : start + 2], "big") for start in range(0, len(data), 2)]
