# SPDX-License-Identifier: Apache-2.0
"""Waits until every run of a program that was under way has ended, by whichever way the kernel offers."""

from __future__ import annotations

import os
import sys

from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.kernel_types import MapType


class GracePeriod:
    """Programs run inside RCU read sections, so an RCU grace period outlasts them.

    membarrier(2) waits for one (about 16 ms), but is refused under nohz_full and by some seccomp filters, and
    does nothing on a machine with one CPU, where a preempted program may still be under way. There the
    update of a map of maps does, which waits for RCU on every kernel since 4.20.
    """

    def __init__(self) -> None:
        """Prepare nothing: most kernels never need the map."""
        self._outer: int | None = None
        self._inner: int | None = None

    def wait(self) -> None:
        """Block for milliseconds, without the interpreter's lock.

        Raises:
            KernelError: the right to create maps is missing where membarrier is refused.
        """
        if not (_several_cpus() and syscalls.membarrier() and _several_cpus()):
            self.wait_by_map()

    def wait_by_map(self) -> None:
        """Wait by replacing the only entry of a map of maps."""
        if self._outer is None or self._inner is None:
            self._inner = syscalls.map_create(MapType.ARRAY, "grace_inner", 4, 8, 1)
            self._outer = syscalls.map_create(MapType.ARRAY_OF_MAPS, "grace_outer", 4, 4, 1, inner_fd=self._inner)
        syscalls.map_update(self._outer, bytes(4), self._inner.to_bytes(4, sys.byteorder))

    def close(self) -> None:
        """Give the maps back, if they were needed."""
        for fd in (self._outer, self._inner):
            if fd is not None:
                os.close(fd)
        self._outer = self._inner = None


def _several_cpus() -> bool:
    return os.sysconf("SC_NPROCESSORS_ONLN") > 1
