# SPDX-License-Identifier: Apache-2.0
"""Entries of the packet programs become one row for each connection."""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack

import pytest

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.cli.flow_rows import FlowRow, connection_keys, flow_rows
from kubeproxy_ebpf.model.address import Address, parse_address
from kubeproxy_ebpf.testing import FakeMapStore

Place = tuple[str, int]
CLIENT, FRONTEND, ENDPOINT = ("203.0.113.5", 40000), ("192.0.2.1", 30080), ("10.1.0.5", 8080)
NODE_SOURCE = ("198.51.100.1", 40000)
REQUEST, FIN, RST, SWEPT, REFUSED = (
    map_schema.FLOW_REQUEST,
    map_schema.FLOW_FIN,
    map_schema.FLOW_RST,
    map_schema.FLOW_SWEPT,
    map_schema.FLOW_REFUSED,
)
INGRESS, EGRESS = map_schema.FLOW_INGRESS, map_schema.FLOW_EGRESS
WEB = ("shop", "web", "http", "TCP/IPv4")
SERVICE = 7
TCP, UDP = 6, 17


class Tables(FakeMapStore):
    """The two tables, filled by hand."""

    def __init__(self) -> None:
        """Start with empty ones."""
        super().__init__()
        self.tables: dict[str, dict[bytes, bytes]] = {"flows": {}, "opening_flows": {}}

    def entries_of(self, map_name: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield a table's entries."""
        yield from self.tables[map_name].items()

    def counters(self, map_name: str) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Nothing is counted."""
        raise KeyError(map_name)

    def enter(
        self,
        table: str,
        hook: int,
        ends: tuple[Place, Place],
        becomes: tuple[Place, Place],
        *,
        state: int,
        service: int = SERVICE,
        seen: int = 1,
        protocol: int = TCP,
    ) -> None:
        """Write an entry: what comes, and what becomes of it."""
        key = pack("16s16s2s2sBB2x", *addresses(ends), *ports(ends), protocol, hook)
        value = pack("=16s16s2s2sIIIII", *addresses(becomes), *ports(becomes), 1, 1, service, seen, state)
        self.tables[table][key] = value


def addresses(ends: tuple[Place, Place]) -> tuple[Address, ...]:
    """Return both addresses."""
    return tuple(parse_address(address) for address, _ in ends)


def ports(ends: tuple[Place, Place]) -> tuple[bytes, ...]:
    """Return both ports, in network order."""
    return tuple(port.to_bytes(2, "big") for _, port in ends)


def connect(tables: Tables, table: str, request: int, reply: int, *, seen: int = 1, protocol: int = TCP) -> None:
    """Write both ways of a connection to an endpoint of this node, with their states."""
    tables.enter(table, INGRESS, (CLIENT, FRONTEND), (CLIENT, ENDPOINT), state=REQUEST | request, protocol=protocol)
    tables.enter(table, EGRESS, (ENDPOINT, CLIENT), (FRONTEND, CLIENT), state=reply, seen=seen, protocol=protocol)


def rows(tables: Tables, address: str = "") -> list[FlowRow]:
    """Return the rows, of the one Service that there is."""
    wanted = parse_address(address) if address else None
    return flow_rows(tables, lambda service: WEB if service == SERVICE else None, wanted)


@pytest.fixture
def tables() -> Tables:
    """Return empty tables."""
    return Tables()


@pytest.mark.parametrize(
    ("table", "request_state", "reply_state", "expected"),
    [
        ("opening_flows", 0, 0, "opening"),
        ("flows", 0, 0, "established"),
        ("flows", map_schema.FLOW_UNCONFIRMED, 0, "opening"),
        ("flows", FIN, 0, "closing"),
        ("flows", 0, FIN, "closing"),
        ("flows", FIN, FIN, "closed"),
        ("flows", FIN, FIN | RST, "reset"),
        ("opening_flows", REFUSED, 0, "refused"),
    ],
)
def test_states(tables: Tables, table: str, request_state: int, reply_state: int, expected: str) -> None:
    """What was seen of both ways says how far a connection is."""
    connect(tables, table, request_state, reply_state, seen=0)
    assert rows(tables) == [
        FlowRow(*WEB, "203.0.113.5:40000", "192.0.2.1:30080", "10.1.0.5:8080", "203.0.113.5:40000", expected)
    ]


@pytest.mark.parametrize(("seen", "expected"), [(0, "opening"), (9, "answered")])
def test_datagrams_that_were_answered(tables: Tables, seen: int, expected: str) -> None:
    """They stay once their client has sent again."""
    connect(tables, "opening_flows", 0, 0, seen=seen, protocol=UDP)
    assert [row.state for row in rows(tables)] == [expected]


def test_the_source_that_an_endpoint_elsewhere_sees(tables: Tables) -> None:
    """Given on the way out, by entries of their own, which are no connections of their own."""
    connect(tables, "flows", 0, 0)
    leaves = ((CLIENT, ENDPOINT), (NODE_SOURCE, ENDPOINT))
    tables.enter("flows", EGRESS, *leaves, state=REQUEST, service=0)
    comes = ((ENDPOINT, NODE_SOURCE), (ENDPOINT, CLIENT))
    tables.enter("flows", INGRESS, *comes, state=0, service=0)
    assert [row.source for row in rows(tables)] == ["198.51.100.1:40000"]


def test_the_keys_of_a_connection(tables: Tables) -> None:
    """Of both ways, and where it is masqueraded of both at the other hook: all that there is of it."""
    connect(tables, "flows", 0, 0)
    tables.enter("flows", EGRESS, (CLIENT, ENDPOINT), (NODE_SOURCE, ENDPOINT), state=REQUEST, service=0)
    tables.enter("flows", INGRESS, (ENDPOINT, NODE_SOURCE), (ENDPOINT, CLIENT), state=0, service=0)
    (keys,) = connection_keys(tables, lambda _: WEB, None)
    assert {map_schema.pack_flow_key(key) for key in keys} == tables.tables["flows"].keys()
    assert connection_keys(tables, lambda _: WEB, parse_address("203.0.113.6")) == []
    assert connection_keys(tables, lambda _: None, None) == []


def test_what_is_swept_or_of_another_service_is_left_out(tables: Tables) -> None:
    """As is what another address is asked for."""
    connect(tables, "flows", 0, 0)
    assert len(rows(tables, "10.1.0.5")) == len(rows(tables, "192.0.2.1")) == len(rows(tables, "203.0.113.5")) == 1
    assert rows(tables, "203.0.113.6") == []
    for state in (SWEPT, map_schema.FLOW_RETIRED):
        connect(tables, "flows", state, state)
        assert rows(tables) == []
    tables.enter("flows", INGRESS, (CLIENT, FRONTEND), (CLIENT, ENDPOINT), state=REQUEST, service=SERVICE + 1)
    assert rows(tables) == []


def test_what_is_over_hides_nothing(tables: Tables) -> None:
    """A new connection with the same ends is in the other table until the sweep has made room."""
    connect(tables, "flows", SWEPT, SWEPT)
    connect(tables, "opening_flows", 0, 0)
    assert [row.state for row in rows(tables)] == ["opening"]
