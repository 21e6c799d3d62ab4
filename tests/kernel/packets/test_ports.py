# SPDX-License-Identifier: Apache-2.0
"""Ports for connections to other nodes when all are taken: who gives one up, and who does not."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

import pytest

from kubeproxy_ebpf.datapath.libbpf.bpf_object import BpfObject
from kubeproxy_ebpf.map_schema import FLOW_EGRESS, FLOW_INGRESS, FLOW_REQUEST, FLOW_UNCONFIRMED, FlowKey, pack_flow_key
from kubeproxy_ebpf.model.address import parse_address
from tests.kernel.packets.conftest import Forward, loaded_programs
from tests.kernel.packets.packet import SHOT, Endpoint, ends, tcp
from tests.kernel.packets.test_endpoints_elsewhere import CLIENTS, NODE, OURS, serve
from tests.kernel.packets.test_endpoints_here import BACKENDS, FRONTENDS

LARGE_TABLES = {"flows": 1 << 17, "opening_flows": 1 << 17}
NO_FREE_PORT = 9
OTHER_CLIENT = "198.51.100.8"
_FLOW = Struct("=16s16s2s2sIIIII")
TCP = 6


@pytest.fixture(scope="module")
def loaded_with_large_tables() -> Iterator[BpfObject]:
    """Load the programs with room for a connection from each port."""
    with loaded_programs(LARGE_TABLES) as object_:
        yield object_


@pytest.fixture
def spacious(loaded_with_large_tables: BpfObject) -> Iterator[Forward]:
    """Return these programs with empty maps."""
    programs = Forward(loaded_with_large_tables)
    yield programs
    programs.close()


def flow(source: Endpoint, destination: Endpoint, state: int) -> bytes:
    """Return what becomes of a packet."""
    ports = (end[1].to_bytes(2, "big") for end in (source, destination))
    return _FLOW.pack(parse_address(source[0]), parse_address(destination[0]), *ports, 0, 0, 0, 1, state)


def take_all_ports(forward: Forward, table: str, state: int) -> None:
    """Give another client's connections to the backend every port of this node that there is for them."""
    (backend, port_there), client, node = BACKENDS[4], OTHER_CLIENT, NODE[4]
    entries = []
    for port in OURS:
        request = FlowKey(parse_address(client), port, parse_address(backend), port_there, TCP, FLOW_EGRESS)
        reply = FlowKey(parse_address(backend), port_there, parse_address(node), port, TCP, FLOW_INGRESS)
        entries += [
            (pack_flow_key(request), flow((node, port), BACKENDS[4], FLOW_REQUEST | state)),
            (pack_flow_key(reply), flow(BACKENDS[4], (client, port), 0)),
        ]
    forward.fill(table, entries)


@pytest.mark.parametrize(
    ("table", "state", "is_given_up"),
    [("opening_flows", 0, True), ("flows", FLOW_UNCONFIRMED, True), ("flows", 0, False)],
    ids=["may be forgotten", "stands and nobody has confirmed it", "stands"],
)
def test_all_ports_are_taken(spacious: Forward, table: str, state: int, *, is_given_up: bool) -> None:
    """A new connection takes one from who has not shown who it is: both ways of that are gone, and nobody else's."""
    serve(spacious, 4)
    take_all_ports(spacious, table, state)
    spacious.give_room(len(OURS))
    client, frontend, backend = CLIENTS[4], FRONTENDS[4], BACKENDS[4]
    routed = spacious.translate("ingress", tcp(client, frontend))
    if not is_given_up:
        assert spacious.run("egress", routed)[0] == SHOT
        assert spacious.maps.count("reason_counters") == {NO_FREE_PORT: (1,)}
        return
    source = ends(spacious.translate("egress", routed))[0]
    assert source[1] in OURS
    back = spacious.translate("ingress", tcp(backend, source, "SA"))
    assert ends(spacious.translate("egress", back)) == (frontend, client)
    lost = tcp((OTHER_CLIENT, source[1]), backend, "A")
    assert spacious.run("egress", lost)[1] == bytes(lost)
    neighbour = next(port for port in OURS if port != source[1])
    kept = spacious.translate("egress", tcp((OTHER_CLIENT, neighbour), backend, "A"))
    assert ends(kept)[0] == (NODE[4], neighbour)
