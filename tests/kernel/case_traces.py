# SPDX-License-Identifier: Apache-2.0
"""What the tracer says of behaviour cases: compared with the table, and with what real sockets met."""

from __future__ import annotations

from dataclasses import replace

from kubeproxy_ebpf.cli.explanation import Explanation, Names, explain
from kubeproxy_ebpf.cli.trace_target import Client
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.datapath.trace import Question
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.model.address import Address, parse_address
from kubeproxy_ebpf.plan.service_plan import Source, Verdict
from tests.behaviour import Flow
from tests.kernel.case_world import World
from tests.kernel.emptying import COUNTERS

WRITTEN_BY_PROGRAMS = (
    *("affinity", "peer_names", "sole_origins", "socket_origins_overflow"),
    *("flows", "opening_flows", "fragments"),
)
OF_NO_TRACE = {"socket_origins", "events", "devices", "sweep_state", "flow_room", "flow_room_shares"}
"""Maps of the packet programs that hold nothing of connections, and what cannot be read."""


def trace_flow(world: World, flow: Flow) -> Explanation:
    """Ask what would become of a flow."""
    client = Client(flow.source, flow.source_address)
    netns = world.pod_cookie if flow.source is Source.POD else 0
    trace = world.tracer.trace(Question(flow.destination, client.source, client.address, netns))
    return explain(flow.destination, client, trace, Names(world.datapath.store))


def check_trace(flow: Flow, said: Explanation) -> None:
    """Check that a trace says what the table of cases says."""
    assert said.verdict == flow.verdict.name, (flow.text, said)
    assert endpoints_of(said) == flow.endpoints, (flow.text, said)
    assert bool(said.hooks) >= flow.sockets, flow.text
    if flow.masquerade is not None:
        everyone = {address for address, _ in flow.endpoints}
        expected = everyone if flow.masquerade is True else flow.masquerade or set()
        chosen = {place_of(row.endpoint)[0] for row in said.endpoints if row.masquerade}
        assert chosen == expected, (flow.text, said)
    if flow.affinity is not None:
        assert said.affinity_seconds == flow.affinity, flow.text
    if flow.service_port is not None:
        family = 6 if "[" in said.destination else 4
        assert f"{said.service}/{flow.destination.protocol.name}/IPv{family}" == flow.service_port, flow.text


def as_traced(flow: Flow, said: Explanation) -> Flow:
    """Return a flow that expects what a trace says, for sockets to be judged by."""
    return replace(flow, verdict=Verdict[said.verdict], endpoints=endpoints_of(said))


def endpoints_of(said: Explanation) -> tuple[tuple[Address, int], ...]:
    """Return the endpoints that a trace names, sorted."""
    return tuple(sorted({place_of(row.endpoint) for row in said.endpoints}))


def place_of(text: str) -> tuple[Address, int]:
    """Return an address and port from what a trace prints."""
    host, _, port = text.rpartition(":")
    return parse_address(host.strip("[]")), int(port)


def contents(store: KernelMapStore) -> dict[str, object]:
    """Return what every map holds that user space can read; a socket's own storage is not among them."""
    held: dict[str, object] = {array.value: store.read(array) for array in ArrayMap}
    for name in (*(name.value for name in HashMap), *WRITTEN_BY_PROGRAMS):
        held[name] = dict(store.entries_of(name))
    for name in COUNTERS:
        held[name] = dict(store.counters(name))
    assert store.map_names() - held.keys() == {
        "socket_origins",
        "events",
        "devices",
        "sweep_state",
        "flow_room",
        "flow_room_shares",
    }
    return held
