# SPDX-License-Identifier: Apache-2.0
"""A map's values as memory of this process: copied by slices, published word by word."""

from __future__ import annotations

import mmap
from contextlib import closing
from typing import Final

from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf._libbpf import ffi, lib

_LEAST_MAPPED: Final = 65_536
"""Bytes of an array that are mapped whatever is in it."""


class SharedMemory:
    """The values of an mmapable array, entry after entry. Close it after every view of it is released."""

    def __init__(self, fd: int, size: int, *, writable: bool, start: int = 0) -> None:
        """Map ``size`` bytes of the array behind a descriptor, which may be closed afterwards.

        ``start`` is the first of them, a multiple of the page size.

        Raises:
            OSError: the map is not mmapable, or is frozen or read-only while ``writable`` is asked for.
        """
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._pages = mmap.mmap(fd, size, mmap.MAP_SHARED, access, offset=start)
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
    """Map all values of an mmapable array."""
    return SharedMemory(fd, _size(fd), writable=writable)


def _size(fd: int) -> int:
    """Return the bytes of all values of an array; the kernel keeps them eight bytes aligned, one after the other."""
    info = syscalls.map_info(fd)
    return (info.value_size + 7) // 8 * 8 * info.max_entries


class SharedArray:
    """All values of an mmapable array, of which only the beginning is mapped for good, as far as it is written.

    The kernel maps an array's pages at once, and each counts as memory of the process. Not safe for threads.
    """

    def __init__(self, fd: int, *, writable: bool) -> None:
        """Use the array behind a descriptor, which stays the caller's and must stay open.

        Raises:
            OSError: the map is not mmapable, or is frozen or read-only while ``writable`` is asked for.
        """
        self._fd = fd
        self._writable = writable
        self.size = _size(fd)
        self._mapped = min(self.size, _LEAST_MAPPED)
        self._memory = SharedMemory(fd, self._mapped, writable=writable)

    def read(self, start: int, end: int) -> bytes:
        """Return a copy of some bytes."""
        if not 0 <= start <= end <= self.size:
            msg = f"cannot read bytes {start} to {end} of an array of {self.size} bytes"
            raise ValueError(msg)
        if end <= self._mapped:
            return bytes(self._memory.view[start:end])
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        with closing(SharedMemory(self._fd, end - first, writable=False, start=first)) as memory:
            return bytes(memory.view[start - first :])

    def write(self, start: int, data: bytes) -> None:
        """Overwrite some bytes, in no order that a reader could rely on."""
        self._reach(start + len(data))
        self._memory.view[start : start + len(data)] = data

    def publish(self, offset: int, word: int) -> None:
        """Store an aligned 64-bit word so that everything stored before is seen first.

        Raises:
            ValueError: the offset is outside the array or no multiple of eight, or the array is read-only.
        """
        self._reach(offset + 8)
        self._memory.publish(offset, word)

    def _reach(self, end: int) -> None:
        """Map what is about to be written, and as much again, so that growing stays rare."""
        if end > self._mapped and self._mapped < self.size:
            mapped = min(self.size, max(2 * self._mapped, end))
            memory = SharedMemory(self._fd, mapped, writable=self._writable)
            self._memory.close()
            self._memory, self._mapped = memory, mapped

    def close(self) -> None:
        """Give the memory back. The map lives on."""
        self._memory.close()
