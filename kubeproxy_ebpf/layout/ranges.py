# SPDX-License-Identifier: Apache-2.0
"""Hands out ranges of consecutive slots: best fit, neighbours joined again when they come back."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from kubeproxy_ebpf.map_schema import Set


class RangePool:
    """The slots 1 to capacity - 1; slot 0 belongs to nobody."""

    def __init__(self, capacity: int, first_unused: int = 1) -> None:
        """Start with one free range, from ``first_unused`` on."""
        self._capacity = capacity
        self._length_at: dict[int, int] = {}
        self._base_before: dict[int, int] = {}
        self._free: list[tuple[int, int]] = []
        """(length, base), sorted."""
        self.available = 0
        """How many slots are free in all."""
        if first_unused < capacity:
            self._add(first_unused, capacity - first_unused)

    @property
    def in_use(self) -> int:
        """How many slots are handed out, those in a grace period among them."""
        return self._capacity - 1 - self.available

    @property
    def longest(self) -> int:
        """The length of the longest free range."""
        return self._free[-1][0] if self._free else 0

    @property
    def holes(self) -> list[Set]:
        """The free ranges, by base."""
        return sorted(Set(base, length) for length, base in self._free)

    def take(self, length: int) -> Set | None:
        """Return a range of ``length`` slots that nobody has; None: no free range is that long."""
        place = bisect_left(self._free, (length, 0))
        if place == len(self._free):
            return None
        return self.take_at(self._free[place][1], length)

    def take_at(self, base: int, length: int) -> Set:
        """Return the first ``length`` slots of the free range that starts at ``base``."""
        free = self._remove(base)
        if free > length:
            self._add(base + length, free - length)
        return Set(base, length)

    def give_back(self, ranges: Iterable[Set]) -> None:
        """Take back ranges that no reader can meet any more."""
        for base, length in ranges:
            start, size = base, length
            before = self._base_before.get(base)
            if before is not None:
                start, size = before, size + self._remove(before)
            if base + length in self._length_at:
                size += self._remove(base + length)
            self._add(start, size)

    def _add(self, base: int, length: int) -> None:
        self._length_at[base] = length
        self._base_before[base + length] = base
        self.available += length
        insort(self._free, (length, base))

    def _remove(self, base: int) -> int:
        length = self._length_at.pop(base)
        del self._base_before[base + length]
        del self._free[bisect_left(self._free, (length, base))]
        self.available -= length
        return length
