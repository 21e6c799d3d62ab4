# SPDX-License-Identifier: Apache-2.0
"""What the kernel's maps hold to what layout knows of them, however an agent before this one ended.

Names tell which ids belong to which Service. What has no name, or is damaged, is kept apart until every Service that
may claim it is known, and then cleared away. Nothing that the maps may hold makes this fail.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.addresses import KNOWN_KINDS
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.layout.found import Found
from kubeproxy_ebpf.layout.self_test import is_self_tests
from kubeproxy_ebpf.layout.states import NO_SET, Owner, PlacedSet, PortState
from kubeproxy_ebpf.map_schema import Set
from kubeproxy_ebpf.map_store import MapStore
from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.plan.service_plan import FrontendKind, ServicePortKey

_CHUNK = 4096
_KINDS = frozenset(map(int, FrontendKind))


class _Parts(NamedTuple):
    """What belongs to each service id."""

    names: dict[int, ServicePortKey]
    namesakes: list[int]
    backends: Mapping[int, list[int]]
    frontends: Mapping[int, list[bytes]]
    source_ranges: Mapping[int, list[bytes]]

    def order(self) -> list[int]:
        """Return the service ids; those with a name, then those that frontends lead to, first."""
        used = {*self.names, *self.namesakes, *self.backends, *self.frontends, *self.source_ranges}
        return sorted(used, key=lambda service: (service not in self.names, service not in self.frontends, service))


def find(store: MapStore) -> Found:
    """Read the maps."""
    found = Found()
    found.backend_data = used_part(store, ArrayMap.BACKENDS)
    # A self-test that begins meanwhile has its frontend before its address: so its address is recognised.
    addresses = list(store.entries(HashMap.ADDRESSES))
    frontends, self_tests = _find_frontends(store, found)
    names, namesakes = _find_names(store, found, frontends)
    parts = _Parts(
        names=names,
        namesakes=namesakes,
        backends=_find_backends(store, found),
        frontends=frontends,
        source_ranges=_find_source_ranges(store, found),
    )
    services, slots = used_part(store, ArrayMap.SERVICES), used_part(store, ArrayMap.SLOTS)
    found.states = list(_states(found, parts, services, slots))
    _find_addresses(addresses, found, self_tests)
    _find_free(found, services, slots)
    return found


def used_part(store: MapStore, name: ArrayMap) -> bytes:
    """Return an array up to its last entry that is not zero."""
    size = schema.ENTRY_SIZES[name]
    zeros, end = bytes(_CHUNK * size), store.capacity(name) * size
    while end >= len(zeros) and store.read(name, end - len(zeros), end) == zeros:
        end -= len(zeros)
    start = max(0, end - len(zeros))
    used = start + len(store.read(name, start, end).rstrip(b"\0"))
    return store.read(name, 0, -(-used // size) * size)


def _find_frontends(store: MapStore, found: Found) -> tuple[dict[int, list[bytes]], set[bytes]]:
    """Find the frontends whose origins are theirs, by service id; and the addresses of the self-test."""
    origins = list(schema.unpack_origins(used_part(store, ArrayMap.ORIGINS)))
    capacity = store.capacity(ArrayMap.SERVICES)
    by_service: dict[int, list[bytes]] = defaultdict(list)
    pointed: set[int] = set()
    self_tests: set[bytes] = set()
    for key, value in store.entries(HashMap.FRONTENDS):
        origin = schema.unpack_u32(value)
        if is_self_tests(key, origin):
            self_tests.add(key[:16])
            continue
        pointed.add(origin)
        frontend, service, kind = origins[origin] if 0 < origin < len(origins) else (b"", 0, 0)
        if frontend != key or kind not in _KINDS or not 0 < service < capacity or not schema.unpack_frontend_key(key):
            found.stray_keys.append((HashMap.FRONTENDS, key))
            continue
        found.owners[key] = Owner(origin, service, kind)
        by_service[service].append(key)
    owned = {owner.origin for owner in found.owners.values()}
    for origin, (_, service, kind) in enumerate(origins):
        if origin and origin not in owned:
            is_stray = service or kind or origin in pointed
            (found.stray_origins if is_stray else found.free.origins).append(origin)
    found.first_unused[ArrayMap.ORIGINS.value] = max(1, len(origins))
    return by_service, self_tests


def _find_names(
    store: MapStore, found: Found, frontends: Mapping[int, list[bytes]]
) -> tuple[dict[int, ServicePortKey], list[int]]:
    """Find whose each service id is. Of namesakes, as a crash can leave them, the one with frontends counts."""
    ids: dict[ServicePortKey, list[int]] = defaultdict(list)
    for packed, value in store.entries(HashMap.SERVICE_NAMES):
        service, key = schema.unpack_u32(packed), schema.unpack_name(value)
        if key is None or not 0 < service < store.capacity(ArrayMap.SERVICES):
            found.stray_keys.append((HashMap.SERVICE_NAMES, packed))
        else:
            ids[key].append(service)
    names, namesakes = {}, []
    for key, services in ids.items():
        chosen = min(services, key=lambda service: (-len(frontends.get(service, ())), service))
        names[chosen] = key
        namesakes += [service for service in services if service != chosen]
    return names, namesakes


def _find_backends(store: MapStore, found: Found) -> dict[int, list[int]]:
    """Find the backends that are in use, by service id."""
    by_service: dict[int, list[int]] = defaultdict(list)
    capacity, allocated = store.capacity(ArrayMap.SERVICES), schema.BACKEND_ALLOCATED
    free = found.free.free_backends
    for number, (_, service, _, _, flags, _) in enumerate(schema.unpack_owners(found.backend_data)):
        if not flags & allocated:
            free.append(number)
        elif 0 < service < capacity:
            by_service[service].append(number)
        else:
            found.free.backends.append(number)
    for numbers in (free, found.free.backends):
        if numbers and numbers[0] == 0:
            del numbers[0]
    found.first_unused[ArrayMap.BACKENDS.value] = max(1, len(found.backend_data) // schema.BACKEND_SIZE)
    return by_service


def _find_source_ranges(store: MapStore, found: Found) -> dict[int, list[bytes]]:
    by_service: dict[int, list[bytes]] = defaultdict(list)
    for key, _ in store.entries(HashMap.SOURCE_RANGES):
        service, _ = schema.unpack_source_range(key)
        if 0 < service < store.capacity(ArrayMap.SERVICES):
            by_service[service].append(key)
        else:
            found.stray_keys.append((HashMap.SOURCE_RANGES, key))
    return by_service


def _states(found: Found, parts: _Parts, services: bytes, slots: bytes) -> Iterable[PortState]:
    """Yield what belongs to each service id. A range of slots belongs to one set only."""
    taken = bytearray(len(slots) // schema.SLOT_SIZE)
    size, none = schema.SERVICE_SIZE, bytes(schema.SERVICE_SIZE)
    for service in parts.order():
        key = parts.names.get(service)
        data = services[service * size : (service + 1) * size] or none
        entry = schema.unpack_service(data)
        is_reachable = key is not None or service in parts.frontends
        cluster = _find_set(entry.cluster_set, slots, taken) if is_reachable else NO_SET
        local = _find_set(entry.local_set, slots, taken) if is_reachable else NO_SET
        backends = parts.backends.get(service, [])
        yield PortState(
            key=key,
            service=service,
            affinity_seconds=entry.affinity_seconds,
            flags=entry.flags,
            cluster=cluster,
            local=local,
            backends=tuple(backends),
            entries=_entries(found.backend_data, backends),
            frontends=tuple(parts.frontends.get(service, ())),
            source_ranges=frozenset(parts.source_ranges.get(service, ())),
        )


def _find_set(place: Set, slots: bytes, taken: bytearray) -> PlacedSet:
    """Read a set. One whose range is not its own has no backends, so that it is another than any that is wanted."""
    base, length = place
    if not place.word:
        return NO_SET
    end = base + length
    if not length or not base or end > len(taken) or taken.find(1, base, end) >= 0:
        return PlacedSet(place)
    taken[base:end] = b"\1" * length
    size = schema.SLOT_SIZE
    return PlacedSet(place, tuple(schema.unpack_slots(slots[base * size : end * size])))


def _entries(data: bytes, backends: list[int]) -> bytes:
    size = schema.BACKEND_SIZE
    if backends and backends[-1] - backends[0] == len(backends) - 1:
        return data[backends[0] * size : (backends[-1] + 1) * size]
    return b"".join([data[number * size : (number + 1) * size] for number in backends])


def _find_addresses(entries: Iterable[tuple[bytes, bytes]], found: Found, self_tests: set[bytes]) -> None:
    ours = {key[:16] for key in found.owners}
    for address, value in entries:
        if address in self_tests and address not in ours:
            continue
        kinds = schema.unpack_u32(value)
        found.addresses[Address(address)] = kinds & KNOWN_KINDS
        if kinds & ~KNOWN_KINDS or not kinds:
            found.stray_keys.append((HashMap.ADDRESSES, address))


def _find_free(found: Found, services: bytes, slots: bytes) -> None:
    """Find the ids and slots between those in use."""
    used = {state.service for state in found.states}
    end = max(len(services) // schema.SERVICE_SIZE, max(used, default=0) + 1, 1)
    found.first_unused[ArrayMap.SERVICES.value] = end
    found.free.free_services += [service for service in range(1, end) if service not in used]
    at = 1
    for base, length in sorted(
        placed.place for state in found.states for placed in (state.cluster, state.local) if placed.backends
    ):
        if base > at:
            found.free.ranges.append(Set(at, base - at))
        at = base + length
    end = max(at, len(slots) // schema.SLOT_SIZE)
    if end > at:
        found.free.ranges.append(Set(at, end - at))
    found.first_unused[ArrayMap.SLOTS.value] = end
