# SPDX-License-Identifier: Apache-2.0
"""The node's settings change while programs read them, and however often an agent dies on the way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.changes import ArrayMap, Change
from kubeproxy_ebpf.layout.node_settings import (
    differs_in_prefixes,
    has_had_prefixes,
    publish_prefixes,
    withdraw_prefixes,
    write_settings,
)
from kubeproxy_ebpf.map_schema import SettingsEntry
from kubeproxy_ebpf.model.address import Prefix, parse_address, parse_prefix
from kubeproxy_ebpf.testing import FakeMapStore
from kubeproxy_ebpf.writer import apply_changes

PREFIXES = tuple(parse_prefix(f"10.{number}.0.0/16") for number in range(6))
PREFIXES_AT = schema.SETTINGS_PREFIXES_OFFSET
SOURCES = (None, parse_address("10.9.0.1"), parse_address("10.9.0.2"))


def prefix_lists() -> st.SearchStrategy[tuple[Prefix, ...]]:
    """Return a strategy for lists of prefixes."""
    return st.lists(st.sampled_from(PREFIXES), max_size=schema.MAX_CIDRS, unique=True).map(tuple)


ENTRIES = st.builds(
    SettingsEntry,
    st.sampled_from((0, schema.SETTINGS_LOCALHOST_NODE_PORTS)),
    prefix_lists(),
    prefix_lists(),
    st.integers(0, (1 << 64) - 1),
    st.sampled_from(SOURCES),
    st.none() | st.just(parse_address("fd00::1")),
)


def present(store: FakeMapStore) -> SettingsEntry:
    """Return what the programs read."""
    return schema.unpack_settings(store.read(ArrayMap.SETTINGS))


def writes(store: FakeMapStore, new: SettingsEntry) -> Iterator[Change | None]:
    """Yield what the reconciler writes, one by one; None: a grace period."""
    data = store.read(ArrayMap.SETTINGS)
    old = schema.unpack_settings(data)
    differs = differs_in_prefixes(old, new)
    if differs and has_had_prefixes(data):
        yield from withdraw_prefixes(old, new)
        yield None
    yield from write_settings(old, new)
    if differs:
        yield None
        yield from publish_prefixes(new)


def write(store: FakeMapStore, new: SettingsEntry, limit: int | None = None) -> None:
    """Write, up to a crash."""
    for change in list(writes(store, new))[:limit]:
        if change is not None:
            apply_changes(store, [change])


@settings(deadline=None)
@given(st.lists(st.tuples(ENTRIES, st.none() | st.integers(0, 20)), min_size=1), ENTRIES)
def test_crashes_do_not_matter(path: Sequence[tuple[SettingsEntry, int | None]], last: SettingsEntry) -> None:
    """However many changes were cut short, the next one that is not leads to what was wanted; then nothing is left."""
    store = FakeMapStore()
    for entry, limit in path:
        write(store, entry, limit)
    write(store, last)
    assert present(store) == last
    assert list(writes(store, last)) == []


@settings(deadline=None)
@given(ENTRIES, ENTRIES)
def test_prefixes_of_both_hold_and_others_never_do(old: SettingsEntry, new: SettingsEntry) -> None:
    """While lists change a reader finds no prefix that is in neither, and loses none that leads both."""
    store = FakeMapStore()
    write(store, old)
    for change in writes(store, new):
        if change is not None:
            apply_changes(store, [change])
        now = present(store)
        for seen, before, after in (
            (now.service_cidrs, old.service_cidrs, new.service_cidrs),
            (now.excluded_cidrs, old.excluded_cidrs, new.excluded_cidrs),
        ):
            assert set(seen) <= {*before, *after}
            assert list(seen) in (list(before[: len(seen)]), list(after[: len(seen)]))


@settings(deadline=None)
@given(ENTRIES, ENTRIES)
def test_a_late_reader_never_sees_a_prefix_change(old: SettingsEntry, new: SettingsEntry) -> None:
    """Who has read the counts before the grace period reads the same prefixes until its end."""
    store = FakeMapStore()
    write(store, old)
    before = store.read(ArrayMap.SETTINGS)[schema.SETTINGS_PREFIXES_OFFSET :]
    readers = {len(old.service_cidrs), len(present(store).service_cidrs)}
    for change in writes(store, new):
        if change is None:
            readers = {len(present(store).service_cidrs)}
            continue
        apply_changes(store, [change])
        after = store.read(ArrayMap.SETTINGS)[schema.SETTINGS_PREFIXES_OFFSET :]
        if len(present(store).service_cidrs) not in readers:
            break
        assert all(after[: count * 32] == before[: count * 32] for count in readers)


@settings(deadline=None)
@given(ENTRIES, ENTRIES)
def test_a_reader_that_reads_ahead_finds_its_prefixes(old: SettingsEntry, new: SettingsEntry) -> None:
    """Whichever counts and whichever prefixes it met of those that were there between two grace periods."""
    store = FakeMapStore()
    write(store, old)
    seen = [bytes(store.read(ArrayMap.SETTINGS))]
    for change in [*writes(store, new), None]:
        if change is not None:
            apply_changes(store, [change])
            seen.append(bytes(store.read(ArrayMap.SETTINGS)))
            continue
        for counts, prefixes in itertools.product(seen, seen):
            found = schema.unpack_settings(counts[:PREFIXES_AT] + prefixes[PREFIXES_AT:]).service_cidrs
            assert found in (old.service_cidrs[: len(found)], new.service_cidrs[: len(found)])
        del seen[:-1]


def test_the_listeners_flag_is_its_owners() -> None:
    """Whoever reads events keeps being served, whatever else changes."""
    store = FakeMapStore()
    store.publish(
        ArrayMap.SETTINGS, schema.SETTINGS_FLAGS_OFFSET, schema.settings_flags_word(schema.SETTINGS_LISTENING)
    )
    write(store, SettingsEntry(flags=schema.SETTINGS_LOCALHOST_NODE_PORTS))
    assert present(store).flags == schema.SETTINGS_LOCALHOST_NODE_PORTS | schema.SETTINGS_LISTENING
    write(store, SettingsEntry())
    assert present(store).flags == schema.SETTINGS_LISTENING
