# SPDX-License-Identifier: Apache-2.0
"""What the kernel's maps hold to what layout knows of them, however an agent before this one ended.

Names tell which ids belong to which Service. What belongs to nobody, or is damaged, becomes garbage: changes that
clear it away once every Service that may still claim it is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.changes import ArrayMap, Change, DeleteEntry, HashMap, Phase, PublishWord
from kubeproxy_ebpf.layout.entries import PlacedSet, PortEntries
from kubeproxy_ebpf.map_schema import EMPTY_SET, BackendEntry, OriginEntry, Set
from kubeproxy_ebpf.map_store import MapStore
from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.plan.service_plan import FrontendKind, ServicePortKey

_NO_BACKEND = -1
SELF_TEST_ORIGIN = 0
"""The self-test's frontends lead here; they are left alone."""


@dataclass(slots=True)
class Found:
    """What the maps hold."""

    ports: list[PortEntries] = field(default_factory=list)
    backends: list[tuple[int, BackendEntry]] = field(default_factory=list)
    """Every entry that ever was in use."""
    addresses: dict[Address, int] = field(default_factory=dict)
    garbage: list[Change] = field(default_factory=list)


def find(store: MapStore) -> Found:
    """Read the maps. Nothing that they may hold makes this fail."""
    found = Found()
    ports = _named_ports(store, found)
    _find_backends(store, found, ports)
    _find_sets(store, ports)
    _find_frontends(store, found, ports)
    _find_source_ranges(store, found, ports)
    found.addresses = {Address(key): schema.unpack_u32(value) for key, value in store.entries(HashMap.ADDRESSES)}
    found.ports = list(ports.values())
    return found


def _named_ports(store: MapStore, found: Found) -> dict[int, PortEntries]:
    ports: dict[int, PortEntries] = {}
    seen: set[ServicePortKey] = set()
    capacity = store.capacity(ArrayMap.SERVICES)
    for packed, value in sorted(store.entries(HashMap.SERVICE_NAMES)):
        service, key = schema.unpack_u32(packed), schema.unpack_name(value)
        if key is None or key in seen or not 0 < service < capacity:
            found.garbage.append(DeleteEntry(Phase.UNGUARD, HashMap.SERVICE_NAMES, packed))
            continue
        seen.add(key)
        ports[service] = PortEntries(key, service, named=True)
    return ports


def _find_backends(store: MapStore, found: Found, ports: Mapping[int, PortEntries]) -> None:
    data = store.array(ArrayMap.BACKENDS)
    for number, entry in enumerate(schema.unpack_backends(data[: _used(data, ArrayMap.BACKENDS)])):
        if number == 0 or not (entry.generation or entry.flags):
            continue
        found.backends.append((number, entry))
        if not entry.flags & schema.BACKEND_ALLOCATED:
            continue
        port = ports.get(entry.service)
        endpoint = entry.address, entry.port
        if port is None or endpoint in port.backends:
            generation = (entry.generation + 1) & 0xFFFFFFFF
            word = schema.backend_state_word(generation, 0, entry.port)
            found.garbage.append(
                PublishWord(Phase.RETIRE, ArrayMap.BACKENDS, number, schema.BACKEND_STATE_OFFSET, word)
            )
            found.backends[-1] = number, entry._replace(generation=generation, flags=0)
        else:
            port.backends[endpoint] = number


def _find_sets(store: MapStore, ports: Mapping[int, PortEntries]) -> None:
    services, slots = store.array(ArrayMap.SERVICES), store.array(ArrayMap.SLOTS)
    wanted: list[tuple[Set, PortEntries, bool]] = []
    for port in ports.values():
        size = schema.ENTRY_SIZES[ArrayMap.SERVICES]
        entry = schema.unpack_service(services[port.service * size : (port.service + 1) * size])
        port.affinity_seconds, port.flags = entry.affinity_seconds, entry.flags
        wanted += [(entry.cluster_set, port, False), (entry.local_set, port, True)]
    end = 1
    for place, port, is_local in sorted(wanted, key=lambda item: item[0]):
        placed = _read_set(slots, place, port, end, store.capacity(ArrayMap.SLOTS))
        end = max(end, placed.place.base + placed.place.length)
        if is_local:
            port.local = placed
        else:
            port.cluster = placed


def _read_set(slots: memoryview, place: Set, port: PortEntries, end: int, capacity: int) -> PlacedSet:
    """Read a set; one that is damaged differs from every plan, so that it is written anew."""
    if place == EMPTY_SET:
        return PlacedSet()
    broken = PlacedSet(Set(place.base, 0), (_NO_BACKEND,))
    if place.length == 0 or place.base < end or place.base + place.length > capacity:
        return broken
    size = schema.ENTRY_SIZES[ArrayMap.SLOTS]
    backends = schema.unpack_slots(slots[place.base * size : (place.base + place.length) * size])
    if set(backends) - set(port.backends.values()):
        return broken
    return PlacedSet(place, tuple(backends))


def _find_frontends(store: MapStore, found: Found, ports: Mapping[int, PortEntries]) -> None:
    origins = store.array(ArrayMap.ORIGINS)
    seen: set[int] = set()
    for packed, value in store.entries(HashMap.FRONTENDS):
        origin, key = schema.unpack_u32(value), schema.unpack_frontend_key(packed)
        if origin == SELF_TEST_ORIGIN:
            continue
        entry = _origin_entry(origins, origin)
        port = ports.get(entry.service) if entry else None
        kind = _kind(entry) if entry else None
        if key is None or port is None or kind is None or origin in seen or entry is None or entry.key != packed:
            found.garbage.append(DeleteEntry(Phase.WITHDRAW, HashMap.FRONTENDS, packed))
            continue
        seen.add(origin)
        port.origins[key] = origin, kind


def _origin_entry(origins: memoryview, origin: int) -> OriginEntry | None:
    size = schema.ENTRY_SIZES[ArrayMap.ORIGINS]
    data = origins[origin * size : (origin + 1) * size]
    return schema.unpack_origin(data) if len(data) == size else None


def _kind(entry: OriginEntry) -> FrontendKind | None:
    try:
        return FrontendKind(entry.kind)
    except ValueError:
        return None


def _find_source_ranges(store: MapStore, found: Found, ports: Mapping[int, PortEntries]) -> None:
    for packed, _ in store.entries(HashMap.SOURCE_RANGES):
        service, prefix = schema.unpack_source_range(packed)
        port = ports.get(service)
        if port is None:
            found.garbage.append(DeleteEntry(Phase.UNGUARD, HashMap.SOURCE_RANGES, packed))
        else:
            port.source_ranges |= {prefix}


def _used(data: memoryview, name: ArrayMap) -> int:
    """Return how many bytes there are up to the last entry that is not zero."""
    size = schema.ENTRY_SIZES[name]
    chunk = 4096 * size
    end = len(data)
    zeros = bytes(chunk)
    while end >= chunk and data[end - chunk : end] == zeros:
        end -= chunk
    return end
