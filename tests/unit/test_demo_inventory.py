# SPDX-License-Identifier: Apache-2.0
"""How the demo tells what is left of it from what other people did meanwhile."""

from __future__ import annotations

from demo.inventory import CGROUPS, MAPS, NAMESPACES, count, joined, leftovers

BEFORE = {MAPS: frozenset({"1"}), CGROUPS: frozenset({"/cgroup/old"})}


def test_what_is_new_and_the_demos_own_is_left() -> None:
    """A map whose id the demo had counts; one that somebody else made meanwhile does not."""
    after = {MAPS: frozenset({"1", "7", "8"}), CGROUPS: BEFORE[CGROUPS]}
    own = {MAPS: frozenset({"7", "9"})}
    assert leftovers(BEFORE, after, own, ("demo-5",)) == {MAPS: {"7"}, CGROUPS: frozenset()}


def test_what_carries_the_demos_name_is_left() -> None:
    """A cgroup counts by its name, even if nobody saw it while the demo ran."""
    after = {MAPS: BEFORE[MAPS], CGROUPS: frozenset({"/cgroup/old", "/cgroup/demo-5/node", "/cgroup/other"})}
    assert leftovers(BEFORE, after, {}, ("demo-5",))[CGROUPS] == {"/cgroup/demo-5/node"}


def test_what_was_there_before_is_not_left() -> None:
    """Something that carries the demo's name but was there before is not its doing."""
    before = {CGROUPS: frozenset({"/cgroup/demo-5"})}
    assert not leftovers(before, before, {}, ("demo-5",))[CGROUPS]


def test_listings_join_kind_by_kind() -> None:
    """What any look around has seen belongs to the demo."""
    seen = joined([{MAPS: frozenset({"1"})}, {MAPS: frozenset({"2"}), CGROUPS: frozenset({"/a"})}])
    assert seen == {MAPS: {"1", "2"}, CGROUPS: {"/a"}}


def test_a_namespace_that_processes_share_counts_once() -> None:
    """Namespaces are listed by holder and counted by number."""
    assert count(NAMESPACES, frozenset({"net:[1] of 10 a", "net:[1] of 11 b", "net:[2] of 12 c"})) == 2
