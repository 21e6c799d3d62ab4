# SPDX-License-Identifier: Apache-2.0
"""Ids and slot ranges as they are handed out, come back, and are pushed together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeproxy_ebpf.layout.defragment import slides
from kubeproxy_ebpf.layout.ids import IdPool
from kubeproxy_ebpf.layout.ranges import RangePool
from kubeproxy_ebpf.layout.states import PlacedSet
from kubeproxy_ebpf.map_schema import Set

CAPACITY = 40


def test_ids_never_used_come_first_then_the_oldest() -> None:
    """An id rests as long as there are others; id 0 is nobody's."""
    pool = IdPool(5)
    assert pool.take(2) == [1, 2]
    pool.give_back([2, 1])
    assert pool.take(3) == [3, 4, 2]
    assert (pool.available, pool.in_use) == (1, 3)


@pytest.mark.parametrize("first_unused", [5, 9])
def test_a_used_up_array_has_only_ids_that_come_back(first_unused: int) -> None:
    """After a restart with the last entry in use there is no id until one comes back."""
    pool = IdPool(5, first_unused)
    assert pool.available == 0
    pool.give_back([3])
    assert pool.take(1) == [3]


@settings(deadline=None)
@given(st.lists(st.integers(-6, 6)))
def test_no_id_is_handed_out_twice(moves: Sequence[int]) -> None:
    """Whatever is taken and given back, everybody's ids are his own."""
    pool = IdPool(12)
    taken: list[int] = []
    for move in moves:
        if move < 0:
            pool.give_back(taken[:-move])
            del taken[:-move]
        else:
            taken += pool.take(min(move, pool.available))
        assert len(set(taken)) == len(taken) == pool.in_use
        assert set(taken) <= set(range(1, 12))


@settings(deadline=None)
@given(st.lists(st.integers(-8, 12)))
def test_ranges_are_their_owners_alone(moves: Sequence[int]) -> None:
    """Ranges never overlap; neighbours that are free are one range; a range is refused only if none is that long."""
    pool = RangePool(CAPACITY)
    taken: list[Set] = []
    for move in moves:
        if move > 0:
            place = pool.take(move)
            assert (place is None) == (longest_run(free_slots(taken)) < move)
            taken += [place] if place else []
        elif taken:
            pool.give_back([taken.pop(move % len(taken))])
        slots = free_slots(taken)
        assert pool.available == len(slots)
        assert pool.longest == longest_run(slots)
        assert sorted(slot for hole in pool.holes for slot in range(hole.base, hole.base + hole.length)) == slots
        assert all(one.base + one.length < two.base for one, two in zip(pool.holes, pool.holes[1:], strict=False))


def test_the_shortest_range_that_suffices_is_taken() -> None:
    """Long ranges are kept for those who need them."""
    pool = RangePool(CAPACITY)
    ranges = [place for length in (3, 1, 6, 1, 4, 1, 23) if (place := pool.take(length))]
    pool.give_back([ranges[0], ranges[2], ranges[4]])
    assert pool.take(4) == ranges[4]
    assert pool.take(4) == Set(ranges[2].base, 4)


def free_slots(taken: Sequence[Set]) -> list[int]:
    """Return the slots that nobody has."""
    used = {slot for base, length in taken for slot in range(base, base + length)}
    return [slot for slot in range(1, CAPACITY) if slot not in used]


def longest_run(slots: Sequence[int]) -> int:
    """Return how many of these slots are consecutive at most."""
    longest = run = 0
    for before, slot in zip((0, *slots), slots, strict=False):
        run = run + 1 if slot == before + 1 and run else 1
        longest = max(longest, run)
    return longest


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 6)), min_size=1, max_size=14), st.integers(1, CAPACITY))
def test_sliding_joins_the_holes(pieces: Sequence[tuple[bool, int]], wanted: int) -> None:
    """As long as the free slots suffice, every step brings them together, and no slot that is read is touched."""
    pool, sets, slots = laid_out(pieces)
    if pool.available < wanted:
        return
    members = sorted(sorted(placed.backends) for placed in sets.values())
    for _ in range(len(pieces) * CAPACITY):
        if pool.longest >= wanted:
            break
        step = slides(pool.holes, sets, wanted)
        assert step
        before = list(slots)
        for move in step:
            pool.take_at(move.hole.base, len(move.written))
            base = move.new.place.base
            slots[base : base + len(move.written)] = move.written
        read = {slot for base, placed in sets.items() for slot in range(base, base + placed.place.length)}
        assert all(slots[slot] == before[slot] for slot in read)
        for move in step:
            del sets[move.old.place.base]
            sets[move.new.place.base] = move.new
            pool.give_back(move.freed)
        for base, placed in sets.items():
            assert tuple(slots[base : base + placed.place.length]) == placed.backends
        assert [slot for hole in pool.holes for slot in range(hole.base, hole.base + hole.length)] == free_slots(
            [placed.place for placed in sets.values()]
        )
    assert pool.longest >= wanted
    assert sorted(sorted(placed.backends) for placed in sets.values()) == members


def laid_out(pieces: Sequence[tuple[bool, int]]) -> tuple[RangePool, dict[int, PlacedSet], list[int]]:
    """Lay out sets and holes one after the other; every member is another backend."""
    pool, sets, slots = RangePool(CAPACITY), {}, [0] * CAPACITY
    holes = []
    for is_set, length in pieces:
        place = pool.take(length)
        if place is None:
            break
        if not is_set:
            holes.append(place)
            continue
        backends = tuple(range(place.base, place.base + length))
        sets[place.base] = PlacedSet(place, backends)
        slots[place.base : place.base + length] = backends
    pool.give_back(holes)
    return pool, sets, slots
