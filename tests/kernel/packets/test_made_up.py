# SPDX-License-Identifier: Apache-2.0
"""Errors and fragments that somebody made up: no byte changes that is no address, port or checksum of theirs.

What a checksum covers adds up to the same before and after (RFC 1624), so a wrong one stays as wrong as it was.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernel.packets import test_endpoints_elsewhere
from tests.kernel.packets.conftest import Forward
from tests.kernel.packets.packet import SHOT, UNSPEC, Packet, error_about, ip_bytes, tcp, udp
from tests.kernel.packets.test_endpoints_here import BACKENDS, CLIENTS, FRONTENDS, PROTOCOLS, serve
from tests.kernel.packets.test_fragments import pieces

NETWORK = 14
HEADER = {4: 20, 6: 40}
ADDRESSES = {4: slice(12, 20), 6: slice(8, 40)}
"""In an IP header."""
many = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
families = st.sampled_from([4, 6])


def total(data: bytes) -> int:
    """Return the sum that an Internet checksum is of, which has two zeros."""
    padded = data + bytes(len(data) % 2)
    return sum(int.from_bytes(padded[start : start + 2], "big") for start in range(0, len(padded), 2)) % 0xFFFF


def made_up(data: st.DataObject, packet: Packet) -> bytes:
    """Return a packet with some other bytes, or with some of its end missing; never without all of its IP header."""
    changed = bytearray(bytes(packet))
    first = NETWORK + HEADER[6 if changed[NETWORK] >> 4 == 6 else 4]
    for place in data.draw(st.lists(st.integers(NETWORK, len(changed) - 1), max_size=3)):
        changed[place] = data.draw(st.integers(0, 255))
    return bytes(changed[: data.draw(st.integers(first, len(changed)))])


def changed_places(before: bytes, after: bytes) -> set[int]:
    """Return where two packets differ, which have one length."""
    return {place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}


def ip_header_places(start: int, family: int) -> set[int]:
    """Return where an IP header has its addresses, and IPv4's its checksum."""
    places = ADDRESSES[family]
    return {*range(start + places.start, start + places.stop), *(range(start + 10, start + 12) if family == 4 else ())}


@pytest.fixture
def in_use(forward: Forward) -> Forward:
    """Serve endpoints here, over both families, with one connection of each kind."""
    for family in (4, 6):
        for protocol, build in (("TCP", tcp), ("UDP", udp)):
            serve(forward, family, protocol)
            forward.translate("ingress", build(CLIENTS[family], FRONTENDS[family]))
    return forward


@many
@given(data=st.data())
def test_errors(in_use: Forward, data: st.DataObject) -> None:
    """About packets to an endpoint, as it or anybody may send them."""
    family = data.draw(families)
    build = tcp if data.draw(st.booleans()) else udp
    quoted = ip_bytes(build(CLIENTS[family], BACKENDS[family]))
    error = error_about(quoted, BACKENDS[family][0], CLIENTS[family][0], too_big=data.draw(st.booleans()))
    packet = made_up(data, error)
    action, seen = in_use.run("egress", packet)
    assert action == UNSPEC
    if seen == packet:
        return
    start = NETWORK + (4 * (packet[NETWORK] & 15) if family == 4 else HEADER[6])
    quotation = start + 8
    transport = quotation + (4 * (packet[quotation] & 15) if family == 4 else HEADER[6])
    allowed = ip_header_places(NETWORK, family) | ip_header_places(quotation, family) | {start + 2, start + 3}
    allowed |= {*range(transport, transport + 4), transport + 6, transport + 7, transport + 16, transport + 17}
    assert changed_places(packet, seen) <= allowed
    pseudo = ADDRESSES[family] if family == 6 else slice(0)
    assert total(seen[NETWORK:][pseudo] + seen[start:]) == total(packet[NETWORK:][pseudo] + packet[start:])
    if family == 4:
        assert total(seen[NETWORK:start]) == total(packet[NETWORK:start])
        assert total(seen[quotation:transport]) == total(packet[quotation:transport])


@pytest.fixture
def elsewhere(forward: Forward) -> Forward:
    """Serve endpoints elsewhere, over both families."""
    for family in (4, 6):
        test_endpoints_elsewhere.serve(forward, family, "UDP")
    return forward


@many
@given(data=st.data())
def test_fragments(elsewhere: Forward, data: st.DataObject) -> None:
    """In any order, some twice, some of them with other places, lengths and numbers than they had."""
    elsewhere.forget_packets()
    family = data.draw(families)
    fragments = pieces(CLIENTS[family], FRONTENDS[family])
    for fragment in data.draw(st.lists(st.sampled_from(fragments), min_size=1, max_size=5)):
        packet = made_up(data, fragment)
        for hook in ("ingress", "egress"):
            action, seen = elsewhere.run(hook, packet)
            assert action in {UNSPEC, SHOT}
            transport = NETWORK + (4 * (packet[NETWORK] & 15) if family == 4 else HEADER[6] + 8)
            ports = {*range(transport, transport + 4), transport + 6, transport + 7}
            assert changed_places(packet, seen) <= ip_header_places(NETWORK, family) | ports
            if family == 4:
                assert total(seen[NETWORK:transport]) == total(packet[NETWORK:transport])
            if action == SHOT:
                break
            packet = seen


@many
@given(data=st.data())
def test_answers(in_use: Forward, data: st.DataObject) -> None:
    """From whoever says that it is an endpoint: nothing but the way back of a connection changes anything."""
    family = data.draw(families)
    _, _, reply = PROTOCOLS[data.draw(st.sampled_from(sorted(PROTOCOLS)))]
    packet = made_up(data, reply(BACKENDS[family], CLIENTS[family]))
    action, seen = in_use.run("egress", packet)
    assert action == UNSPEC
    transport = NETWORK + (4 * (packet[NETWORK] & 15) if family == 4 else HEADER[6])
    ports = {*range(transport, transport + 4), transport + 6, transport + 7, transport + 16, transport + 17}
    assert changed_places(packet, seen) <= ip_header_places(NETWORK, family) | ports
