# SPDX-License-Identifier: Apache-2.0
"""The map store on real maps: batches, what they do when something fails, arrays as memory, the pins alone."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath import batches, loader
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.errors import ENOTSUPP, KernelError
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.layout.changes import ArrayMap, DeleteEntry, HashMap, InsertEntry, Phase
from kubeproxy_ebpf.map_store import MapStore
from tests.kernel.conftest import Loader
from tests.kernel.processes import run_in
from tests.kernel.state import connect_error

KEY_SIZES = {HashMap.ADDRESSES: 16, HashMap.FRONTENDS: 20, HashMap.SERVICE_NAMES: 4, HashMap.SOURCE_RANGES: 24}
VALUE_SIZES = {HashMap.ADDRESSES: 4, HashMap.FRONTENDS: 4, HashMap.SERVICE_NAMES: 200, HashMap.SOURCE_RANGES: 4}


def key_of(name: HashMap, number: int) -> bytes:
    """Return the n-th key; a source range is a whole address of service 7."""
    if name is HashMap.SOURCE_RANGES:
        return (160).to_bytes(4, "little") + (7).to_bytes(4, "little") + number.to_bytes(16, "big")
    return number.to_bytes(KEY_SIZES[name], "big")


def inserts(name: HashMap, numbers: Sequence[int]) -> list[InsertEntry]:
    """Return entries whose values tell their keys."""
    size = VALUE_SIZES[name]
    return [InsertEntry(Phase.EXPOSE, name, key_of(name, number), number.to_bytes(size, "big")) for number in numbers]


def deletes(name: HashMap, numbers: Sequence[int]) -> list[DeleteEntry]:
    """Return the deletions of keys."""
    return [DeleteEntry(Phase.WITHDRAW, name, key_of(name, number)) for number in numbers]


def numbers_in(store: MapStore, name: HashMap) -> list[int]:
    """Return which of the n-th keys are there with the right value; fail on any other."""
    found = {key: int.from_bytes(value, "big") for key, value in store.entries(name)}
    assert all(key == key_of(name, number) for key, number in found.items())
    return sorted(found.values())


def refuse_batches(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """Behave as a kernel that has no batch commands for any map."""

    def refuse_reading(*_arguments: object) -> None:
        raise KernelError(error, "read a batch of entries")

    monkeypatch.setattr(syscalls, "map_update_batch", lambda *_arguments: (0, error))
    monkeypatch.setattr(syscalls, "map_delete_batch", lambda *_arguments: (0, error))
    monkeypatch.setattr(syscalls, "map_lookup_batch", refuse_reading)


@pytest.fixture(params=["batches", "no batches for the map", "no batch commands at all"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test on kernels with and without batches."""
    if request.param == "no batches for the map":
        refuse_batches(monkeypatch, ENOTSUPP)
    if request.param == "no batch commands at all":
        refuse_batches(monkeypatch, errno.EINVAL)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("name", HashMap)
def test_keyed_maps_keep_what_is_written(load: Loader, name: HashMap) -> None:
    """Insert, overwrite, read, delete with absent keys among them."""
    store = load(**{name.value: 1000}).store
    assert store.insert(inserts(name, range(500))) == []
    assert store.insert(inserts(name, range(250, 1000))) == []
    assert numbers_in(store, name) == list(range(1000))
    assert store.delete(deletes(name, range(900, 1100))) == []
    assert store.delete(deletes(name, [5])) == []
    assert numbers_in(store, name) == [number for number in range(900) if number != 5]


