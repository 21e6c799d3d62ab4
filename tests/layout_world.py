# SPDX-License-Identifier: Apache-2.0
"""A small world for tests of layout: plans made of numbers, what readers should see of them, and who applies them.

A world is what all Services plan at a moment. There are few of everything, so that Services meet: they take each
other's frontends, addresses, and ids.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.layout.audit import Audit
from kubeproxy_ebpf.layout.changes import ArrayMap, Change, HashMap, PublishWord, WriteEntries
from kubeproxy_ebpf.layout.layout import Batch, Layout
from kubeproxy_ebpf.layout.restore import find
from kubeproxy_ebpf.model.address import Address, Family, Prefix, parse_address, parse_prefix
from kubeproxy_ebpf.model.objects import ObjectName, Protocol
from kubeproxy_ebpf.plan.service_plan import (
    Frontend,
    FrontendKey,
    FrontendKind,
    PlannedEndpoint,
    ServicePlan,
    ServicePortKey,
    ServicePortPlan,
    SetRule,
)
from kubeproxy_ebpf.testing import Answer, FakeMapStore, Outcome, Reader
from kubeproxy_ebpf.writer import apply_changes

World = Mapping[ObjectName, ServicePlan]

SERVICES = tuple(ObjectName("test", name) for name in ("a", "b", "c"))
PORTS = (("web", Protocol.TCP, 80), ("dns", Protocol.UDP, 53))
KEYS = tuple(
    ServicePortKey(service, name, protocol, Family.IPV4) for service in SERVICES for name, protocol, _ in PORTS
)
SOURCES = (parse_address("10.1.0.1"), parse_address("10.2.0.1"))
SOURCE_RANGES: tuple[tuple[Prefix, ...] | None, ...] = (
    None,
    None,
    (),
    (parse_prefix("10.1.0.0/16"),),
    (parse_prefix("10.2.0.0/16"),),
    (parse_prefix("10.0.0.0/8"), parse_prefix("10.2.0.0/16")),
)
EXCLUDABLE = (parse_address("10.96.0.1"), parse_address("10.96.0.9"))
ENDPOINTS = tuple(
    PlannedEndpoint(parse_address(f"10.244.0.{number}"), 8080, number % 2 == 0, "") for number in range(1, 6)
)

_CLUSTER_IPS = ("10.96.0.1", "10.96.0.2")
_EXTERNAL_IPS = ("10.3.0.1", "192.0.2.9")
_NODE = "10.4.0.1"


class Claimable(NamedTuple):
    """A frontend that Services may have, one at a time, and what it may be."""

    key: FrontendKey
    kinds: tuple[FrontendKind, ...]


def _claimable() -> tuple[Claimable, ...]:
    external = (FrontendKind.EXTERNAL_IP, FrontendKind.LOAD_BALANCER)
    found = []
    for _, protocol, port in PORTS:
        for address in _CLUSTER_IPS:
            key = FrontendKey(parse_address(address), port, protocol)
            found.append(Claimable(key, (FrontendKind.CLUSTER_IP,)))
        found += [Claimable(FrontendKey(parse_address(address), port, protocol), external) for address in _EXTERNAL_IPS]
        node_port = FrontendKey(parse_address(_NODE), 30000 + port, protocol)
        found.append(Claimable(node_port, (FrontendKind.NODE_PORT,)))
    return tuple(found)


CLAIMABLE = _claimable()
FRONTENDS = tuple(one.key for one in CLAIMABLE)


class _Digits:
    """Takes a number apart."""

    def __init__(self, number: int) -> None:
        self._rest = number

    def __call__(self, base: int) -> int:
        self._rest, digit = divmod(self._rest, base)
        return digit


def _pick(mask: int) -> tuple[PlannedEndpoint, ...]:
    return tuple(endpoint for bit, endpoint in enumerate(ENDPOINTS) if mask >> bit & 1)


def _port_plan(key: ServicePortKey, number: int, frontends: tuple[Frontend, ...]) -> ServicePortPlan | None:
    digit = _Digits(number)
    if not digit(4):
        return None
    all_, kept = 1 << len(ENDPOINTS), digit(4)
    cluster, local, lingering = digit(all_), digit(all_), digit(all_)
    if not kept:
        cluster = local = 0
    internal_local, external_local = bool(digit(2)), bool(digit(2))
    return ServicePortPlan(
        key=key,
        frontends=frontends,
        cluster_set=_pick(cluster),
        local_set=_pick(local) if internal_local or external_local else (),
        lingering=_pick(lingering & ~cluster & ~local),
        has_endpoints=bool(cluster) or bool(digit(2)),
        internal_local=internal_local,
        external_local=external_local,
        affinity_seconds=(0, 10800)[digit(2)],
        source_ranges=SOURCE_RANGES[digit(len(SOURCE_RANGES))],
        cluster_rule=SetRule(digit(len(SetRule))),
        local_rule=SetRule(digit(len(SetRule))),
        cluster_ip_rules={},
        external_rules={},
    )


def world_of(ports: Sequence[int], claims: int, exclusions: int) -> World:
    """Turn numbers into a world: one for each of ``KEYS``; who has which frontend; who excludes what."""
    digit = _Digits(claims)
    frontends: dict[ServicePortKey, list[Frontend]] = {key: [] for key in KEYS}
    for one in CLAIMABLE:
        candidates = [key for key in KEYS if key.protocol is one.key.protocol]
        owner, kind = digit(len(candidates) + 1), digit(2)
        if owner < len(candidates):
            frontends[candidates[owner]].append(Frontend(one.key, one.kinds[kind % len(one.kinds)]))
    plans = {key: _port_plan(key, number, tuple(frontends[key])) for key, number in zip(KEYS, ports, strict=True)}
    digit = _Digits(exclusions)
    excluded = {service: tuple(address for address in EXCLUDABLE if digit(4) == 3) for service in SERVICES}
    return {
        service: ServicePlan(
            service=service,
            ports=tuple(plan for key in KEYS if key.service == service and (plan := plans[key])),
            excluded_addresses=excluded[service],
        )
        for service in SERVICES
        if excluded[service] or any(plans[key] for key in KEYS if key.service == service)
    }


def worlds() -> st.SearchStrategy[World]:
    """Return a strategy for worlds."""
    return st.builds(
        world_of,
        st.tuples(*[st.integers(0, 1 << 38)] * len(KEYS)),
        st.integers(0, 8 ** len(CLAIMABLE)),
        st.integers(0, 4**6),
    )


def ports_of(world: World) -> dict[ServicePortKey, ServicePortPlan]:
    """Return the plans of all service ports."""
    return {port.key: port for plan in world.values() for port in plan.ports}


def owner_of(world: World, key: FrontendKey) -> tuple[ServicePortPlan, FrontendKind] | None:
    """Return who has a frontend, and what it is."""
    for port in ports_of(world).values():
        for frontend in port.frontends:
            if frontend.key == key:
                return port, frontend.kind
    return None


def endpoint_keys(endpoints: Iterable[PlannedEndpoint]) -> tuple[bytes, ...]:
    """Return endpoints as readers name them, sorted."""
    return tuple(sorted(map_schema.pack_endpoint(address, port) for address, port, _, _ in endpoints))


class Expected(NamedTuple):
    """What a connection should find."""

    outcome: Outcome
    endpoints: tuple[bytes, ...] = ()
    affinity_seconds: int = 0


def expected(world: World, key: FrontendKey, source: Address) -> Expected:
    """Return what becomes of a connection, from the plans alone."""
    owner = owner_of(world, key)
    if owner is None:
        return Expected(Outcome.MISS)
    port, kind = owner
    if not is_allowed(port, kind, source):
        return Expected(Outcome.DENIED)
    is_local = kind is FrontendKind.CLUSTER_IP and port.internal_local
    endpoints = endpoint_keys(port.local_set if is_local else port.cluster_set)
    if endpoints:
        return Expected(Outcome.DNAT, endpoints, port.affinity_seconds)
    return Expected(Outcome.DROP if port.has_endpoints else Outcome.REJECT)


def is_allowed(port: ServicePortPlan, kind: FrontendKind, source: Address) -> bool:
    """Whether a frontend lets a source in."""
    ranges = port.source_ranges if kind is FrontendKind.LOAD_BALANCER else None
    return ranges is None or any(source in prefix for prefix in ranges)


def seen(answer: Answer) -> Expected:
    """Return an answer as an expectation says it."""
    return Expected(answer.outcome, tuple(sorted(one.endpoint for one in answer.members)), answer.affinity_seconds)


def small_writes(changes: Iterable[Change]) -> Iterator[Change]:
    """Take copies apart into words: a copy may be interrupted, or read, in its middle."""
    for change in changes:
        if not isinstance(change, WriteEntries):
            yield change
            continue
        size = map_schema.ENTRY_SIZES[change.map]
        for start in range(0, len(change.data), 8):
            word = int.from_bytes(change.data[start : start + 8], sys.byteorder)
            yield PublishWord(change.phase, change.map, change.at + start // size, start % size, word)


class Node:
    """Layout and maps together: does what the reconciler does."""

    def __init__(self, store: FakeMapStore) -> None:
        """Start as an agent does: with what the maps hold."""
        self.store = store
        self.layout = Layout({name: store.capacity(name) for name in (*ArrayMap, *HashMap)})
        self.layout.adopt(find(store))
        self.world: dict[ObjectName, ServicePlan] = {}
        self.again: set[ObjectName] = set()

    def batch_for(self, world: World) -> Batch:
        """Return the batch for what differs from the last world, and for what must be tried again."""
        known = sorted({*self.world, *world, *self.again})
        names = [name for name in known if world.get(name) != self.world.get(name) or name in self.again]
        self.world = dict(world)
        return self.layout.prepare({name: world.get(name) for name in names})

    def apply(self, batch: Batch) -> None:
        """Apply a batch wholly."""
        failed = [failure.change for failure in apply_changes(self.store, batch.changes)]
        self.commit(batch, failed)

    def commit(self, batch: Batch, failed: Collection[Change] = ()) -> None:
        """Commit a batch."""
        self.again -= batch.services
        self.again |= self.layout.commit(batch, failed) | {error.service for error in batch.errors}
        check_nothing_is_shared(self.layout)

    def reconcile(self, world: World) -> None:
        """Bring the maps to a world."""
        self.apply(self.batch_for(world))

    def rest(self) -> None:
        """Let grace periods pass until nothing waits for one."""
        while True:
            self.apply(self.layout.defragment())
            if not self.layout.close_epoch():
                return
            self.apply(self.layout.grace_passed())

    def settle(self, world: World) -> None:
        """Bring the maps to a world, whatever has to be tried again, and leave nothing else in them."""
        for _ in range(100):
            self.reconcile(world)
            self.apply(self.layout.prune(frozenset(world)))
            self.rest()
            if not self.again:
                return
        raise AssertionError(self.again)


def audit(layout: Layout, store: FakeMapStore) -> tuple[Change, ...]:
    """Return what a first audit would repair."""
    return tuple(change for repairs in Audit(layout, store).parts() for change in repairs)


def check_nothing_is_shared(layout: Layout) -> None:
    """Check that everything that is handed out belongs to one, and is neither free nor in a grace period."""
    contents = layout.contents
    ports = contents.ports.values()
    epochs = [contents.epochs.open, *([contents.epochs.closed] if contents.epochs.closed else [])]
    slots = [placed.place for port in ports for placed in (port.cluster, port.local) if placed.backends]
    slots += [place for epoch in epochs for place in epoch.ranges] + contents.slots.holes
    _all_different(slot for base, length in slots for slot in range(base, base + length))
    _all_different(
        [
            *(number for port in ports for number in port.backends),
            *(number for epoch in epochs for number in (*epoch.backends, *epoch.free_backends)),
            *contents.backends.free,
        ]
    )
    _all_different(
        [
            *contents.ports,
            *(number for epoch in epochs for number in (*epoch.services, *epoch.free_services)),
            *contents.services.free,
        ]
    )
    _all_different(
        [
            *(owner.origin for owner in contents.owners.values()),
            *(number for epoch in epochs for number in epoch.origins),
            *contents.origins.free,
        ]
    )


def _all_different(numbers: Iterable[int]) -> None:
    numbers = list(numbers)
    assert len(numbers) == len(set(numbers))
    assert 0 not in numbers


def check_answers(store: FakeMapStore, world: World) -> None:
    """Check that every connection finds what it should, and that affinity would hold on to all of it."""
    reader = Reader(store)
    for key in FRONTENDS:
        for source in SOURCES:
            answer = reader.answer(key, source)
            assert seen(answer) == expected(world, key, source)
            assert all(member.in_set for member in answer.members)


def check_settled(node: Node, world: World, capacities: Mapping[ArrayMap | HashMap, int]) -> None:
    """Check that the maps are what a cold start makes of a world, and that nothing leaks."""
    cold = Node(FakeMapStore(capacities))
    cold.settle(world)
    check_answers(node.store, world)
    assert node.store.hashes[HashMap.ADDRESSES] == addresses_of(world)
    assert node.layout.fill() == cold.layout.fill()
    assert contents_by_name(node) == contents_by_name(cold)
    assert not audit(node.layout, node.store)
    check_no_backend_is_left(node.store, world)


def addresses_of(world: World) -> dict[bytes, bytes]:
    """Return what the map of addresses should hold: every kind that some Service gives an address."""
    bits = {
        FrontendKind.CLUSTER_IP: map_schema.ADDRESS_CLUSTER_IP,
        FrontendKind.EXTERNAL_IP: map_schema.ADDRESS_EXTERNAL,
        FrontendKind.LOAD_BALANCER: map_schema.ADDRESS_EXTERNAL,
        FrontendKind.NODE_PORT: map_schema.ADDRESS_NODE,
    }
    kinds: dict[bytes, int] = {}
    for plan in world.values():
        for address in plan.excluded_addresses:
            kinds[address] = kinds.get(address, 0) | map_schema.ADDRESS_EXCLUDED
    for port in ports_of(world).values():
        for frontend in port.frontends:
            kinds[frontend.key.address] = kinds.get(frontend.key.address, 0) | bits[frontend.kind]
    return {address: map_schema.pack_u32(kind) for address, kind in kinds.items()}


def check_no_backend_is_left(store: FakeMapStore, world: World) -> None:
    """Check that entries say they are in use exactly for the endpoints that are planned; entry 0 is nobody's."""
    entries = map_schema.unpack_backends(store.read(ArrayMap.BACKENDS, map_schema.BACKEND_SIZE))
    planned = sum(len({*port.cluster_set, *port.local_set, *port.lingering}) for port in ports_of(world).values())
    assert sum(bool(entry.flags) for entry in entries) == planned


def contents_by_name(node: Node) -> dict[str, object]:
    """Return all that the maps hold, with names in place of ids."""
    found = find(node.store)
    return {
        "addresses": node.store.hashes[HashMap.ADDRESSES],
        "ports": {
            port.key: (
                port.affinity_seconds,
                port.flags,
                {key: kind for key, (_, kind) in port.origins.items()},
                port.source_ranges,
                _flags(port.backends, found.backends),
            )
            for port in found.ports
        },
        "frontends": len(node.store.hashes[HashMap.FRONTENDS]),
    }


def _flags(
    backends: Mapping[tuple[Address, int], int], entries: Iterable[tuple[int, map_schema.BackendEntry]]
) -> dict[tuple[Address, int], int]:
    by_number = dict(entries)
    return {endpoint: by_number[number].flags for endpoint, number in backends.items()}
