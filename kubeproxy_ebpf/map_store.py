# SPDX-License-Identifier: Apache-2.0
"""The door to the maps: what the reconciler asks for, whoever answers.

``datapath.map_store.KernelMapStore`` is the kernel's; ``testing.FakeMapStore`` keeps them in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from kubeproxy_ebpf.layout.changes import ArrayMap, DeleteEntry, HashMap, InsertEntry


class MapWriteError(Exception):
    """The kernel refused a write."""

    def __init__(self, map_name: str, key: bytes, error_number: int, message: str) -> None:
        """Remember which map and key, and the errno."""
        super().__init__(message)
        self.map_name = map_name
        self.key = key
        self.error_number = error_number


class MapStore(Protocol):
    """Reads and writes maps. Writing arrays makes no system call, but for when they grow."""

    def read(self, name: ArrayMap, start: int = 0, end: int | None = None) -> bytes:
        """Return bytes of an array, by default all; entry i starts at i times the value's size."""
        ...

    def write(self, name: ArrayMap, start: int, data: bytes) -> None:
        """Overwrite bytes of an array, in no order that a reader could rely on."""
        ...

    def publish(self, name: ArrayMap, byte_offset: int, word: int) -> None:
        """Store an aligned 64-bit word with release semantics."""
        ...

    def insert(self, entries: Sequence[InsertEntry]) -> list[MapWriteError]:
        """Insert entries of one map in as few system calls as the kernel allows; return what failed."""
        ...

    def delete(self, entries: Sequence[DeleteEntry]) -> list[MapWriteError]:
        """Delete entries of one map; absent keys are fine; return what failed."""
        ...

    def entries(self, name: HashMap) -> Iterator[tuple[bytes, bytes]]:
        """Yield every key and value of a map."""
        ...

    def fingerprint(self, name: HashMap) -> int:
        """Return a number that is the same as long as nobody writes the map, and most likely another one then."""
        ...

    def capacity(self, name: ArrayMap | HashMap) -> int:
        """Return how many entries the map can hold."""
        ...

    def wait_for_readers(self) -> None:
        """Return when every program run that was under way has ended (a grace period). Blocks for milliseconds."""
        ...
