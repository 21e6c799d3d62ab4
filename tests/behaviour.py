# SPDX-License-Identifier: Apache-2.0
"""The table of behaviour cases (tests/cases/*.yaml) to dataclasses, for whoever can run it.

A case is a node, settings and one or more steps; a step is all the objects there are from then on, and what then
becomes of connections.  The shape of a file:

    cases:
      - id: unique-name
        row: "1.2 Local set"            # the row of the behaviour reference, in words
        node: {zone: zone-a, ...}       # what differs from the usual node, see ``_node``
        settings: {masquerade_all: true, ...}
        steps:                          # or objects, flows, problems, refused here, for a single step
          - objects: [...]              # as Kubernetes has them
            flows:
              - {from: pod, to: "10.96.0.10:80/TCP", verdict: dnat, endpoints: ["10.244.0.5:8080"], masquerade: false}
            problems: [part of a sentence that the plan must give]     # none expected without
            refused: [part of the message of an object that is refused]

``from`` is pod, node or outside, with ``=address`` for another source than the usual one of its kind and family.
``masquerade`` is true, false, or the list of those endpoints (addresses) whose connections are masqueraded; it is
not looked at without.  ``affinity`` (seconds) and ``service_port`` (as ServicePortKey prints it) likewise.
``sockets: false`` with a reason in ``why`` marks what a socket hook cannot show.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kubeproxy_ebpf.decode import decode_node
from kubeproxy_ebpf.model.address import Address, Family, Prefix, family_of, parse_address, parse_prefix
from kubeproxy_ebpf.model.objects import Protocol
from kubeproxy_ebpf.model.settings import LocalDetection, NodePortKeyword, NodeState, Settings
from kubeproxy_ebpf.plan.service_plan import FrontendKey, Source, Verdict

FOLDER = Path(__file__).parent / "cases"

NODE_NAME = "this-node"
USUAL_SOURCES = {
    Source.POD: {Family.IPV4: "10.244.0.100", Family.IPV6: "fd00:10:244::100"},
    Source.NODE: {Family.IPV4: "192.0.2.10", Family.IPV6: "2001:db8::10"},
    Source.OUTSIDE: {Family.IPV4: "203.0.113.5", Family.IPV6: "2001:db8:ffff::5"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A new connection, and what must become of it."""

    source: Source
    source_address: Address
    destination: FrontendKey
    verdict: Verdict
    endpoints: tuple[tuple[Address, int], ...]
    """Where it may go to, every one of them in the long run; sorted. Empty unless the verdict is DNAT."""
    masquerade: bool | frozenset[Address] | None
    affinity: int | None
    service_port: str | None
    sockets: bool
    """Whether a socket hook can show it."""
    why: str
    """If not, why."""
    text: str
    """The flow as the table writes it."""

    @property
    def packets(self) -> bool:
        """Whether the packet programs carry it out: it comes from outside, by a protocol that they know."""
        return self.source is Source.OUTSIDE and self.destination.protocol is not Protocol.SCTP


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """All the objects there are, and what becomes of connections then."""

    objects: tuple[dict[str, Any], ...]
    flows: tuple[Flow, ...]
    problems: tuple[str, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row's edge: a node with settings, and what happens there."""

    id: str
    row: str
    file: str
    node_object: dict[str, Any]
    """The raw Node object, for those who start from manifests."""
    node: NodeState
    settings: Settings
    steps: tuple[Step, ...]


@functools.cache
def load_cases() -> tuple[Case, ...]:
    """Read the whole table, sorted by file, in the order of each file."""
    cases = [
        _case(path.name, raw)
        for path in sorted(FOLDER.glob("*.yaml"))
        for raw in yaml.safe_load(path.read_text(encoding="utf-8"))["cases"]
    ]
    ids = [case.id for case in cases]
    if len(set(ids)) != len(ids):
        msg = f"several cases are named {sorted({one for one in ids if ids.count(one) > 1})}"
        raise ValueError(msg)
    return tuple(cases)


def _case(file: str, raw: dict[str, Any]) -> Case:
    single = {key: raw.pop(key) for key in ("objects", "flows", "problems", "refused") if key in raw}
    steps = raw.pop("steps", [single])
    if single and steps != [single]:
        msg = f"{file}: {raw['id']} has steps and a step of its own"
        raise ValueError(msg)
    node_object, node = _node(**raw.pop("node", {}))
    settings = _settings(**raw.pop("settings", {}))
    steps = tuple(_step(**step) for step in steps)
    return Case(file=file, node_object=node_object, node=node, settings=settings, steps=steps, **raw)


def _node(
    *,
    labels: dict[str, str] | None = None,
    addresses: tuple[str, ...] = ("192.0.2.10", "2001:db8::10"),
    external_addresses: tuple[str, ...] = (),
    pod_cidrs: tuple[str, ...] = ("10.244.0.0/24", "fd00:10:244::/64"),
    interface_addresses: tuple[str, ...] = ("192.0.2.10", "2001:db8::10", "127.0.0.1", "::1"),
) -> tuple[dict[str, Any], NodeState]:
    raw = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": NODE_NAME,
            "labels": {"topology.kubernetes.io/zone": "zone-a"} if labels is None else labels,
        },
        "spec": {"podCIDRs": list(pod_cidrs)},
        "status": {
            "addresses": [{"type": "Hostname", "address": NODE_NAME}]
            + [{"type": "ExternalIP", "address": address} for address in external_addresses]
            + [{"type": "InternalIP", "address": address} for address in addresses]
        },
    }
    return raw, NodeState(node=decode_node(raw), interface_addresses=frozenset(map(parse_address, interface_addresses)))


