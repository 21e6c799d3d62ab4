# SPDX-License-Identifier: Apache-2.0
"""Ends connections that the packet programs remember, on somebody's request.

A program does it, which is loaded for the moment: an entry that is deleted from here could be in the middle of being
read, and its place another connection's already. It is marked, which ends it at once, and deleted by the next sweep.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.load_beside import HEADER, load_beside
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.map_schema import FlowKey, pack_flow_key

RETIRE_OBJECT = Path(__file__).parent.parent / "bpf" / "retire.bpf.o"
_RETIRE_PROGRAM = "retire"


def retire(store: KernelMapStore, keys: Iterable[FlowKey]) -> None:
    """End the ways of connections that have these keys; a key without an entry is fine. ``store``: writable.

    Raises:
        MixedVersionsError: the loaded programs have other maps, or no packet programs are loaded.
        LoadError: the verifier refused.
        KernelError: the kernel refused something else.
    """
    with load_beside(store, RETIRE_OBJECT, {}) as object_:
        program = object_.program_fd(_RETIRE_PROGRAM)
        for key in keys:
            syscalls.program_test_run(program, HEADER + pack_flow_key(key))
