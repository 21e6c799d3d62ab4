# SPDX-License-Identifier: Apache-2.0
"""What the kernel's maps hold to rows that people and programs can read, sorted.

Made from the maps alone, so that it says what the programs do, whatever an agent believes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.layout.found import Found, PortEntries
from kubeproxy_ebpf.layout.restore import find
from kubeproxy_ebpf.layout.states import PlacedSet
from kubeproxy_ebpf.map_schema import BackendEntry
from kubeproxy_ebpf.map_store import MapStore
from kubeproxy_ebpf.model.address import Address, format_address
from kubeproxy_ebpf.plan.service_plan import FrontendKind

KINDS: Mapping[FrontendKind, str] = {
    FrontendKind.CLUSTER_IP: "ClusterIP",
    FrontendKind.EXTERNAL_IP: "ExternalIP",
    FrontendKind.LOAD_BALANCER: "LoadBalancer",
    FrontendKind.NODE_PORT: "NodePort",
}
_NANOSECONDS = 1_000_000_000


class ReadableMaps(MapStore, Protocol):
    """Maps, with those that only the programs write."""

    def entries_of(self, map_name: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield every key and value of any keyed map."""
        ...

    def counters(self, map_name: str) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield index and sums of each counter that is not zero."""
        ...


class ServicePortRow(NamedTuple):
    """One service port of one family."""

    namespace: str
    name: str
    port: str
    protocol: str
    cluster_ip: str
    endpoints: int
    local_endpoints: int
    internal_policy: str
    external_policy: str
    affinity_seconds: int
    source_ranges: tuple[str, ...]
    id: int


class FrontendRow(NamedTuple):
    """One address that clients use."""

    namespace: str
    name: str
    port: str
    protocol: str
    kind: str
    address: str
    service: int
    origin: int


class BackendRow(NamedTuple):
    """One endpoint of one service port."""

    namespace: str
    name: str
    port: str
    protocol: str
    endpoint: str
    in_cluster_set: bool
    in_local_set: bool
    on_this_node: bool
    generation: int
    service: int
    id: int


class SetRow(NamedTuple):
    """One set of a service port: what a connection picks from."""

    namespace: str
    name: str
    port: str
    protocol: str
    set: str
    base: int
    slots: int
    endpoints: tuple[str, ...]


class AffinityRow(NamedTuple):
    """One client's record."""

    namespace: str
    name: str
    port: str
    protocol: str
    client: str
    endpoint: str
    idle_seconds: int
    in_effect: bool
    """Neither timed out nor of an endpoint that has gone."""


class CounterRow(NamedTuple):
    """What one service port counted."""

    namespace: str
    name: str
    port: str
    protocol: str
    connections: int
    refused: int


class ReasonRow(NamedTuple):
    """How often something was refused, or could not be done, for one reason."""

    reason: str
    times: int


Names = tuple[str, str, str, str]
"""Of a service port: namespace, name, port, protocol and family."""


class Filter(NamedTuple):
    """Which Services are asked for; empty: all."""

    namespace: str = ""
    name: str = ""

    def matches(self, namespace: str, name: str) -> bool:
        """Whether a Service is asked for."""
        return self.namespace in {"", namespace} and self.name in {"", name}