def _settings(
    *,
    node_port_addresses: tuple[str, ...] = ("primary",),
    exclude_cidrs: tuple[str, ...] = (),
    service_cidrs: tuple[str, ...] = ("10.96.0.0/16", "fd00:10:96::/112"),
    local_detection: str = "ClusterCIDR",
    cluster_cidrs: tuple[str, ...] = ("10.244.0.0/16", "fd00:10:244::/56"),
    bind_address: str = "",
    **others: Any,
) -> Settings:
    return Settings(
        node_port_addresses=tuple(map(_node_port_entry, node_port_addresses)),
        exclude_cidrs=tuple(map(parse_prefix, exclude_cidrs)),
        service_cidrs=tuple(map(parse_prefix, service_cidrs)),
        local_detection=LocalDetection(local_detection),
        cluster_cidrs=tuple(map(parse_prefix, cluster_cidrs)),
        bind_address=parse_address(bind_address) if bind_address else None,
        **others,
    )


def _node_port_entry(text: str) -> Prefix | NodePortKeyword:
    return parse_prefix(text) if "/" in text else NodePortKeyword(text)


def _step(
    *,
    objects: list[dict[str, Any]],
    flows: list[dict[str, Any]],
    problems: list[str] | None = None,
    refused: list[str] | None = None,
) -> Step:
    return Step(
        objects=tuple(objects),
        flows=tuple(_flow(**{"from_" if key == "from" else key: value for key, value in raw.items()}) for raw in flows),
        problems=tuple(problems or ()),
        refused=tuple(refused or ()),
    )


def _flow(
    *,
    from_: str,
    to: str,
    verdict: str,
    endpoints: list[str] | None = None,
    masquerade: bool | list[str] | None = None,
    affinity: int | None = None,
    service_port: str | None = None,
    sockets: bool = True,
    why: str = "",
) -> Flow:
    kind, _, given = from_.partition("=")
    source = Source(kind)
    host_and_port, _, protocol = to.partition("/")
    destination = FrontendKey(*_host_and_port(host_and_port), Protocol[protocol])
    if (verdict == "dnat") is not bool(endpoints):
        msg = f"{to}: endpoints go with the verdict dnat, and with no other"
        raise ValueError(msg)
    if sockets and source is Source.OUTSIDE:
        sockets, why = False, "a connection from outside passes no socket of this node"
    if sockets and destination.protocol is Protocol.SCTP:
        sockets, why = False, "there is no socket hook for SCTP"
    if not sockets and not why:
        msg = f"{to}: sockets: false needs a reason (why)"
        raise ValueError(msg)
    return Flow(
        source=source,
        source_address=parse_address(given or USUAL_SOURCES[source][family_of(destination.address)]),
        destination=destination,
        verdict=Verdict[verdict.upper()],
        endpoints=tuple(sorted(map(_host_and_port, endpoints or ()))),
        masquerade=frozenset(map(parse_address, masquerade)) if isinstance(masquerade, list) else masquerade,
        affinity=affinity,
        service_port=service_port,
        sockets=sockets,
        why=why,
        text=f"{from_} to {to}",
    )


def _host_and_port(text: str) -> tuple[Address, int]:
    host, _, port = text.rpartition(":")
    return parse_address(host.strip("[]")), int(port)
