# SPDX-License-Identifier: Apache-2.0
"""Maps that are none: what the kernel would hold, in memory. For tests of this package and of what builds on it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Mapping, Sequence

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.layout.changes import ArrayMap, DeleteEntry, HashMap, InsertEntry
from kubeproxy_ebpf.map_store import MapWriteError

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


class FakeMapStore:
    """Keeps maps in memory, refuses what does not fit, and counts writes."""

    def __init__(self, capacities: Mapping[ArrayMap | HashMap, int] = SMALL) -> None:
        """Start with empty maps."""
        self._capacities = dict(capacities)
        self._arrays = {name: bytearray(map_schema.ENTRY_SIZES[name] * capacities[name]) for name in ArrayMap}
        self.hashes: dict[HashMap, dict[bytes, bytes]] = {name: {} for name in HashMap}
        self.writes = 0
        """Keys written or deleted, and words published."""

    def array(self, name: ArrayMap) -> memoryview:
        """Return the whole array as writable bytes."""
        return memoryview(self._arrays[name])

    def publish(self, name: ArrayMap, byte_offset: int, word: int) -> None:
        """Store an aligned 64-bit word."""
        if byte_offset % 8:
            msg = f"{name.value}: offset {byte_offset} is not aligned to 8"
            raise ValueError(msg)
        self.writes += 1
        self._arrays[name][byte_offset : byte_offset + 8] = word.to_bytes(8, sys.byteorder)

    def insert(self, entries: Sequence[InsertEntry]) -> list[MapWriteError]:
        """Insert entries; return what failed."""
        return [error for entry in entries if (error := self._insert(entry)) is not None]

    def _insert(self, entry: InsertEntry) -> MapWriteError | None:
        content = self.hashes[entry.map]
        self.writes += 1
        if entry.key not in content and len(content) >= self._capacities[entry.map]:
            return MapWriteError(entry.map.value, entry.key, errno.E2BIG, f"map {entry.map.value} is full")
        content[entry.key] = entry.value
        return None

    def delete(self, entries: Sequence[DeleteEntry]) -> list[MapWriteError]:
        """Delete entries; absent keys are fine."""
        for entry in entries:
            self.writes += 1
            self.hashes[entry.map].pop(entry.key, None)
        return []

    def entries(self, name: HashMap) -> Iterator[tuple[bytes, bytes]]:
        """Yield every key and value of a map."""
        yield from list(self.hashes[name].items())

    def capacity(self, name: ArrayMap | HashMap) -> int:
        """Return how many entries the map can hold."""
        return self._capacities[name]

    def wait_for_readers(self) -> None:
        """Return at once: nobody reads behind the test's back."""


class FaultyMapStore(FakeMapStore):
    """Refuses keyed writes that a test names by their number, counted from 1; 0 refuses none."""

    def __init__(self, capacities: Mapping[ArrayMap | HashMap, int] = SMALL) -> None:
        """Start refusing nothing."""
        super().__init__(capacities)
        self.refuse: frozenset[int] = frozenset()
        self._keyed_writes = 0

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
        self._keyed_writes += 1
        return self._keyed_writes in self.refuse

    @staticmethod
    def _refusal(entry: InsertEntry | DeleteEntry) -> MapWriteError:
        return MapWriteError(entry.map.value, entry.key, errno.ENOMEM, f"map {entry.map.value}: no memory")
