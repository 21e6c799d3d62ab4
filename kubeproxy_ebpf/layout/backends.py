# SPDX-License-Identifier: Apache-2.0
"""The entries of ``backends``: who has which id, with which generation and flags."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from kubeproxy_ebpf.layout.ids import IdPool
from kubeproxy_ebpf.map_schema import BackendEntry

_WRAP = 1 << 32


class BackendTable:
    """Ids with what was last written for them. A generation is never forgotten, also not of a free entry."""

    def __init__(self, capacity: int) -> None:
        """Start with every entry free."""
        self.ids = IdPool("backends", capacity)
        self._generations = array("I", (0,))
        self._flags = array("H", (0,))

    def restore(self, entries: Iterable[tuple[int, BackendEntry]], used: Iterable[int]) -> None:
        """Start over with what the map holds; ``used`` are the ids that somebody has."""
        for number, entry in entries:
            self._reach(number)
            self._generations[number] = entry.generation
            self._flags[number] = entry.flags
        self.ids.restore(used)

    def take(self) -> int:
        """Return an id that nobody has; its generation is new."""
        number = self.ids.take()
        self._reach(number)
        return number

    def generation(self, number: int) -> int:
        """Return the generation of an entry."""
        return self._generations[number]

    def flags(self, number: int) -> int:
        """Return the flags of an entry, enum backend_flag."""
        return self._flags[number]

    def set_flags(self, number: int, flags: int) -> None:
        """Note new flags."""
        self._flags[number] = flags

    def retire(self, number: int) -> int:
        """Note that an entry serves nobody any more; return its new generation."""
        self._generations[number] = (self._generations[number] + 1) % _WRAP
        self._flags[number] = 0
        return self._generations[number]

    def _reach(self, number: int) -> None:
        missing = number + 1 - len(self._flags)
        if missing > 0:
            self._generations.extend([0] * missing)
            self._flags.extend([0] * missing)