def test_more_than_one_chunk_goes_in_and_out(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks join without a gap, in few calls."""
    monkeypatch.setattr(batches, "CHUNK", 100)
    store = load(frontends=1050).store
    assert store.insert(inserts(HashMap.FRONTENDS, range(1050))) == []
    assert numbers_in(store, HashMap.FRONTENDS) == list(range(1050))
    assert store.delete(deletes(HashMap.FRONTENDS, range(1050))) == []
    assert numbers_in(store, HashMap.FRONTENDS) == []


@pytest.mark.usefixtures("kernel")
def test_full_map_names_every_entry_that_did_not_fit(load: Loader) -> None:
    """What fits is in; each other entry has an error with its key and the remedy; overwriting still works."""
    store = load(frontends=64).store
    failures = store.insert(inserts(HashMap.FRONTENDS, range(70)))
    there = numbers_in(store, HashMap.FRONTENDS)
    failed = [int.from_bytes(failure.key, "big") for failure in failures]
    assert len(failures) == 6
    assert sorted(there + failed) == list(range(70))
    assert {failure.error_number for failure in failures} == {errno.E2BIG}
    assert "frontends is full (64 entries)" in str(failures[0])
    assert store.insert(inserts(HashMap.FRONTENDS, there)) == []


def test_full_trie_is_an_error_too(load: Loader) -> None:
    """A trie says ENOSPC where a hash says E2BIG; it means the same."""
    failures = load(source_ranges=64).store.insert(inserts(HashMap.SOURCE_RANGES, range(65)))
    assert len(failures) == 1
    assert "source_ranges is full (64 entries)" in str(failures[0])


@pytest.mark.usefixtures("kernel")
def test_one_bad_entry_does_not_keep_the_others_out(load: Loader) -> None:
    """An impossible prefix in the middle fails alone."""
    good = inserts(HashMap.SOURCE_RANGES, range(20))
    bad = InsertEntry(Phase.GUARD, HashMap.SOURCE_RANGES, (999).to_bytes(4, "little") + bytes(20), bytes(4))
    store = load().store
    failures = store.insert([*good[:10], bad, *good[10:]])
    assert [(failure.key, failure.error_number) for failure in failures] == [(bad.key, errno.EINVAL)]
    assert numbers_in(store, HashMap.SOURCE_RANGES) == list(range(20))


def test_entries_of_one_map_at_a_time(load: Loader) -> None:
    """A mixture of maps is the caller's mistake, and nothing is written."""
    store = load().store
    with pytest.raises(ValueError, match="of one map"):
        store.insert([*inserts(HashMap.FRONTENDS, [1]), *inserts(HashMap.ADDRESSES, [1])])
    assert list(store.entries(HashMap.FRONTENDS)) == []
    assert store.insert([]) == []
    assert store.delete([]) == []


@pytest.mark.parametrize("name", HashMap)
def test_fingerprint_tells_whether_anything_was_written(load: Loader, name: HashMap) -> None:
    """It stays the same while nobody writes, and is another one for another key, another value and an entry less."""
    store = load().store
    store.insert(inserts(name, range(10)))
    first = store.fingerprint(name)
    assert store.fingerprint(name) == first
    seen = {first}
    assert store.insert(inserts(name, [10])) == []
    seen.add(store.fingerprint(name))
    assert store.insert([InsertEntry(Phase.EXPOSE, name, key_of(name, 3), b"\xff" * VALUE_SIZES[name])]) == []
    seen.add(store.fingerprint(name))
    assert store.delete(deletes(name, [5])) == []
    seen.add(store.fingerprint(name))
    assert len(seen) == 4


def lookup(store: KernelMapStore, name: ArrayMap, index: int, size: int) -> bytes | None:
    """Read an array's entry as the kernel has it."""
    return syscalls.map_lookup(store.descriptor(name.value), index.to_bytes(4, "little"), size)


def test_arrays_are_the_kernels_memory(load: Loader) -> None:
    """Slices and published words are in the map at once, at the index that they belong to."""
    store = load().store
    store.write(ArrayMap.BACKENDS, 3 * 32, bytes(range(32)))
    store.publish(ArrayMap.BACKENDS, 3 * 32 + 24, 0xFFEEDDCCBBAA9988)
    word = (0xFFEEDDCCBBAA9988).to_bytes(8, "little")
    assert lookup(store, ArrayMap.BACKENDS, 3, 32) == bytes(range(24)) + word
    assert len(store.read(ArrayMap.BACKENDS)) == 32 * store.capacity(ArrayMap.BACKENDS)


def mapped_bytes() -> int:
    """Return how much of this process's memory is entries of arrays."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    starts = [index for index, line in enumerate(lines) if line.endswith("anon_inode:bpf-map")]
    sizes = (line for start in starts for line in lines[start : start + 3] if line.startswith("Size:"))
    return 1024 * sum(int(line.split()[1]) for line in sizes)


def test_large_array_is_mapped_as_far_as_it_is_written(load: Loader) -> None:
    """What is not in use is no memory of the process; it can be read, and written when its time has come."""
    size, entries = 32, 65_536
    store = load(backends=entries).store
    before = mapped_bytes()
    for index in (1, 100, 5_000, 20_000):
        entry = index.to_bytes(size, "little")
        store.write(ArrayMap.BACKENDS, index * size, entry)
        assert lookup(store, ArrayMap.BACKENDS, index, size) == entry
    assert mapped_bytes() - before < size * 20_000
    last = (entries - 1) * size
    syscalls.map_update(store.descriptor("backends"), (entries - 1).to_bytes(4, "little"), b"\7" * size)
    assert store.read(ArrayMap.BACKENDS, last - size) == bytes(size) + b"\7" * size
    assert mapped_bytes() - before < size * 20_000
    store.publish(ArrayMap.BACKENDS, last, 5)
    assert lookup(store, ArrayMap.BACKENDS, entries - 1, size) == (5).to_bytes(8, "little") + b"\7" * (size - 8)
    assert store.read(ArrayMap.BACKENDS, 5_000 * size, 5_001 * size) == (5_000).to_bytes(size, "little")


@pytest.mark.parametrize("offset", [-8, 4, 64 * 8, 64 * 8 - 4])
def test_words_go_only_where_words_are(load: Loader, offset: int) -> None:
    """Unaligned and outside places are refused, not written."""
    with pytest.raises(ValueError, match="cannot publish a word"):
        load().store.publish(ArrayMap.SLOTS, offset, 1)


def test_reading_without_an_agent_cannot_write(load: Loader, pin_folder: Path) -> None:
    """The pinned maps can be read by themselves; that store changes nothing."""
    datapath = load()
    datapath.store.insert(inserts(HashMap.FRONTENDS, range(10)))
    datapath.store.publish(ArrayMap.SLOTS, 8, 77)
    datapath.close()
    with loader.open_pinned(pin_folder) as store:
        assert numbers_in(store, HashMap.FRONTENDS) == list(range(10))
        assert store.read(ArrayMap.SLOTS, 8, 16) == (77).to_bytes(8, "little")
        with pytest.raises(TypeError, match="read-only memory"):
            store.write(ArrayMap.SLOTS, 0, bytes(8))
        assert {failure.error_number for failure in store.insert(inserts(HashMap.FRONTENDS, [11, 12]))} == {errno.EPERM}
        with pytest.raises(ValueError, match="read-only memory"):
            store.publish(ArrayMap.SLOTS, 0, 1)


def test_counters_are_summed_over_the_cpus(load: Loader, scratch_cgroup: Path) -> None:
    """What programs count on any CPU comes out as one number; what counted nothing is left out."""
    store = load().store
    assert list(store.counters("service_counters")) == []
    for _ in range(5):
        run_in(None, scratch_cgroup, connect_error)
    assert list(store.counters("service_counters")) == [(0, (5, 0))]


def test_store_survives_its_pins(load: Loader, pin_folder: Path) -> None:
    """A store that is open when somebody unloads goes on reading, and fails nobody."""
    datapath = load()
    datapath.store.insert(inserts(HashMap.FRONTENDS, range(3)))
    datapath._lock.release()
    loader.unload(pin_folder)
    assert numbers_in(datapath.store, HashMap.FRONTENDS) == [0, 1, 2]


def test_walk_ends_while_keys_come_and_go(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key by key, the kernel starts again when the key it stood on is gone; the walk still ends, without doubles."""
    refuse_batches(monkeypatch, ENOTSUPP)
    store = load(frontends=64).store
    store.insert(inserts(HashMap.FRONTENDS, range(64)))
    seen = []
    for key, _ in store.entries(HashMap.FRONTENDS):
        seen.append(key)
        store.delete([DeleteEntry(Phase.WITHDRAW, HashMap.FRONTENDS, key)])
    assert len(seen) == len(set(seen)) == 64
