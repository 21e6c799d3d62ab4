# SPDX-License-Identifier: Apache-2.0
"""Makes room for a long range where the free slots suffice, but lie in pieces.

The sets of the emptiest stretch slide down into the holes before them, one step a grace period, until the holes have
come together. A set may overlap its old place: slots that both share keep what they hold, as the order of a set's
members means nothing. So whoever still reads the old range, or already the new one, reads the same members.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kubeproxy_ebpf.layout.states import PlacedSet
from kubeproxy_ebpf.map_schema import Set


class Slide(NamedTuple):
    """A set that moves down into the hole before it."""

    hole: Set
    old: PlacedSet
    new: PlacedSet

    @property
    def written(self) -> tuple[int, ...]:
        """The backends to write from the new base on; all of these slots were free."""
        return self.new.backends[: self.hole.length]

    @property
    def freed(self) -> list[Set]:
        """The ranges that go out of use: what is left of the hole was never in use."""
        start = max(self.new.place.base + self.new.place.length, self.old.place.base)
        return [Set(start, self.old.place.base + self.old.place.length - start)]


def slides(holes: Iterable[Set], sets: Mapping[int, PlacedSet], length: int) -> list[Slide]:
    """Return the next step towards a free range of some length; ``sets`` by their base. Empty: there is no way."""
    stretch = _emptiest_stretch(list(holes), length)
    return [_slide(hole, sets[end]) for hole in stretch[:-1] if (end := hole.base + hole.length) in sets]


def _slide(hole: Set, old: PlacedSet) -> Slide:
    length = old.place.length
    distance = min(hole.length, length)
    backends = old.backends[length - distance :] + old.backends[: length - distance]
    return Slide(hole, old, PlacedSet(Set(hole.base, length), backends))


def _emptiest_stretch(holes: list[Set], length: int) -> list[Set]:
    """Return neighbouring holes that suffice together, with as few slots in use between them as can be."""
    best: list[Set] = []
    fewest: int | None = None
    first, free = 0, 0
    for last, hole in enumerate(holes):
        free += hole.length
        while free - holes[first].length >= length:
            free -= holes[first].length
            first += 1
        between = hole.base + hole.length - holes[first].base - free
        if free >= length and (fewest is None or between < fewest):
            best, fewest = holes[first : last + 1], between
    return best
