# SPDX-License-Identifier: Apache-2.0
"""Samples that programs leave in a ring buffer map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubeproxy_ebpf.datapath.libbpf._libbpf import ffi, lib
from kubeproxy_ebpf.datapath.libbpf.errors import KernelError, check

if TYPE_CHECKING:
    from kubeproxy_ebpf.datapath.libbpf._libbpf import CData


@ffi.def_extern()
def sample_received(context: CData, data: CData, size: int) -> int:
    """Copy one sample into the list of the reader that asked."""
    samples: list[bytes] = ffi.from_handle(context)
    samples.append(ffi.buffer(data, size)[:])
    return 0


class RingBuffer:
    """The consumer of a ring buffer map. There can be only one at a time: each sample is read once."""

    def __init__(self, map_fd: int) -> None:
        """Start reading where the last consumer stopped.

        Raises:
            KernelError: the descriptor is of no ring buffer, or not writable.
        """
        self._samples: list[bytes] = []
        self._handle = ffi.new_handle(self._samples)
        self._buffer = lib.ring_buffer__new(map_fd, lib.sample_received, self._handle, ffi.NULL)
        if self._buffer == ffi.NULL:
            raise KernelError(ffi.errno, "read a ring buffer")

    def fileno(self) -> int:
        """Return a descriptor that polls readable when samples are there."""
        return check(lib.ring_buffer__epoll_fd(self._buffer), "poll a ring buffer")

    def take(self) -> list[bytes]:
        """Return all samples that are there, oldest first; never waits."""
        check(lib.ring_buffer__consume(self._buffer), "read a ring buffer")
        samples = self._samples[:]
        self._samples.clear()
        return samples

    def close(self) -> None:
        """Stop reading."""
        if self._buffer != ffi.NULL:
            lib.ring_buffer__free(self._buffer)
            self._buffer = ffi.NULL
