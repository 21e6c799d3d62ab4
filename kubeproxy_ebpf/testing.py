# SPDX-License-Identifier: Apache-2.0
"""Maps that are none: what the kernel would hold, in memory. For tests of this package and of what builds on it."""

from __future__ import annotations

import enum
import errno
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import NamedTuple

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.layout.changes import ArrayMap, DeleteEntry, HashMap, InsertEntry
from kubeproxy_ebpf.map_schema import Set
from kubeproxy_ebpf.map_store import MapWriteError
from kubeproxy_ebpf.model.address import Address, Prefix
from kubeproxy_ebpf.plan.service_plan import FrontendKey, FrontendKind

SMALL: Mapping[ArrayMap | HashMap, int] = {
    ArrayMap.SERVICES: 256,
    ArrayMap.SLOTS: 1024,
    ArrayMap.BACKENDS: 512,
    ArrayMap.ORIGINS: 512,
    ArrayMap.SETTINGS: 1,
    HashMap.ADDRESSES: 512,
    HashMap.FRONTENDS: 512,
    HashMap.SOURCE_RANGES: 512,
    HashMap.SERVICE_NAMES: 256,
}
"""Capacities that a test fills in no time."""


class Element:
    """What a look-up in a keyed map returns: a place, whose value is another key's as soon as it is recycled."""

    __slots__ = ("value",)

    def __init__(self, value: bytes) -> None:
        """Start with the value of the key that was asked for."""
        self.value = value


class LoggedWrite(NamedTuple):
    """One write of a key, or of a word of an array."""

    map: ArrayMap | HashMap
    place: bytes | int
    """The key; the word's offset in bytes."""
    value: bytes | int | None
    """None: deleted."""


class FakeMapStore:
    """Keeps maps in memory, refuses what does not fit, and logs writes.

    Copies into arrays are not in the log: whoever makes them has the memory itself, as with the kernel's.
    """

    def __init__(self, capacities: Mapping[ArrayMap | HashMap, int] = SMALL) -> None:
        """Start with empty maps."""
        self._capacities = dict(capacities)
        self._arrays = {name: bytearray(map_schema.ENTRY_SIZES[name] * capacities[name]) for name in ArrayMap}
        self._looked_up: dict[HashMap, dict[bytes, Element]] = {name: {} for name in HashMap}
        self._recycled: dict[HashMap, list[Element]] = {name: [] for name in HashMap}
        self.hashes: dict[HashMap, dict[bytes, bytes]] = {name: {} for name in HashMap}
        self.log: list[LoggedWrite] = []

    @property
    def writes(self) -> int:
        """How many keys were written or deleted, and words published."""
        return len(self.log)

    def read(self, name: ArrayMap, start: int = 0, end: int | None = None) -> bytes:
        """Return bytes of an array, by default all."""
        return bytes(self._arrays[name][start:end])

    def write(self, name: ArrayMap, start: int, data: bytes) -> None:
        """Overwrite bytes of an array."""
        array = memoryview(self._arrays[name])
        array[start : start + len(data)] = data

    def publish(self, name: ArrayMap, byte_offset: int, word: int) -> None:
        """Store an aligned 64-bit word."""
        if byte_offset % 8:
            msg = f"{name.value}: offset {byte_offset} is not aligned to 8"
            raise ValueError(msg)
        self.log.append(LoggedWrite(name, byte_offset, word))
        self._arrays[name][byte_offset : byte_offset + 8] = word.to_bytes(8, sys.byteorder)

    def insert(self, entries: Sequence[InsertEntry]) -> list[MapWriteError]:
        """Insert entries; return what failed."""
        return [error for entry in entries if (error := self._insert(entry)) is not None]

    def _insert(self, entry: InsertEntry) -> MapWriteError | None:
        content = self.hashes[entry.map]
        self.log.append(LoggedWrite(entry.map, entry.key, entry.value))
        if entry.key not in content and len(content) >= self._capacities[entry.map]:
            return MapWriteError(entry.map.value, entry.key, errno.E2BIG, f"map {entry.map.value} is full")
        for element in self._recycled[entry.map]:
            element.value = entry.value
        self._recycle(entry.map, entry.key)
        content[entry.key] = entry.value
        return None

    def delete(self, entries: Sequence[DeleteEntry]) -> list[MapWriteError]:
        """Delete entries; absent keys are fine."""
        for entry in entries:
            self.log.append(LoggedWrite(entry.map, entry.key, None))
            self._recycle(entry.map, entry.key)
            self.hashes[entry.map].pop(entry.key, None)
        return []

    def _recycle(self, name: HashMap, key: bytes) -> None:
        element = self._looked_up[name].pop(key, None)
        if element is not None:
            self._recycled[name].append(element)

    def look_up(self, name: HashMap, key: bytes) -> Element | None:
        """Return the place of a key's value. Once the key is gone, it shows the value that was inserted last."""
        value = self.hashes[name].get(key)
        return None if value is None else self._looked_up[name].setdefault(key, Element(value))

    def entries(self, name: HashMap) -> Iterator[tuple[bytes, bytes]]:
        """Yield every key and value of a map."""
        yield from list(self.hashes[name].items())

    def fingerprint(self, name: HashMap) -> int:
        """Return a number that stands for the contents of a map."""
        return hash(tuple(self.hashes[name].items()))

    def capacity(self, name: ArrayMap | HashMap) -> int:
        """Return how many entries the map can hold."""
        return self._capacities[name]

    def wait_for_readers(self) -> None:
        """Return at once: nobody reads behind the test's back."""


