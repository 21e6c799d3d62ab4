# SPDX-License-Identifier: Apache-2.0
"""Programs that are loaded for a moment, on the maps of those at work, and asked something (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from kubeproxy_ebpf.datapath import memlock
from kubeproxy_ebpf.datapath.errors import MixedVersionsError
from kubeproxy_ebpf.datapath.layout_check import require_same_layout
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.bpf_object import BpfObject
from kubeproxy_ebpf.datapath.map_store import KernelMapStore

HEADER: Final = bytes(16)
"""Before what a program is asked: the kernel takes the first of it for an Ethernet header."""


def load_beside(store: KernelMapStore, path: Path, constants: Mapping[str, int]) -> BpfObject:
    """Load an object on a store's maps; it is the caller's to close, and the store stays so.

    Raises:
        MixedVersionsError: the loaded programs have other maps.
        LoadError: the verifier refused.
    """
    memlock.raise_limit()
    with ExitStack() as on_failure:
        object_ = on_failure.enter_context(BpfObject(path))
        maps = [map_ for map_ in object_.maps() if not map_.internal]
        missing = sorted({map_.name for map_ in maps} - store.map_names())
        if missing:
            msg = f"what is loaded has no map {', '.join(missing)}: start the agent of this version, which adds it"
            raise MixedVersionsError(msg)
        require_same_layout(maps, {map_.name: syscalls.map_info(store.descriptor(map_.name)) for map_ in maps})
        for map_ in maps:
            object_.reuse_map(map_.name, store.descriptor(map_.name))
        for name, value in constants.items():
            object_.set_constant(name, value)
        object_.load()
        on_failure.pop_all()
    return object_
