# SPDX-License-Identifier: Apache-2.0
"""A larger size in the configuration takes effect at the next start, in place and without loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath import resize
from kubeproxy_ebpf.datapath.errors import MapSizeError
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.ring_buffer import RingBuffer
from kubeproxy_ebpf.datapath.map_sizes import MapSizes
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap, InsertEntry, Phase
from tests.kernel.conftest import SMALL, Loader
from tests.kernel.processes import run_in
from tests.kernel.state import connect_error

AFFINITY_KEY, AFFINITY_VALUE = 24, 16
RANGE_KEY = (96).to_bytes(4, "little") + (7).to_bytes(4, "little") + bytes(16)


DOUBLE = {name: 2 * size for name, size in SMALL.as_mapping().items()}


def fill(store: KernelMapStore) -> None:
    """Put something everywhere: as the agent does, and as the programs do."""
    for array in ArrayMap:
        store.write(array, 0, bytes(index % 251 for index in range(len(store.read(array)))))
    entries = [InsertEntry(Phase.EXPOSE, HashMap.FRONTENDS, bytes([i]) * 20, bytes([i]) * 4) for i in range(64)]
    assert store.insert(entries) == []
    assert store.insert([InsertEntry(Phase.GUARD, HashMap.SOURCE_RANGES, RANGE_KEY, b"\x01\0\0\0")]) == []
    for index in range(10):
        write(store, "affinity", bytes([index]) * AFFINITY_KEY, bytes([index]) * AFFINITY_VALUE)
    write(store, "peer_names", (5).to_bytes(4, "little"), b"peername")


def write(store: KernelMapStore, map_name: str, key: bytes, value: bytes) -> None:
    """Write what only programs write."""
    syscalls.map_update(store.descriptor(map_name), key, value)


def read(store: KernelMapStore, map_name: str) -> dict[bytes, bytes]:
    """Read a keyed map."""
    return dict(store.entries_of(map_name))


def test_every_map_grows_with_its_contents(load: Loader, scratch_cgroup: Path) -> None:
    """All maps at once: same entries at the same indices, twice the room, and the programs use them."""
    first = load()
    fill(first.store)
    run_in(None, scratch_cgroup, connect_error)
    arrays = {array: first.store.read(array) for array in ArrayMap}
    keyed = {name: read(first.store, name) for name in ("frontends", "source_ranges", "affinity")}
    counted = dict(first.store.counters("service_counters"))
    first.close()
    store = load(**DOUBLE).store
    for array, content in arrays.items():
        assert store.read(array, 0, len(content)) == content
        assert not any(store.read(array, len(content)))
    assert {name: read(store, name) for name in keyed} == keyed
    assert dict(store.counters("service_counters")) == counted == {0: (1, 0)}
    for name in (*ArrayMap, *HashMap):
        if name is not ArrayMap.SETTINGS:
            assert store.capacity(name) == 128
    run_in(None, scratch_cgroup, connect_error)
    assert dict(store.counters("service_counters")) == {0: (2, 0)}


def test_peer_names_are_found_at_their_place_in_the_larger_map(load: Loader) -> None:
    """One more bit of the cookie counts, so a name is at both places that it may be asked for at."""
    first = load()
    fill(first.store)
    first.close()
    store = load(peer_names=256).store
    named = [
        index
        for index in range(256)
        if syscalls.map_lookup(store.descriptor("peer_names"), index.to_bytes(4, "little"), 8) == b"peername"
    ]
    assert named == [5, 69, 133, 197]


def test_what_programs_write_during_the_copy_is_not_lost(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Affinity and names that the old programs write between the copy and their replacement arrive too."""
    first = load()
    fill(first.store)
    copy_contents = resize.copy_contents

    def copy_then_write(name: str, old: int, new: int) -> None:
        copy_contents(name, old, new)
        if name == "affinity":
            write(first.store, "affinity", b"k" * AFFINITY_KEY, b"late" * 4)
            write(first.store, "affinity", bytes(AFFINITY_KEY), b"older" + bytes(11))
        if name == "peer_names":
            write(first.store, "peer_names", (9).to_bytes(4, "little"), b"latename")

    monkeypatch.setattr(resize, "copy_contents", copy_then_write)
    first._lock.release()
    store = load(affinity=128, peer_names=128).store
    affinity = read(store, "affinity")
    assert affinity[b"k" * AFFINITY_KEY] == b"late" * 4
    assert affinity[bytes(AFFINITY_KEY)] == bytes(AFFINITY_VALUE)
    for index in (9, 73):
        assert syscalls.map_lookup(store.descriptor("peer_names"), index.to_bytes(4, "little"), 8) == b"latename"


def test_programs_know_the_size_of_peer_names(load: Loader, scratch_cgroup: Path) -> None:
    """The mask that the programs are compiled with follows the map that is really used, also a larger pinned one."""
    load(peer_names=256).close()
    store = load(peer_names=64).store
    run_in(None, scratch_cgroup, connect_error)
    reader = RingBuffer(store.descriptor("events"))
    assert reader.take() == [(255).to_bytes(4, "little")]
    reader.close()


def test_smaller_size_keeps_the_larger_map(load: Loader) -> None:
    """A map is never shrunk: what is in it may be in use."""
    load(frontends=128).close()
    assert load(frontends=64).store.capacity(HashMap.FRONTENDS) == 128


def test_size_that_no_map_can_have_is_refused() -> None:
    """Sizes are checked where they are given, with the map's name."""
    with pytest.raises(MapSizeError, match="backends cannot have 0"):
        MapSizes(backends=0)
    with pytest.raises(MapSizeError, match=r"peer_names.*power of two"):
        MapSizes(peer_names=1000)
