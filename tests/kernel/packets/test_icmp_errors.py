# SPDX-License-Identifier: Apache-2.0
"""Whoever sent a packet hears what is wrong with it in the terms in which it was sent."""

from __future__ import annotations

import pytest

from tests.kernel.packets import test_endpoints_elsewhere, test_endpoints_here
from tests.kernel.packets.conftest import Forward
from tests.kernel.packets.packet import UNSPEC, Packet, addresses, ends, error_about, ip_bytes, quotation
from tests.kernel.packets.test_endpoints_elsewhere import NODE
from tests.kernel.packets.test_endpoints_here import BACKENDS, CLIENTS, FRONTENDS, PROTOCOLS, families, protocols

ROUTER = {4: "10.9.9.9", 6: "fd00:9::9"}
lengths = pytest.mark.parametrize("whole", [True, False], ids=["all of it", "as much as must be"])


def quoted(packet: Packet, family: int, *, whole: bool) -> bytes:
    """Return as much of a packet as an error quotes: all, or the IP header and eight bytes (RFC 792)."""
    data = ip_bytes(packet)
    return data if whole else data[: (20 if family == 4 else 40) + 8]


@families
@protocols
@lengths
@pytest.mark.parametrize("too_big", [False, True], ids=["port closed", "too big"])
def test_a_client_hears_about_its_request(
    forward: Forward, family: int, protocol: str, *, whole: bool, too_big: bool
) -> None:
    """From the endpoint itself it comes under the frontend's name; a router on the way keeps its own."""
    test_endpoints_here.serve(forward, family, protocol)
    client, frontend, backend = CLIENTS[family], FRONTENDS[family], BACKENDS[family]
    request = PROTOCOLS[protocol][1](client, frontend)
    arrived = quoted(forward.translate("ingress", request), family, whole=whole)
    for source, shown in ((backend[0], frontend[0]), (ROUTER[family], ROUTER[family])):
        error = forward.translate("egress", error_about(arrived, source, client[0], too_big=too_big))
        assert addresses(error) == (shown, client[0])
        assert quotation(error) == quoted(request, family, whole=whole)


@families
@protocols
@lengths
def test_a_client_hears_about_a_request_to_elsewhere(
    forward: Forward, family: int, protocol: str, *, whole: bool
) -> None:
    """Both translations are undone."""
    test_endpoints_elsewhere.serve(forward, family, protocol)
    client, frontend, backend = CLIENTS[family], FRONTENDS[family], BACKENDS[family]
    request = PROTOCOLS[protocol][1](client, frontend)
    sent = forward.translate("egress", forward.translate("ingress", request))
    error = error_about(quoted(sent, family, whole=whole), backend[0], NODE[family])
    heard = forward.translate("egress", forward.translate("ingress", error))
    assert addresses(heard) == (frontend[0], client[0])
    assert quotation(heard) == quoted(request, family, whole=whole)


@families
@protocols
@lengths
def test_an_endpoint_hears_about_its_reply(forward: Forward, family: int, protocol: str, *, whole: bool) -> None:
    """A router between node and client complains to the frontend: that is for the endpoint."""
    test_endpoints_here.serve(forward, family, protocol)
    client, frontend, backend = CLIENTS[family], FRONTENDS[family], BACKENDS[family]
    _, request, reply = PROTOCOLS[protocol]
    forward.translate("ingress", request(client, frontend))
    answer = reply(backend, client)
    left = quoted(forward.translate("egress", answer), family, whole=whole)
    heard = forward.translate("ingress", error_about(left, ROUTER[family], frontend[0], too_big=True))
    assert addresses(heard) == (ROUTER[family], backend[0])
    assert quotation(heard) == quoted(answer, family, whole=whole)


@families
def test_errors_about_others_are_left_alone(forward: Forward, family: int) -> None:
    """As is everything else that ICMP says."""
    test_endpoints_here.serve(forward, family)
    client, frontend = CLIENTS[family], FRONTENDS[family]
    stranger = PROTOCOLS["TCP"][1]((client[0], 1), frontend)
    assert ends(stranger)[0] == (client[0], 1)
    packets = [
        error_about(ip_bytes(stranger), ROUTER[family], client[0]),
        error_about(b"", ROUTER[family], client[0]),
        error_about(b"\0" * 64, ROUTER[family], client[0]),
        error_about(ip_bytes(error_about(ip_bytes(stranger), ROUTER[family], client[0])), ROUTER[family], client[0]),
    ]
    for packet in packets:
        for hook in ("ingress", "egress"):
            assert forward.run(hook, packet) == (UNSPEC, bytes(packet))