class FaultyMapStore(FakeMapStore):
    """Refuses keyed writes that a test names by their number, counted from 1."""

    def __init__(self, capacities: Mapping[ArrayMap | HashMap, int] = SMALL) -> None:
        """Start refusing nothing."""
        super().__init__(capacities)
        self.refuse: frozenset[int] = frozenset()
        self.keyed_writes = 0

    def insert(self, entries: Sequence[InsertEntry]) -> list[MapWriteError]:
        """Insert entries, but for those refused."""
        errors = []
        for entry in entries:
            errors += [self._refusal(entry)] if self._is_refused() else super().insert([entry])
        return errors

    def delete(self, entries: Sequence[DeleteEntry]) -> list[MapWriteError]:
        """Delete entries, but for those refused."""
        errors = []
        for entry in entries:
            errors += [self._refusal(entry)] if self._is_refused() else super().delete([entry])
        return errors

    def _is_refused(self) -> bool:
        self.keyed_writes += 1
        return self.keyed_writes in self.refuse

    @staticmethod
    def _refusal(entry: InsertEntry | DeleteEntry) -> MapWriteError:
        return MapWriteError(entry.map.value, entry.key, errno.ENOMEM, f"map {entry.map.value}: no memory")


class Outcome(enum.Enum):
    """What becomes of a connection."""

    MISS = "no Service's"
    DENIED = "its source is not allowed"
    REJECT = "no endpoints"
    DROP = "no local endpoints"
    DNAT = "to a backend"
    BROKEN = "a slot or a backend is not there"


class Member(NamedTuple):
    """A backend as a reader found it in a set."""

    endpoint: bytes
    """As :func:`map_schema.pack_endpoint` packs it."""
    id: int
    generation: int
    in_set: bool
    """Whether its flags say that it is in the set that was read: then affinity holds on to it."""


class Answer(NamedTuple):
    """What a reader found, and where."""

    outcome: Outcome
    members: tuple[Member, ...] = ()
    origin: int = 0
    service: int = 0
    affinity_seconds: int = 0


