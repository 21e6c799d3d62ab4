# SPDX-License-Identifier: Apache-2.0
"""What the packet programs remember of connections, to rows: one for each, from its two or four entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.cli.inventory import Names, ReadableMaps, host_and_port
from kubeproxy_ebpf.map_schema import Flow, FlowKey
from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.model.objects import Protocol

NamesOf = Callable[[int], Names | None]

_TABLES = ("opening_flows", "flows")
_NOBODYS = map_schema.FLOW_SWEPT | map_schema.FLOW_RETIRED
_OTHER_HOOK = {
    map_schema.FLOW_INGRESS: map_schema.FLOW_EGRESS,
    map_schema.FLOW_EGRESS: map_schema.FLOW_INGRESS,
}


class FlowRow(NamedTuple):
    """One connection from outside."""

    namespace: str
    name: str
    port: str
    protocol: str
    client: str
    frontend: str
    endpoint: str
    source: str
    """What the endpoint sees as the client: the client itself, or an address of this node."""
    state: str


def flow_rows(maps: ReadableMaps, names_of: NamesOf, address: Address | None) -> list[FlowRow]:
    """Return the connections, sorted. ``names_of`` says whose a service id is, None: not asked for.

    ``address``: only those of this client, frontend or endpoint.
    """
    tables = {name: dict(_entries(maps, name)) for name in _TABLES}
    everything = {**tables["opening_flows"], **tables["flows"]}
    return sorted(
        FlowRow(
            *names,
            client=host_and_port(key.source, key.source_port),
            frontend=host_and_port(key.destination, key.destination_port),
            endpoint=host_and_port(flow.destination, flow.destination_port),
            source=_source(key, flow, everything),
            state=_state(key, flow, everything, stands=key in tables["flows"]),
        )
        for names, key, flow in _chosen(everything, names_of, address)
    )


def connection_keys(maps: ReadableMaps, names_of: NamesOf, address: Address | None) -> list[tuple[FlowKey, ...]]:
    """Return the keys of each connection's entries: of what it sends, and of what answers that, at each hook."""
    everything = {key: flow for name in _TABLES for key, flow in _entries(maps, name)}
    connections = []
    for _, key, flow in _chosen(everything, names_of, address):
        leaving = _leaving_key(key, flow)
        leaves = everything.get(leaving)
        masquerade = (leaving, _answer_key(leaving, leaves)) if leaves else ()
        connections.append((key, _answer_key(key, flow), *masquerade))
    return connections


def _chosen(
    everything: Mapping[FlowKey, Flow], names_of: NamesOf, address: Address | None
) -> Iterator[tuple[Names, FlowKey, Flow]]:
    for key, flow in everything.items():
        names = names_of(flow.service) if _begins_here(key, flow) else None
        if names is not None and address in {None, key.source, key.destination, flow.destination}:
            yield names, key, flow


def _entries(maps: ReadableMaps, name: str) -> Iterator[tuple[FlowKey, Flow]]:
    """Yield what is somebody's."""
    for key, value in maps.entries_of(name):
        flow = map_schema.unpack_flow(value)
        if not flow.state & _NOBODYS:
            yield map_schema.unpack_flow_key(key), flow


def _begins_here(key: FlowKey, flow: Flow) -> bool:
    """Whether an entry is that of what a client sends to a frontend."""
    return bool(flow.state & map_schema.FLOW_REQUEST and flow.service) and key.hook == map_schema.FLOW_INGRESS


def _leaving_key(key: FlowKey, flow: Flow) -> FlowKey:
    """Return the key of a request on its way out, where it may be given another source."""
    return FlowKey(
        flow.source, flow.source_port, flow.destination, flow.destination_port, key.protocol, map_schema.FLOW_EGRESS
    )


def _answer_key(key: FlowKey, flow: Flow) -> FlowKey:
    return FlowKey(
        flow.destination, flow.destination_port, flow.source, flow.source_port, key.protocol, _OTHER_HOOK[key.hook]
    )


def _source(key: FlowKey, flow: Flow, everything: Mapping[FlowKey, Flow]) -> str:
    """Return what the endpoint sees."""
    seen = everything.get(_leaving_key(key, flow), flow)
    return host_and_port(seen.source, seen.source_port)


def _state(key: FlowKey, flow: Flow, everything: Mapping[FlowKey, Flow], *, stands: bool) -> str:
    other = everything.get(_answer_key(key, flow))
    both = flow.state | (other.state if other else 0)
    if both & map_schema.FLOW_REFUSED:
        return "refused"
    if both & map_schema.FLOW_RST:
        return "reset"
    if both & map_schema.FLOW_FIN:
        return "closed" if other and flow.state & other.state & map_schema.FLOW_FIN else "closing"
    if stands and not flow.state & map_schema.FLOW_UNCONFIRMED:
        return "established"
    is_answered = other is not None and other.seen
    return "answered" if is_answered and key.protocol == Protocol.UDP else "opening"
