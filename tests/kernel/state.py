# SPDX-License-Identifier: Apache-2.0
"""What the kernel holds, seen from outside the agent, so that a test can compare before and after."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kubeproxy_ebpf.datapath.attach import hook_name
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.kernel_types import AttachType


class KernelState(NamedTuple):
    """What is attached to a cgroup and pinned in a folder, by the kernel's ids."""

    programs: dict[str, tuple[int, ...]]
    pinned: dict[str, int]


def kernel_state(cgroup: Path, pin_folder: Path) -> KernelState:
    """Ask for the state of a cgroup and a pin folder."""
    return KernelState(attached_programs(cgroup), pinned_ids(pin_folder))


def attached_programs(cgroup: Path) -> dict[str, tuple[int, ...]]:
    """Return the ids of the programs at each hook of a cgroup; hooks without any are left out."""
    fd = os.open(cgroup, os.O_RDONLY)
    try:
        found = {hook_name(hook): syscalls.program_query(fd, hook) for hook in AttachType}
    finally:
        os.close(fd)
    return {hook: programs for hook, programs in found.items() if programs}


def pinned_ids(pin_folder: Path) -> dict[str, int]:
    """Return the ids of everything pinned under a folder, by path relative to it.

    Folders count as 0, and so do programs, which every load replaces.
    """
    ids = {}
    for path in sorted(pin_folder.rglob("*")) if pin_folder.exists() else ():
        has_no_id = path.is_dir() or path.parent.name == "programs"
        ids[str(path.relative_to(pin_folder))] = 0 if has_no_id else _object_id(path)
    return ids


def _object_id(path: Path) -> int:
    fd = syscalls.open_pinned(str(path))
    try:
        info = syscalls.link_info(fd) if path.parent.name == "links" else syscalls.map_info(fd)
    finally:
        os.close(fd)
    return info.id


class Listing(NamedTuple):
    """Ids of everything BPF on the machine, as ``bpftool prog|map|link list`` shows it."""

    programs: frozenset[int]
    maps: frozenset[int]
    links: frozenset[int]

    @classmethod
    def now(cls) -> Listing:
        """List."""
        return cls(frozenset(syscalls.program_ids()), frozenset(syscalls.map_ids()), frozenset(syscalls.link_ids()))

    def added_since(self, before: Listing) -> tuple[frozenset[int], ...]:
        """Return what is here and was not before."""
        return tuple(now - then for now, then in zip(self, before, strict=True))


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait for what the kernel does in its own time, such as freeing what nobody refers to any more."""
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def connect_error(port: int = 9) -> str:
    """Return what a TCP connect() to a closed loopback port says: EPERM if a hook refuses, else ECONNREFUSED."""
    with socket.socket() as client:
        return errno.errorcode[client.connect_ex(("127.0.0.1", port))]
