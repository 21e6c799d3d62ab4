# SPDX-License-Identifier: Apache-2.0
"""Many keys in few system calls, and what to do where the kernel stops half-way or knows no batches.

A batch says how far it came but not whether the key or the command displeased; so the entry at which it
stops is tried alone, and so are those after it in its chunk. The next chunk is a batch again.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.errors import ENOTSUPP, KernelError
from kubeproxy_ebpf.datapath.libbpf.kernel_types import MapType

CHUNK = 16_384
"""Entries for one call: beyond ten thousand a batch gets no cheaper per entry."""

_UNSUPPORTED = {ENOTSUPP, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP}


class Failure(NamedTuple):
    """An entry that could not be written: its place in the sequence, and why."""

    position: int
    error: int


def insert(fd: int, entries: Sequence[tuple[bytes, bytes]]) -> list[Failure]:
    """Insert or overwrite keys and values of exactly the map's sizes; return those that failed."""

    def chunk_insert(start: int, end: int) -> int:
        chunk = entries[start:end]
        keys, values = b"".join(key for key, _ in chunk), b"".join(value for _, value in chunk)
        return syscalls.map_update_batch(fd, keys, values, len(chunk))[0]

    def single_insert(index: int) -> None:
        syscalls.map_update(fd, *entries[index])

    return _apply(len(entries), chunk_insert, single_insert)


def delete(fd: int, keys: Sequence[bytes]) -> list[Failure]:
    """Delete keys; absent ones are fine. Return those that failed."""

    def chunk_delete(start: int, end: int) -> int:
        return syscalls.map_delete_batch(fd, b"".join(keys[start:end]), end - start)[0]

    def single_delete(index: int) -> None:
        syscalls.map_delete(fd, keys[index])

    failures = _apply(len(keys), chunk_delete, single_delete)
    return [failure for failure in failures if failure.error != errno.ENOENT]


def _apply(total: int, chunk_write: Callable[[int, int], int], write: Callable[[int], None]) -> list[Failure]:
    failures = []
    for start in range(0, total, CHUNK):
        end = min(start + CHUNK, total)
        done = chunk_write(start, end) if end - start > 1 else 0
        for index in range(start + done, end):
            try:
                write(index)
            except KernelError as error:
                failures.append(Failure(index, error.errno or 0))
    return failures


def value_bytes(info: syscalls.MapInfo) -> int:
    """Return how many bytes a look-up copies: per-CPU maps answer with one padded value for each possible CPU."""
    if info.type in {MapType.PERCPU_ARRAY, MapType.PERCPU_HASH}:
        return (info.value_size + 7) // 8 * 8 * syscalls.possible_cpus()
    return info.value_size


def read(fd: int, info: syscalls.MapInfo) -> Iterator[tuple[bytes, bytes]]:
    """Yield every key and value. What comes or goes meanwhile may be missed, nothing is yielded torn."""
    for batch in _read_batches(fd, info):
        yield from zip(_cut(batch.keys, info.key_size), _cut(batch.values, value_bytes(info)), strict=True)


def fingerprint(fd: int, info: syscalls.MapInfo) -> int:
    """Return a number that stands for all keys and values, and for the order in which the kernel keeps them."""
    return hash(tuple((hash(batch.keys), hash(batch.values)) for batch in _read_batches(fd, info)))


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def _read_batches(fd: int, info: syscalls.MapInfo) -> Iterator[syscalls.Batch]:
    """Yield all entries in as few batches as the kernel allows; one by one where it knows no batches."""
    try:
        batch = _read_batch(fd, info, None, min(CHUNK, max(info.max_entries, 1)))
    except KernelError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        yield from (syscalls.Batch(key, value, 1, None) for key, value in _read_by_key(fd, info))
        return
    yield batch
    while batch.token is not None:
        batch = _read_batch(fd, info, batch.token, CHUNK)
        yield batch


def _read_batch(fd: int, info: syscalls.MapInfo, token: bytes | None, count: int) -> syscalls.Batch:
    while True:
        try:
            return syscalls.map_lookup_batch(fd, token, count, info.key_size, value_bytes(info))
        except KernelError as error:
            # A bucket larger than the batch; or, in a trie, keys that went away under the walk.
            if error.errno not in {errno.ENOSPC, errno.EINTR}:
                raise
            count *= 2 if error.errno == errno.ENOSPC else 1


def _read_by_key(fd: int, info: syscalls.MapInfo) -> Iterator[tuple[bytes, bytes]]:
    """Walk key by key. When the key we stand on is deleted the kernel starts again, hence the memory."""
    seen: set[bytes] = set()
    key: bytes | None = None
    for _ in range(2 * info.max_entries + 1):
        key = syscalls.map_next_key(fd, key, info.key_size)
        if key is None:
            return
        value = None if key in seen else syscalls.map_lookup(fd, key, value_bytes(info))
        seen.add(key)
        if value is not None:
            yield key, value
