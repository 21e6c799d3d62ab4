# SPDX-License-Identifier: Apache-2.0
"""Carries a map's contents into a larger one, while the programs still use the old.

What only the agent writes is copied once, as nobody writes it meanwhile. What the programs write is
copied before they switch, and what they wrote until then afterwards. Counters may lose what is counted in between.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

from kubeproxy_ebpf.datapath import batches
from kubeproxy_ebpf.datapath.errors import MapSizeError
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.errors import KernelError
from kubeproxy_ebpf.datapath.libbpf.kernel_types import MapType
from kubeproxy_ebpf.datapath.libbpf.memory import SharedMemory, shared_array
from kubeproxy_ebpf.layout.changes import ArrayMap

_KEYED = {MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE}
_AGENT_ARRAYS = frozenset(array.value for array in ArrayMap)
PEER_NAMES = "peer_names"
"""An array that only the programs write, in words; the low bits of a socket's cookie are its place."""
RESIZABLE_ARRAYS = _AGENT_ARRAYS | {PEER_NAMES}
"""In other arrays an entry's place depends on a size that the programs have built in."""


def copy_contents(name: str, old: int, new: int) -> None:
    """Copy all entries; those of arrays keep their index.

    Raises:
        MapSizeError: an entry could not be written.
    """
    info = syscalls.map_info(old)
    if name in RESIZABLE_ARRAYS:
        with _both(old, new) as (source, target):
            # More bits of a cookie count in the larger array, so a name may be asked for at several places.
            copies = len(target.view) // len(source.view) if name == PEER_NAMES else 1
            for copy in range(copies):
                target.view[copy * len(source.view) : (copy + 1) * len(source.view)] = source.view
    elif info.type in {MapType.PERCPU_ARRAY, *_KEYED}:
        entries = [entry for entry in batches.read(old, info) if info.type in _KEYED or any(entry[1])]
        failures = batches.insert(new, entries)
        if failures:
            msg = (
                f"cannot copy {len(failures)} entries of map {name} into a larger one: {os.strerror(failures[0].error)}"
            )
            raise MapSizeError(msg)


def copy_latecomers(name: str, old: int, new: int) -> None:
    """Add what the programs wrote to the old map since :func:`copy_contents`; what is in the new one is newer."""
    info = syscalls.map_info(old)
    if name == PEER_NAMES:
        with _both(old, new) as (source, target), source.view.cast("Q") as before, target.view.cast("Q") as after:
            for place, word in enumerate(before):
                for copy in range(place, len(after) if word else 0, len(before)):
                    if not after[copy]:
                        target.publish(8 * copy, word)
    elif info.type in _KEYED:
        for key, value in batches.read(old, info):
            try:
                syscalls.map_update(new, key, value, syscalls.NO_EXIST)
            except KernelError as error:
                if error.errno != errno.EEXIST:
                    raise


@contextmanager
def _both(old: int, new: int) -> Iterator[tuple[SharedMemory, SharedMemory]]:
    with closing(shared_array(old, writable=False)) as source, closing(shared_array(new, writable=True)) as target:
        yield source, target
