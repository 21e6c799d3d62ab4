# SPDX-License-Identifier: Apache-2.0
"""Hands out ranges of consecutive slots: best fit, neighbours joined again when they come back."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NamedTuple

from kubeproxy_ebpf.layout.errors import MapFullError
from kubeproxy_ebpf.map_schema import Set


class Move(NamedTuple):
    """A set that makes room for a longer one by moving."""

    old: Set
    new: Set


class RangePool:
    """The slots 1 to capacity - 1; slot 0 belongs to nobody."""

    def __init__(self, map_name: str, capacity: int) -> None:
        """Start with one free range."""
        self._map_name = map_name
        self._capacity = capacity
        self._size_at: dict[int, int] = {}
        self._start_before: dict[int, int] = {}
        self._free: list[tuple[int, int]] = []
        """(size, start), sorted."""
        if capacity > 1:
            self._add(1, capacity - 1)

    @property
    def free(self) -> int:
        """How many slots are free in all."""
        return sum(size for size, _ in self._free)

    def restore(self, used: Iterable[Set]) -> None:
        """Start over with these ranges, which do not overlap, handed out."""
        self._size_at.clear()
        self._start_before.clear()
        self._free.clear()
        at = 1
        for base, count in sorted(used):
            if base > at:
                self._add(at, base - at)
            at = base + count
        if at < self._capacity:
            self._add(at, self._capacity - at)

    def take(self, count: int) -> Set:
        """Return a range of ``count`` slots that nobody has.

        Raises:
            MapFullError: no free range is that long.
        """
        place = bisect_left(self._free, (count, 0))
        if place == len(self._free):
            raise MapFullError(self._map_name, self._capacity)
        size, start = self._free[place]
        self._remove(start)
        if size > count:
            self._add(start + count, size - count)
        return Set(start, count)

    def give_back(self, ranges: Iterable[Set]) -> None:
        """Take back ranges that no reader can meet any more."""
        for base, count in ranges:
            start, size = base, count
            before = self._start_before.get(start)
            if before is not None:
                start, size = before, size + self._remove(before)
            if base + count in self._size_at:
                size += self._remove(base + count)
            self._add(start, size)

    def moves_for(self, count: int, live: Iterable[Set]) -> list[Move]:
        """Choose the moves that free a range of ``count`` slots; empty if nothing helps.

        The window with the fewest live slots in it is cleared. The ranges moved to are taken; those
        moved from are the caller's to give back, after a grace period.
        """
        found = self._emptiest_window(count, sorted(live))
        if found is None:
            return []
        opening, window = found
        blocked = [(size, start) for size, start in self._free if opening <= start < opening + count]
        for _, start in blocked:
            self._remove(start)
        moves: list[Move] = []
        try:
            moves.extend(Move(one, self.take(one.length)) for one in window)
        except MapFullError:
            self.give_back(move.new for move in moves)
            moves = []
        finally:
            self.give_back(Set(start, size) for size, start in blocked)
        return moves

    def _emptiest_window(self, count: int, live: list[Set]) -> tuple[int, list[Set]] | None:
        """Return where the window of ``count`` slots with the fewest live ones starts, and the sets in it."""
        best: tuple[int, list[Set]] | None = None
        fewest = self._capacity
        end = 0
        for first in range(len(live)):
            start = live[first - 1].base + live[first - 1].length if first else 1
            while end < len(live) and live[end].base < start + count:
                end += 1
            occupied = sum(one.length for one in live[first:end])
            if start + count <= self._capacity and occupied < fewest:
                best, fewest = (start, live[first:end]), occupied
        return best

    def _add(self, start: int, size: int) -> None:
        self._size_at[start] = size
        self._start_before[start + size] = start
        insort(self._free, (size, start))

    def _remove(self, start: int) -> int:
        size = self._size_at.pop(start)
        del self._start_before[start + size]
        del self._free[bisect_left(self._free, (size, start))]
        return size
