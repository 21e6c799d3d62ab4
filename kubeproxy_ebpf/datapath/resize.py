# SPDX-License-Identifier: Apache-2.0
"""Carries a map's contents into a larger one, while the programs still use the old.

What only the agent writes is copied once, as nobody writes it meanwhile. What the programs write is
copied before they switch, and what they wrote until then afterwards. Counters may lose what is counted in between.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import closing

from kubeproxy_ebpf.datapath import batches
from kubeproxy_ebpf.datapath.errors import MapSizeError
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.errors import KernelError
from kubeproxy_ebpf.datapath.libbpf.kernel_types import MapType
from kubeproxy_ebpf.datapath.libbpf.memory import SharedMemory
from kubeproxy_ebpf.layout.changes import ArrayMap

_KEYED = {MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE}
PEER_NAMES = "peer_names"
"""An array whose index depends on its size: the owner's cookie, kept in the value, modulo the size."""


def copy_contents(name: str, old: int, new: int) -> None:
    """Copy all entries; those of arrays keep their index.

    Raises:
        MapSizeError: an entry could not be written.
    """
    old_info, new_info = syscalls.map_info(old), syscalls.map_info(new)
    if name in {array.value for array in ArrayMap}:
        _copy_memory(old, old_info, new)
    elif name == PEER_NAMES or old_info.type in {MapType.PERCPU_ARRAY, *_KEYED}:
        failures = batches.insert(new, list(_entries(name, old, old_info, new_info)))
        if failures:
            msg = (
                f"cannot copy {len(failures)} entries of map {name} into a larger one: {os.strerror(failures[0].error)}"
            )
            raise MapSizeError(msg)


def copy_latecomers(name: str, old: int, new: int) -> None:
    """Add what the programs wrote to the old map since :func:`copy_contents`; what is in the new one is newer."""
    old_info, new_info = syscalls.map_info(old), syscalls.map_info(new)
    if name == PEER_NAMES:
        for key, value in _entries(name, old, old_info, new_info):
            if not any(syscalls.map_lookup(new, key, new_info.value_size) or b""):
                syscalls.map_update(new, key, value)
    elif old_info.type in _KEYED:
        for key, value in batches.read(old, old_info):
            try:
                syscalls.map_update(new, key, value, syscalls.NO_EXIST)
            except KernelError as error:
                if error.errno != errno.EEXIST:
                    raise


def _entries(name: str, fd: int, info: syscalls.MapInfo, new: syscalls.MapInfo) -> Iterator[tuple[bytes, bytes]]:
    for key, value in batches.read(fd, info):
        if info.type not in _KEYED and not any(value):
            continue
        if name == PEER_NAMES:
            cookie = int.from_bytes(value[:4], sys.byteorder)
            yield (cookie % new.max_entries).to_bytes(4, sys.byteorder), value
        else:
            yield key, value


def _copy_memory(old: int, info: syscalls.MapInfo, new: int) -> None:
    size = info.value_size * info.max_entries
    with (
        closing(SharedMemory(old, size, writable=False)) as source,
        closing(SharedMemory(new, size, writable=True)) as target,
    ):
        target.view[:] = source.view[:]
