# SPDX-License-Identifier: Apache-2.0
"""Makes maps what they were when they were created, for tests that share programs: verifying these takes longest."""

from __future__ import annotations

import sys

from kubeproxy_ebpf.datapath import batches
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.kernel_types import MapType
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.layout.changes import ArrayMap

COUNTERS = ("service_counters", "reason_counters")


def empty_maps(store: KernelMapStore) -> None:
    """Empty all maps but those that sockets have places in, who are known by numbers that never come again."""
    for name in store.map_names():
        _empty(name, store.descriptor(name))
    for array in ArrayMap:
        store.write(array, 0, bytes(len(store.read(array))))


def _empty(name: str, fd: int) -> None:
    info = syscalls.map_info(fd)
    if info.type in {MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE}:
        batches.delete(fd, [key for key, _ in batches.read(fd, info)])
    elif name in COUNTERS:
        nothing = bytes(info.value_size * syscalls.possible_cpus())
        for index in range(info.max_entries):
            syscalls.map_update(fd, index.to_bytes(4, sys.byteorder), nothing)
