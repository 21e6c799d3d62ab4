# SPDX-License-Identifier: Apache-2.0
"""Connections whose time is over are taken out of the table, both ways of them, and no others."""

from __future__ import annotations

import sys

import pytest

from kubeproxy_ebpf.datapath.libbpf.bpf_object import BpfObject
from kubeproxy_ebpf.sweeper import Fill
from tests.kernel.packets.conftest import OBJECTS, SMALL_TABLES, Forward
from tests.kernel.packets.packet import ends, tcp, udp
from tests.kernel.packets.test_endpoints_here import BACKENDS, CLIENTS, FRONTENDS, serve

BOTH_WAYS = 2
LONG, SHORT = 1_000_000, 60
"""Time-outs in seconds: more and less than how old :meth:`Forward.grow_old` makes everything."""


def establish(forward: Forward, protocol: str) -> None:
    """Make a connection that stays."""
    client, frontend, backend = CLIENTS[4], FRONTENDS[4], BACKENDS[4]
    serve(forward, 4, protocol)
    if protocol == "TCP":
        steps = [("ingress", tcp(client, frontend)), ("egress", tcp(backend, client, "SA"))]
        steps.append(("ingress", tcp(client, frontend, "A")))
    else:
        steps = [
            ("ingress", udp(client, frontend)),
            ("egress", udp(backend, client)),
            ("ingress", udp(client, frontend)),
        ]
    for hook, packet in steps:
        forward.translate(hook, packet)
    assert len(forward.entries("flows")) == BOTH_WAYS


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_what_is_in_use_stays(forward: Forward, protocol: str) -> None:
    """Time-outs are hours and minutes; two sweeps take nothing. One way in use is enough, as in a long download."""
    establish(forward, protocol)
    forward.grow_old()
    forward.translate(
        "ingress", tcp(CLIENTS[4], FRONTENDS[4], "A") if protocol == "TCP" else udp(CLIENTS[4], FRONTENDS[4])
    )
    for _ in range(2):
        forward.sweep(tcp_established_timeout=SHORT, udp_timeout=SHORT)
    assert len(forward.entries("flows")) == BOTH_WAYS


ENDS: dict[str, tuple[str, list[tuple[str, str]], str]] = {
    "an idle connection": ("TCP", [], "tcp_established_timeout"),
    "one that was half closed": ("TCP", [("egress", "FA")], "tcp_close_wait_timeout"),
    "one that was closed": ("TCP", [("egress", "FA"), ("ingress", "FA"), ("egress", "A")], "tcp_time_wait_timeout"),
    "one that was reset": ("TCP", [("egress", "R")], "tcp_close_timeout"),
    "datagrams": ("UDP", [], "udp_timeout"),
}


@pytest.mark.parametrize(("protocol", "end", "timeout"), ENDS.values(), ids=ENDS.keys())
def test_each_state_has_its_time(forward: Forward, protocol: str, end: list[tuple[str, str]], timeout: str) -> None:
    """Marked by the first sweep after it, gone by the second; other time-outs do not matter to it."""
    establish(forward, protocol)
    for hook, flags in end:
        forward.translate(
            hook, tcp(*((BACKENDS[4], CLIENTS[4]) if hook == "egress" else (CLIENTS[4], FRONTENDS[4])), flags)
        )
    others = {one for _, _, one in ENDS.values()} - {timeout}
    forward.grow_old()
    for _ in range(2):
        assert forward.sweep(**{timeout: LONG}, **dict.fromkeys(others, SHORT)) == BOTH_WAYS
        assert len(forward.entries("flows")) == BOTH_WAYS
    assert forward.sweep(**{timeout: SHORT}, **dict.fromkeys(others, LONG)) == 0
    assert len(forward.entries("flows")) == BOTH_WAYS
    forward.sweep(**{timeout: SHORT}, **dict.fromkeys(others, LONG))
    assert not forward.entries("flows")


def test_what_was_closed_makes_room_in_a_crowded_table(forward: Forward) -> None:
    """As soon as what was reset; what is open, or has an end that is open, keeps its time."""
    establish(forward, "TCP")
    times = {"tcp_close_timeout": SHORT, "tcp_time_wait_timeout": LONG}
    client, frontend, backend = CLIENTS[4], FRONTENDS[4], BACKENDS[4]
    for hook, packet in (("egress", tcp(backend, client, "FA")), ("ingress", tcp(client, frontend, "FA"))):
        forward.grow_old()
        assert forward.crowded_sweep(**times) == BOTH_WAYS
        forward.translate(hook, packet)
    forward.grow_old()
    assert forward.sweep(**times) == BOTH_WAYS
    assert forward.crowded_sweep(**times) == 0


def test_the_agent_says_that_the_table_is_crowded(forward: Forward) -> None:
    """From three quarters on; the sweep after it takes what was closed, and tells how much is left."""
    serve(forward, 4)
    capacity = SMALL_TABLES["flows"]
    for number in range(capacity // BOTH_WAYS * 3 // 4):
        client = ("203.0.113.1", 10000 + number)
        for flags in ("S", "A", "FA"):
            forward.translate("ingress", tcp(client, FRONTENDS[4], flags))
            forward.translate("egress", tcp(BACKENDS[4], client, {"S": "SA"}.get(flags, flags)))
    forward.grow_old()
    with BpfObject(OBJECTS / "sweep.bpf.o") as sweeper:
        sweeper.set_constant("tcp_time_wait_timeout", LONG)
        path = forward.packet_path(sweeper)
        assert path.sweep() == Fill(capacity * 3 // 4, capacity)
        assert path.sweep() == Fill(0, capacity)
        path.close()


SWEPT = 16
"""Of the state of a flow, which is its last word; the hook is in its key."""
STATE, HOOK = slice(52, 56), 37
EGRESS = 2


def mark_answers(forward: Forward) -> None:
    """Mark the answers' way, as a sweep does that comes to it before a packet uses the other."""
    for key, value in forward.entries("flows").items():
        if key[HOOK] == EGRESS:
            state = int.from_bytes(value[STATE], sys.byteorder) | SWEPT
            forward.write("flows", key, value[: STATE.start] + state.to_bytes(4, sys.byteorder))


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_what_was_used_between_two_looks_comes_back(forward: Forward, protocol: str) -> None:
    """One way is marked and the other in use: answers are translated again, and nothing is taken."""
    establish(forward, protocol)
    mark_answers(forward)
    answer = tcp(BACKENDS[4], CLIENTS[4], "A") if protocol == "TCP" else udp(BACKENDS[4], CLIENTS[4])
    assert forward.run("egress", answer)[1] == bytes(answer)
    forward.sweep()
    assert ends(forward.translate("egress", answer))[0] == FRONTENDS[4]
    assert len(forward.entries("flows")) == BOTH_WAYS


def test_a_connection_that_is_marked_begins_anew(forward: Forward) -> None:
    """Its mark makes it nobody's: a packet of it is left alone, a new connection is made beside it."""
    establish(forward, "TCP")
    forward.grow_old()
    forward.sweep(tcp_established_timeout=SHORT)
    late = tcp(CLIENTS[4], FRONTENDS[4], "A")
    assert forward.run("ingress", late)[1] == bytes(late)
    assert ends(forward.translate("ingress", tcp(CLIENTS[4], FRONTENDS[4])))[1] == BACKENDS[4]
    assert len(forward.entries("opening_flows")) == BOTH_WAYS