class Inventory:
    """All that the maps hold for the Services asked for, read once."""

    def __init__(self, maps: ReadableMaps, wanted: Filter) -> None:
        """Read the maps."""
        self._maps = maps
        self._found: Found = find(maps)
        ports = [
            port for port in self._found.ports if wanted.matches(port.key.service.namespace, port.key.service.name)
        ]
        self._ports: Sequence[PortEntries] = sorted(ports, key=lambda port: port.key)
        self._by_id = {port.service: port for port in ports}
        self._backends: Mapping[int, BackendEntry] = dict(self._found.backends)
        self._shows_everything = wanted == Filter()

    def names_of(self, service: int) -> Names | None:
        """Return namespace, name, port and protocol of a service id; None: not asked for, or not there any more."""
        port = self._by_id.get(service)
        return _names(port) if port else None

    def services(self) -> list[ServicePortRow]:
        """Return the service ports."""
        return [
            ServicePortRow(
                *_names(port),
                cluster_ip=_cluster_ip(port),
                endpoints=len(set(port.cluster.backends)),
                local_endpoints=self._count_local(port),
                internal_policy=policy(port.flags & map_schema.SERVICE_INTERNAL_LOCAL),
                external_policy=policy(port.flags & map_schema.SERVICE_EXTERNAL_LOCAL),
                affinity_seconds=port.affinity_seconds,
                source_ranges=tuple(sorted(map(str, port.source_ranges))),
                id=port.service,
            )
            for port in self._ports
        ]

    def _count_local(self, port: PortEntries) -> int:
        """Return how many endpoints that traffic may go to are on this node, whatever the traffic policies are."""
        used = {*port.cluster.backends, *port.local.backends}
        entries = (self._backends.get(number) for number in used)
        return sum(bool(entry.flags & map_schema.BACKEND_LOCAL) for entry in entries if entry is not None)

    def frontends(self) -> list[FrontendRow]:
        """Return the frontends."""
        return [
            FrontendRow(*_names(port), KINDS[kind], host_and_port(key.address, key.port), port.service, origin)
            for port in self._ports
            for key, (origin, kind) in sorted(port.origins.items(), key=lambda item: (item[1][1], item[0]))
        ]

    def backends(self) -> list[BackendRow]:
        """Return the backends that belong to a service port."""
        return [self._backend(port, number) for port in self._ports for _, number in sorted(port.backends.items())]

    def _backend(self, port: PortEntries, number: int) -> BackendRow:
        entry = self._backends[number]
        return BackendRow(
            *_names(port),
            endpoint=host_and_port(entry.address, entry.port),
            in_cluster_set=bool(entry.flags & map_schema.BACKEND_IN_CLUSTER_SET),
            in_local_set=bool(entry.flags & map_schema.BACKEND_IN_LOCAL_SET),
            on_this_node=bool(entry.flags & map_schema.BACKEND_LOCAL),
            generation=entry.generation,
            service=port.service,
            id=number,
        )

    def sets(self) -> list[SetRow]:
        """Return the sets, in the order of their slots; a damaged one has no endpoints."""
        return [
            SetRow(*_names(port), name, placed.place.base, placed.place.length, tuple(self._members(placed)))
            for port in self._ports
            for name, placed in (("cluster", port.cluster), ("local", port.local))
        ]

    def _members(self, placed: PlacedSet) -> Iterator[str]:
        for number in placed.backends:
            entry = self._backends.get(number)
            if entry is not None:
                yield host_and_port(entry.address, entry.port)

    def affinity(self, now: int) -> list[AffinityRow]:
        """Return the clients' records; ``now``: nanoseconds since boot."""
        rows = []
        for key, value in self._maps.entries_of("affinity"):
            record = map_schema.unpack_affinity(key, value)
            port, backend = self._by_id.get(record.service), self._backends.get(record.backend)
            if port is None or backend is None:
                continue
            idle = max(0, now - record.last_connection) // _NANOSECONDS
            is_same = (backend.service, backend.generation) == (record.service, record.generation)
            client = f"netns {record.client}" if isinstance(record.client, int) else format_address(record.client)
            endpoint = host_and_port(backend.address, backend.port)
            rows.append(AffinityRow(*_names(port), client, endpoint, idle, is_same and idle < port.affinity_seconds))
        return sorted(rows)

    def counters(self) -> list[CounterRow]:
        """Return what each service port counted; those without a counter of their own are one row without a name."""
        rows = []
        for service, (connections, refused) in self._maps.counters("service_counters"):
            if service == 0 and self._shows_everything:
                rows.append(CounterRow("", "", "", "", connections, refused))
            elif service in self._by_id:
                rows.append(CounterRow(*_names(self._by_id[service]), connections, refused))
        return sorted(rows)

    def reasons(self) -> list[ReasonRow]:
        """Return how often each reason came up, on this node and for all Services."""
        return [
            ReasonRow(map_schema.REASONS[number] if number < len(map_schema.REASONS) else str(number), count)
            for number, (count,) in sorted(self._maps.counters("reason_counters"))
        ]


def _names(port: PortEntries) -> tuple[str, str, str, str]:
    """Return what begins every row: namespace, name, port and protocol."""
    key = port.key
    return key.service.namespace, key.service.name, key.port, f"{key.protocol.name}/IPv{key.family.value}"


def host_and_port(address: Address, port: int) -> str:
    """Return an address and port as people write them: ``10.96.0.10:80``, ``[fd00::10]:80``."""
    text = format_address(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def _cluster_ip(port: PortEntries) -> str:
    found = [key for key, (_, kind) in port.origins.items() if kind is FrontendKind.CLUSTER_IP]
    return ", ".join(host_and_port(key.address, key.port) for key in sorted(found))


def policy(flag: int) -> str:
    """Return the traffic policy that a flag of a service stands for."""
    return "Local" if flag else "Cluster"
