# SPDX-License-Identifier: Apache-2.0
"""A map's values as memory of this process: copied by slices, published word by word."""

from __future__ import annotations

import mmap

from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf._libbpf import ffi, lib


class SharedMemory:
    """The values of an mmapable array, entry after entry. Close it after every view of it is released."""

    def __init__(self, fd: int, size: int, *, writable: bool) -> None:
        """Map ``size`` bytes of the array behind a descriptor, which may be closed afterwards.

        Raises:
            OSError: the map is not mmapable, or is frozen or read-only while ``writable`` is asked for.
        """
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._pages = mmap.mmap(fd, size, mmap.MAP_SHARED, access)
        self.view = memoryview(self._pages)
        self._base = ffi.from_buffer("char[]", self._pages) if writable else ffi.NULL
        self._writable = writable
        self._size = size

    def publish(self, offset: int, word: int) -> None:
        """Store an aligned 64-bit word so that everything stored before is seen first.

        Raises:
            ValueError: the offset is outside the memory or no multiple of eight, or the memory is read-only.
        """
        if not self._writable or offset % 8 or not 0 <= offset <= self._size - 8:
            state = "writable" if self._writable else "read-only"
            msg = f"cannot publish a word at byte {offset} of {self._size} bytes of {state} memory"
            raise ValueError(msg)
        lib.store_release_u64(self._base, offset, word)

    def close(self) -> None:
        """Give the memory back. The map lives on."""
        if self._writable:
            ffi.release(self._base)
        self.view.release()
        self._pages.close()


def shared_array(fd: int, *, writable: bool) -> SharedMemory:
    """Map all values of an mmapable array; the kernel keeps them eight bytes aligned, one after the other."""
    info = syscalls.map_info(fd)
    stride = (info.value_size + 7) // 8 * 8
    return SharedMemory(fd, stride * info.max_entries, writable=writable)