class Reader:
    """Reads the maps as the programs do, but of a set it reads every slot: each may have been the one picked."""

    _ATTEMPTS = 3

    def __init__(self, store: FakeMapStore) -> None:
        """Read the maps of a store."""
        self._store = store

    def answer(self, key: FrontendKey, source: Address) -> Answer:
        """Return what becomes of a connection."""
        steps = self.steps(key, source)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                answer: Answer = end.value
                return answer

    def steps(self, key: FrontendKey, source: Address) -> Generator[None, None, Answer]:
        """Stop before every access to a map; in the end, return what becomes of a connection."""
        packed = map_schema.pack_frontend_key(key)
        for _ in range(self._ATTEMPTS):
            yield
            element = self._store.look_up(HashMap.FRONTENDS, packed)
            if element is None:
                return Answer(Outcome.MISS)
            yield
            origin = map_schema.unpack_u32(element.value)
            yield
            frontend = map_schema.unpack_origin(self._entry(ArrayMap.ORIGINS, origin)).key
            yield
            owner = map_schema.unpack_origin(self._entry(ArrayMap.ORIGINS, origin))
            if frontend == packed and owner.kind:
                return (yield from self._serve(origin, owner.service, FrontendKind(owner.kind), source))
        return Answer(Outcome.MISS)

    def _serve(self, origin: int, service: int, kind: FrontendKind, source: Address) -> Generator[None, None, Answer]:
        members, is_local, flags, seconds = yield from self._read_service(service, kind)
        if kind is FrontendKind.LOAD_BALANCER and flags & map_schema.SERVICE_SOURCE_RANGES:
            yield
            if not self._is_allowed(service, source):
                return Answer(Outcome.DENIED)
        if not members.length:
            has_endpoints = flags & map_schema.SERVICE_HAS_ENDPOINTS
            return Answer(Outcome.DROP if has_endpoints else Outcome.REJECT)
        in_set = map_schema.BACKEND_IN_LOCAL_SET if is_local else map_schema.BACKEND_IN_CLUSTER_SET
        found = []
        for slot in range(members.base, members.base + members.length):
            yield
            (backend,) = map_schema.unpack_slots(self._entry(ArrayMap.SLOTS, slot))
            yield
            entry = next(map_schema.unpack_backends(self._entry(ArrayMap.BACKENDS, backend)))
            if entry.service != service:
                return Answer(Outcome.BROKEN)
            yield
            state = next(map_schema.unpack_backends(self._entry(ArrayMap.BACKENDS, backend)))
            if not state.flags:
                return Answer(Outcome.BROKEN)
            yield
            entry = next(map_schema.unpack_backends(self._entry(ArrayMap.BACKENDS, backend)))
            endpoint = map_schema.pack_endpoint(entry.address, state.port)
            found.append(Member(endpoint, backend, state.generation, bool(state.flags & in_set)))
        return Answer(Outcome.DNAT, tuple(found), origin, service, seconds)

    def _read_service(self, service: int, kind: FrontendKind) -> Generator[None, None, tuple[Set, bool, int, int]]:
        """Read policy and set. An empty set is read twice: the policy that goes with it may just have changed."""
        for _ in range(2):
            yield
            rules = map_schema.unpack_service(self._entry(ArrayMap.SERVICES, service))
            is_local = kind is FrontendKind.CLUSTER_IP and bool(rules.flags & map_schema.SERVICE_INTERNAL_LOCAL)
            yield
            sets = map_schema.unpack_service(self._entry(ArrayMap.SERVICES, service))
            members = sets.local_set if is_local else sets.cluster_set
            if members.length:
                break
        return members, is_local, rules.flags, rules.affinity_seconds

    def _is_allowed(self, service: int, source: Address) -> bool:
        ranges = map(map_schema.unpack_source_range, self._store.hashes[HashMap.SOURCE_RANGES])
        return any(owner == service and _holds(prefix, source) for owner, prefix in ranges)

    def remembers(self, key: FrontendKey, origin: int, backend: int, generation: int) -> bool:
        """Whether an unconnected UDP socket may keep a backend that it was given for a frontend."""
        owner = map_schema.unpack_origin(self._entry(ArrayMap.ORIGINS, origin))
        if owner.key != map_schema.pack_frontend_key(key) or not owner.kind:
            return False
        entry = next(map_schema.unpack_backends(self._entry(ArrayMap.BACKENDS, backend)))
        return entry.service == owner.service and bool(entry.flags) and entry.generation == generation

    def _entry(self, name: ArrayMap, number: int) -> bytes:
        size = map_schema.ENTRY_SIZES[name]
        return bytes(self._store.read(name, number * size, (number + 1) * size))


def _holds(prefix: Prefix, address: Address) -> bool:
    """Whether a longest prefix match finds the prefix: bit for bit, whatever the family."""
    shift = 128 - prefix.length
    return int.from_bytes(address, "big") >> shift == int.from_bytes(prefix.network, "big") >> shift
