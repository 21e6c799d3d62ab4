# SPDX-License-Identifier: Apache-2.0
"""What layout believes against what the kernel's maps hold, as the changes that repair the difference.

Live entries are repaired word by word. What is in a grace period is left alone, and so are free entries, but for
those that claim to be somebody's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.changes import (
    ArrayMap,
    Change,
    DeleteEntry,
    HashMap,
    InsertEntry,
    Phase,
    PublishWord,
)
from kubeproxy_ebpf.layout.contents import ONE, Contents
from kubeproxy_ebpf.layout.keys import DELETE_PHASES, INSERT_PHASES
from kubeproxy_ebpf.layout.layout import Layout
from kubeproxy_ebpf.layout.restore import used_part
from kubeproxy_ebpf.layout.self_test import is_self_tests
from kubeproxy_ebpf.layout.states import PortState
from kubeproxy_ebpf.map_schema import OriginEntry, ServiceEntry
from kubeproxy_ebpf.map_store import MapStore


def audit(layout: Layout, store: MapStore) -> tuple[Change, ...]:
    """Return the changes after which the maps hold what they should. Only between batches."""
    contents = layout.contents
    changes: list[Change] = [*_repair_arrays(contents, store), *_repair_free_entries(contents, store)]
    # Addresses are read first: a self-test that begins meanwhile has its frontend before its address.
    found = {name: dict(store.entries(name)) for name in HashMap}
    for name, wanted in _wanted(contents).items():
        changes += _repair_keys(contents, name, wanted, found)
    return tuple(sorted(changes, key=lambda change: (change.phase, change.map.value)))


def _repair_arrays(contents: Contents, store: MapStore) -> Iterator[Change]:
    for port in contents.ports.values():
        for name, at, wanted in _entries(port):
            yield from _repair(store, name, at, wanted)
    for key, owner in contents.owners.items():
        yield from _repair(store, ArrayMap.ORIGINS, owner.origin, schema.pack_origin(OriginEntry(key, *owner[1:])))


def _entries(port: PortState) -> Iterator[tuple[ArrayMap, int, bytes]]:
    """Yield every array entry of a service port."""
    entry = ServiceEntry(port.cluster.place, port.local.place, port.affinity_seconds, port.flags)
    yield ArrayMap.SERVICES, port.service, schema.pack_service(entry)
    for placed in (port.cluster, port.local):
        if placed.backends:
            yield ArrayMap.SLOTS, placed.place.base, schema.pack_slots(placed.backends)
    for position, backend in enumerate(port.backends):
        size = schema.BACKEND_SIZE
        yield ArrayMap.BACKENDS, backend, port.entries[position * size : (position + 1) * size]


def _repair(store: MapStore, name: ArrayMap, at: int, wanted: bytes) -> Iterator[Change]:
    size = schema.ENTRY_SIZES[name]
    found = store.read(name, at * size, at * size + len(wanted))
    for offset, word in schema.differing_words(found, wanted):
        yield PublishWord(Phase.PUBLISH, name, at + offset // size, offset % size, word)


def _repair_free_entries(contents: Contents, store: MapStore) -> Iterator[Change]:
    """Mark entries as free that are nobody's: readers remember ids longer than a grace period."""
    used = {backend for port in contents.ports.values() for backend in port.backends} | contents.epochs.backend_ids
    data = used_part(store, ArrayMap.BACKENDS)
    for backend, (_, _, _, _, flags, _) in enumerate(schema.unpack_owners(data)):
        if flags and backend and backend not in used:
            generation = contents.generations[backend] if backend < len(contents.generations) else 0
            word = schema.backend_state_word(generation, 0, 0)
            yield PublishWord(Phase.RELEASE, ArrayMap.BACKENDS, backend, schema.BACKEND_STATE_OFFSET, word)
    used = {owner.origin for owner in contents.owners.values()}
    data = used_part(store, ArrayMap.ORIGINS)
    for origin, (_, service, kind) in enumerate(schema.unpack_origins(data)):
        if (service or kind) and origin and origin not in used:
            yield PublishWord(Phase.RETIRE, ArrayMap.ORIGINS, origin, schema.ORIGIN_OWNER_OFFSET, 0)


def _wanted(contents: Contents) -> dict[HashMap, dict[bytes, bytes]]:
    ports = contents.ports.values()
    addresses = ((address, contents.addresses.kinds(address)) for address in contents.addresses)
    return {
        HashMap.SERVICE_NAMES: {
            schema.pack_u32(port.service): schema.pack_name(port.key) for port in ports if port.key
        },
        HashMap.SOURCE_RANGES: dict.fromkeys(contents.source_ranges, ONE),
        HashMap.FRONTENDS: {key: schema.pack_u32(owner.origin) for key, owner in contents.owners.items()},
        HashMap.ADDRESSES: {address: schema.pack_u32(kinds) for address, kinds in addresses},
    }


def _repair_keys(
    contents: Contents, name: HashMap, wanted: Mapping[bytes, bytes], found: Mapping[HashMap, Mapping[bytes, bytes]]
) -> Iterator[Change]:
    for key, value in wanted.items():
        if found[name].get(key) != value:
            yield InsertEntry(INSERT_PHASES[name], name, key, value)
    left_alone = _left_alone(contents, name, found)
    for key in found[name]:
        if key not in wanted and key not in left_alone:
            yield DeleteEntry(DELETE_PHASES[name], name, key)


def _left_alone(contents: Contents, name: HashMap, found: Mapping[HashMap, Mapping[bytes, bytes]]) -> set[bytes]:
    """Return the keys that are the self-test's, or go when their grace period has passed."""
    frontends = found[HashMap.FRONTENDS].items()
    self_tests = {key for key, value in frontends if is_self_tests(key, schema.unpack_u32(value))}
    match name:
        case HashMap.FRONTENDS:
            return self_tests
        case HashMap.ADDRESSES:
            return {key[:16] for key in self_tests}
        case HashMap.SERVICE_NAMES:
            return {schema.pack_u32(service) for service in contents.epochs.service_ids}
        case HashMap.SOURCE_RANGES:
            return set()
