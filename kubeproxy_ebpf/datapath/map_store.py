# SPDX-License-Identifier: Apache-2.0
"""The kernel's maps behind :class:`kubeproxy_ebpf.map_store.MapStore`.

Arrays are memory of this process as far as they are in use, so that endpoint churn costs no system call; keyed maps are
written in batches. Made by :mod:`.loader`, for the agent (writable) or from the pins alone (read-only, for ``dump``).
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from kubeproxy_ebpf.datapath import batches
from kubeproxy_ebpf.datapath.grace_period import GracePeriod
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.memory import SharedArray
from kubeproxy_ebpf.datapath.map_sizes import FLOW_TABLES
from kubeproxy_ebpf.layout.changes import ArrayMap, DeleteEntry, HashMap, InsertEntry
from kubeproxy_ebpf.map_store import MapWriteError

_FULL = {errno.E2BIG, errno.ENOSPC}
"""What a hash and a trie say when they are full."""


class KernelMapStore:
    """Reads and writes the maps behind a set of descriptors. One thread at a time, but for :meth:`wait_for_readers`."""

    def __init__(self, descriptors: Mapping[str, int], *, writable: bool = True) -> None:
        """Take over the descriptors, by map name, and map the arrays into memory.

        Raises:
            OSError: a map is not what its name promises.
        """
        self._resources = ExitStack()
        self._descriptors = dict(descriptors)
        for fd in descriptors.values():
            self._resources.callback(os.close, fd)
        self._grace_period = GracePeriod()
        self._resources.callback(self._grace_period.close)
        try:
            self._infos = {name: syscalls.map_info(fd) for name, fd in descriptors.items()}
            self._arrays = {
                name: self._map_array(name.value, writable=writable) for name in ArrayMap if name.value in descriptors
            }
        except BaseException:
            self._resources.close()
            raise

    def _map_array(self, name: str, *, writable: bool) -> SharedArray:
        memory = SharedArray(self._descriptors[name], writable=writable)
        self._resources.callback(memory.close)
        return memory

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give descriptors and memory back; what is pinned lives on."""
        self._resources.close()

    def read(self, name: ArrayMap, start: int = 0, end: int | None = None) -> bytes:
        """Return bytes of an array, by default all; entry i starts at i times the value's size."""
        array = self._arrays[name]
        return array.read(start, array.size if end is None else end)

    def write(self, name: ArrayMap, start: int, data: bytes) -> None:
        """Overwrite bytes of an array, in no order that a reader could rely on."""
        self._arrays[name].write(start, data)

    def publish(self, name: ArrayMap, byte_offset: int, word: int) -> None:
        """Store an aligned 64-bit word with release semantics."""
        self._arrays[name].publish(byte_offset, word)

    def insert(self, entries: Sequence[InsertEntry]) -> list[MapWriteError]:
        """Insert entries of one map in as few system calls as the kernel allows; return what failed."""
        if not entries:
            return []
        name = _one_map(entries)
        failures = batches.insert(self._descriptors[name], [(entry.key, entry.value) for entry in entries])
        return [self._write_error(name, entries[index].key, error) for index, error in failures]

    def delete(self, entries: Sequence[DeleteEntry]) -> list[MapWriteError]:
        """Delete entries of one map; absent keys are fine; return what failed."""
        if not entries:
            return []
        name = _one_map(entries)
        failures = batches.delete(self._descriptors[name], [entry.key for entry in entries])
        return [self._write_error(name, entries[index].key, error) for index, error in failures]

    def _write_error(self, name: str, key: bytes, error: int) -> MapWriteError:
        if error in _FULL:
            size = self._infos[name].max_entries
            message = f"map {name} is full ({size} entries): give it a larger size in the configuration and restart"
        else:
            message = f"cannot write key {key.hex()} of map {name}: {os.strerror(error)}"
        return MapWriteError(name, key, error, message)

    def entries(self, name: HashMap) -> Iterator[tuple[bytes, bytes]]:
        """Yield every key and value of a map."""
        return self.entries_of(name.value)

    def entries_of(self, map_name: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield every key and value of any keyed map, also one that only the programs write (``affinity``)."""
        return batches.read(self._descriptors[map_name], self._infos[map_name])

    def fingerprint(self, name: HashMap) -> int:
        """Return a number that is the same as long as nobody writes the map, and most likely another one then."""
        return batches.fingerprint(self._descriptors[name.value], self._infos[name.value])

    def counters(self, map_name: str) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield the index of each entry of a per-CPU array that counted something, and its sums over the CPUs."""
        info = self._infos[map_name]
        words = info.value_size // 8
        for key, value in batches.read(self._descriptors[map_name], info):
            numbers = memoryview(value).cast("Q")
            sums = tuple(sum(numbers[word::words]) for word in range(words))
            if any(sums):
                yield int.from_bytes(key, sys.byteorder), sums

    def capacity(self, name: ArrayMap | HashMap) -> int:
        """Return how many entries the map can hold."""
        return self._infos[name.value].max_entries

    def descriptor(self, map_name: str) -> int:
        """Return a map's descriptor, which stays the store's. KeyError: the loaded programs have no such map."""
        return self._descriptors[map_name]

    def map_names(self) -> frozenset[str]:
        """Return the names of all maps behind the store."""
        return frozenset(self._descriptors)

    @property
    def has_flows(self) -> bool:
        """Whether the packet programs are loaded, which alone have connections to remember."""
        return set(FLOW_TABLES) <= self._descriptors.keys()

    def wait_for_readers(self) -> None:
        """Return when every program run that was under way has ended (a grace period). Blocks for milliseconds."""
        self._grace_period.wait()


def _one_map(entries: Sequence[InsertEntry] | Sequence[DeleteEntry]) -> str:
    names = {entry.map for entry in entries}
    if len(names) != 1:
        msg = f"entries of one map are written at a time, not of {sorted(name.value for name in names)}"
        raise ValueError(msg)
    return names.pop().value
