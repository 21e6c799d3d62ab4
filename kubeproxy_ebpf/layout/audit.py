# SPDX-License-Identifier: Apache-2.0
"""What layout believes against what the kernel's maps hold, as the changes that repair the difference.

Live entries are repaired word by word. What is in a grace period is left alone, and so are free entries, but for
those that claim to be somebody's. Maps are compared one after the other, so that whoever has something urgent to do
can do it in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import compress

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
from kubeproxy_ebpf.layout.ids import runs
from kubeproxy_ebpf.layout.keys import DELETE_PHASES, INSERT_PHASES
from kubeproxy_ebpf.layout.layout import Layout
from kubeproxy_ebpf.layout.restore import used_part
from kubeproxy_ebpf.layout.self_test import is_self_tests
from kubeproxy_ebpf.map_schema import OriginEntry, ServiceEntry
from kubeproxy_ebpf.map_store import MapStore

Repairs = tuple[Change, ...]
_Part = Callable[[Contents, MapStore], Iterable[Change]]


class Audit:
    """Compares again and again. What was in order and has changed on neither side since is only read, not compared."""

    def __init__(self, layout: Layout, store: MapStore) -> None:
        """Start with nothing known to be in order."""
        self._layout = layout
        self._store = store
        self._known: dict[_Part, tuple[int, ...]] = {}

    def parts(self) -> Iterator[Repairs]:
        """Yield the repairs of one part of the maps after the other. Between two of them there may be batches."""
        for part, maps in _PARTS.items():
            state = (self._layout.revision, *(_fingerprint(self._store, name) for name in maps))
            if self._known.get(part) == state:
                yield ()
                continue
            repairs = _in_order(part(self._layout.contents, self._store))
            if not repairs:
                self._known[part] = state
            yield repairs


def _in_order(changes: Iterable[Change]) -> Repairs:
    return tuple(sorted(changes, key=lambda change: (change.phase, change.map.value)))


def _fingerprint(store: MapStore, name: ArrayMap | HashMap) -> int:
    return hash(used_part(store, name)) if isinstance(name, ArrayMap) else store.fingerprint(name)


# Arrays


def _repair_services(contents: Contents, store: MapStore) -> Iterator[Change]:
    found, size = used_part(store, ArrayMap.SERVICES), schema.SERVICE_SIZE
    for service, port in contents.ports.items():
        entry = ServiceEntry(port.cluster.place, port.local.place, port.affinity_seconds, port.flags)
        start, wanted = service * size, schema.pack_service(entry)
        if found[start : start + size] != wanted:
            yield from _repair_entry(ArrayMap.SERVICES, found, service, wanted)


def _repair_slots(contents: Contents, store: MapStore) -> Iterator[Change]:
    found, size = used_part(store, ArrayMap.SLOTS), schema.SLOT_SIZE
    for port in contents.ports.values():
        for (base, _), backends in (port.cluster, port.local):
            wanted = schema.pack_slots(backends)
            if backends and found[base * size : base * size + len(wanted)] != wanted:
                yield from _repair_entry(ArrayMap.SLOTS, found, base, wanted)


def _repair_backends(contents: Contents, store: MapStore) -> Iterator[Change]:
    found, size = used_part(store, ArrayMap.BACKENDS), schema.BACKEND_SIZE
    claims = schema.backend_flags(found)
    for port in contents.ports.values():
        for start, end in runs(port.backends):
            first, count = port.backends[start], end - start
            wanted = port.entries[start * size : end * size]
            claims[first : first + count] = [0] * count
            if found[first * size : (first + count) * size] != wanted:
                yield from _repair_entry(ArrayMap.BACKENDS, found, first, wanted)
    # Nobody's entries are marked as free: readers remember ids longer than a grace period.
    claimed = set(compress(range(len(claims)), claims))
    for backend in claimed - contents.epochs.backend_ids - {0}:
        generation = contents.generations[backend] if backend < len(contents.generations) else 0
        word = schema.backend_state_word(generation, 0, 0)
        yield PublishWord(Phase.RELEASE, ArrayMap.BACKENDS, backend, schema.BACKEND_STATE_OFFSET, word)


def _repair_origins(contents: Contents, store: MapStore) -> Iterator[Change]:
    found, size = used_part(store, ArrayMap.ORIGINS), schema.ORIGIN_SIZE
    used = {0}
    for key, (origin, service, kind) in contents.owners.items():
        start, wanted = origin * size, schema.pack_origin(OriginEntry(key, service, kind))
        used.add(origin)
        if found[start : start + size] != wanted:
            yield from _repair_entry(ArrayMap.ORIGINS, found, origin, wanted)
    for origin, (_, service, kind) in enumerate(schema.unpack_origins(found)):
        if (service or kind) and origin not in used:
            yield PublishWord(Phase.RETIRE, ArrayMap.ORIGINS, origin, schema.ORIGIN_OWNER_OFFSET, 0)


def _repair_entry(name: ArrayMap, found: bytes, at: int, wanted: bytes) -> Iterator[Change]:
    """Yield the words that differ; ``found`` ends where nothing was ever written."""
    size = schema.ENTRY_SIZES[name]
    there = found[at * size : at * size + len(wanted)].ljust(len(wanted), b"\0")
    for offset, word in schema.differing_words(there, wanted):
        yield PublishWord(Phase.PUBLISH, name, at + offset // size, offset % size, word)


# Keyed maps


def _repair_names(contents: Contents, store: MapStore) -> Iterator[Change]:
    wanted = {
        schema.pack_u32(service): schema.pack_name(port.key) for service, port in contents.ports.items() if port.key
    }
    in_grace_period = {schema.pack_u32(service) for service in contents.epochs.service_ids}
    return _repair_keys(HashMap.SERVICE_NAMES, dict(store.entries(HashMap.SERVICE_NAMES)), wanted, in_grace_period)


def _repair_source_ranges(contents: Contents, store: MapStore) -> Iterator[Change]:
    wanted = dict.fromkeys(contents.source_ranges, ONE)
    return _repair_keys(HashMap.SOURCE_RANGES, dict(store.entries(HashMap.SOURCE_RANGES)), wanted, set())


def _repair_frontends_and_addresses(contents: Contents, store: MapStore) -> Iterator[Change]:
    # Addresses are read first: a self-test that begins meanwhile has its frontend before its address.
    addresses = dict(store.entries(HashMap.ADDRESSES))
    frontends = dict(store.entries(HashMap.FRONTENDS))
    wanted: dict[bytes, bytes] = {key: schema.pack_u32(owner.origin) for key, owner in contents.owners.items()}
    self_tests: set[bytes] = set()
    if frontends != wanted:
        self_tests = {key for key, value in frontends.items() if is_self_tests(key, schema.unpack_u32(value))}
        yield from _repair_keys(HashMap.FRONTENDS, frontends, wanted, self_tests)
    wanted = {address: schema.pack_u32(kinds) for address, kinds in contents.addresses.items()}
    yield from _repair_keys(HashMap.ADDRESSES, addresses, wanted, {key[:16] for key in self_tests})


def _repair_keys(
    name: HashMap, found: Mapping[bytes, bytes], wanted: Mapping[bytes, bytes], left_alone: set[bytes]
) -> Iterator[Change]:
    if found == wanted:
        return
    for key, value in wanted.items():
        if found.get(key) != value:
            yield InsertEntry(INSERT_PHASES[name], name, key, value)
    for key in found:
        if key not in wanted and key not in left_alone:
            yield DeleteEntry(DELETE_PHASES[name], name, key)


_PARTS: Mapping[_Part, tuple[ArrayMap | HashMap, ...]] = {
    _repair_backends: (ArrayMap.BACKENDS,),
    _repair_slots: (ArrayMap.SLOTS,),
    _repair_services: (ArrayMap.SERVICES,),
    _repair_origins: (ArrayMap.ORIGINS,),
    _repair_names: (HashMap.SERVICE_NAMES,),
    _repair_source_ranges: (HashMap.SOURCE_RANGES,),
    _repair_frontends_and_addresses: (HashMap.FRONTENDS, HashMap.ADDRESSES),
}
"""What repairs which maps, in this order: what is led to before what leads there."""
