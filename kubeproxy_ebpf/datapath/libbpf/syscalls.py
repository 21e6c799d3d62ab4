# SPDX-License-Identifier: Apache-2.0
"""bpf(2) on descriptors: one thin function for each C function, errors as :class:`KernelError`.

Keys and values are bytes of exactly the map's sizes; the classes one storey up see to that.
Every call releases the interpreter's lock.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

from kubeproxy_ebpf.datapath.libbpf._libbpf import ffi, lib
from kubeproxy_ebpf.datapath.libbpf.errors import check

NO_EXIST = 1
"""BPF_NOEXIST: an update only creates."""
READ_ONLY = 8
"""BPF_F_RDONLY: a descriptor that cannot write."""
BEFORE = 8
"""BPF_F_BEFORE: a program runs before all that are there."""
_ROOM = 256
"""Bytes by which a program may make a packet longer."""


class MapInfo(NamedTuple):
    """What the kernel says of a map. ``name`` has at most 15 characters there."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


class ProgramInfo(NamedTuple):
    """What the kernel says of a program. ``name`` has at most 15 characters there."""

    type: int
    id: int
    name: str


class LinkInfo(NamedTuple):
    """What the kernel says of a link. ``cgroup_id`` or ``interface`` is 0 if what it was attached to is gone."""

    type: int
    id: int
    program_id: int
    attach_type: int
    cgroup_id: int
    interface: int


def map_create(map_type: int, name: str, key_size: int, value_size: int, entries: int, *, inner_fd: int = 0) -> int:
    """Create a map and return its descriptor. ``inner_fd``: the pattern of a map of maps."""
    options = ffi.new("struct bpf_map_create_opts *", {"inner_map_fd": inner_fd})
    options.sz = ffi.sizeof("struct bpf_map_create_opts")
    result = lib.bpf_map_create(map_type, name.encode(), key_size, value_size, entries, options)
    return check(result, f"create map {name} with {entries} entries")


def map_info(fd: int) -> MapInfo:
    """Return a map's description."""
    info = ffi.new("struct bpf_map_info *")
    _describe(fd, info, "struct bpf_map_info", "map")
    name = ffi.string(info.name).decode(errors="replace")
    return MapInfo(info.type, info.id, info.key_size, info.value_size, info.max_entries, info.map_flags, name)


def program_info(fd: int) -> ProgramInfo:
    """Return a program's description."""
    info = ffi.new("struct bpf_prog_info *")
    _describe(fd, info, "struct bpf_prog_info", "program")
    return ProgramInfo(info.type, info.id, ffi.string(info.name).decode(errors="replace"))


def _describe(fd: int, info: object, c_type: str, what: str) -> None:
    size = ffi.new("uint32_t *", ffi.sizeof(c_type))
    check(lib.bpf_obj_get_info_by_fd(fd, info, size), f"describe the {what} behind descriptor {fd}")


def link_info(fd: int) -> LinkInfo:
    """Return a link's description."""
    info = ffi.new("struct link_description *")
    check(lib.link_describe(fd, info), f"describe the link behind descriptor {fd}")
    return LinkInfo(info.type, info.id, info.prog_id, info.attach_type, info.cgroup_id, info.interface)


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """Return the value of a key, or None without one."""
    value = ffi.new("char[]", value_size)
    result = lib.bpf_map_lookup_elem(fd, key, value)
    if result == -errno.ENOENT:
        return None
    check(result, f"look up {key.hex()}")
    return bytes(ffi.buffer(value))


def map_update(fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """Insert or overwrite a key."""
    check(lib.bpf_map_update_elem(fd, key, value, flags), f"write {key.hex()}")


def map_delete(fd: int, key: bytes) -> None:
    """Delete a key; KernelError with ENOENT if it is absent."""
    check(lib.bpf_map_delete_elem(fd, key), f"delete {key.hex()}")


def map_next_key(fd: int, key: bytes | None, key_size: int) -> bytes | None:
    """Return the key after one (None: the first), or None at the end."""
    following = ffi.new("char[]", key_size)
    result = lib.bpf_map_get_next_key(fd, ffi.NULL if key is None else key, following)
    if result == -errno.ENOENT:
        return None
    check(result, "walk the keys")
    return bytes(ffi.buffer(following))


def map_update_batch(fd: int, keys: bytes, values: bytes, count: int) -> tuple[int, int]:
    """Insert ``count`` entries; return how many were written, and 0 or the errno that stopped it."""
    done = ffi.new("uint32_t *", count)
    result = lib.bpf_map_update_batch(fd, keys, values, done, _batch_options())
    return _progress(result, done[0], count)


def map_delete_batch(fd: int, keys: bytes, count: int) -> tuple[int, int]:
    """Delete ``count`` keys; return how many were deleted, and 0 or the errno that stopped it."""
    done = ffi.new("uint32_t *", count)
    result = lib.bpf_map_delete_batch(fd, keys, done, _batch_options())
    return _progress(result, done[0], count)


def _batch_options() -> object:
    return ffi.new("struct bpf_map_batch_opts *", {"sz": ffi.sizeof("struct bpf_map_batch_opts")})


def _progress(result: int, done: int, count: int) -> tuple[int, int]:
    if result >= 0:
        return count, 0
    # A kernel that refuses the command itself leaves the count as it was handed in.
    return (done if done < count else 0), -result


class Batch(NamedTuple):
    """Part of a map's contents. ``token`` is where the next part starts; None after the last."""

    keys: bytes
    values: bytes
    entries: int
    token: bytes | None


def map_lookup_batch(fd: int, token: bytes | None, count: int, key_size: int, value_size: int) -> Batch:
    """Read up to ``count`` entries from a token (None: the start) on.

    Raises:
        KernelError: ENOSPC asks for a larger count; ENOTSUPP or EINVAL: this kernel has no batches for the map.
    """
    keys, values = ffi.new("char[]", count * key_size), ffi.new("char[]", count * value_size)
    # Hashes number their buckets with 32 bits; other maps continue from a key.
    following = ffi.new("char[]", max(key_size, 4))
    done = ffi.new("uint32_t *", count)
    start = ffi.NULL if token is None else token
    result = lib.bpf_map_lookup_batch(fd, start, following, keys, values, done, _batch_options())
    ended = result == -errno.ENOENT
    if not ended:
        check(result, "read a batch of entries")
    got: int = done[0]
    read_keys, read_values = ffi.buffer(keys, got * key_size)[:], ffi.buffer(values, got * value_size)[:]
    return Batch(read_keys, read_values, got, None if ended else bytes(ffi.buffer(following)))


def pin(fd: int, path: str) -> None:
    """Give an object a name in bpffs, which keeps it alive."""
    check(lib.bpf_obj_pin(fd, path.encode()), f"pin {path}")


def open_pinned(path: str, *, read_only: bool = False) -> int:
    """Return a descriptor of a pinned object."""
    options = ffi.new("struct bpf_obj_get_opts *", {"file_flags": READ_ONLY if read_only else 0})
    options.sz = ffi.sizeof("struct bpf_obj_get_opts")
    return check(lib.bpf_obj_get_opts(path.encode(), options), f"open {path}")


def link_create(program_fd: int, target_fd: int, attach_type: int, flags: int = 0) -> int:
    """Attach a program and return the link's descriptor; the link lives as long as a descriptor or a pin.

    The target is what the attach type says: a cgroup's descriptor, or the index of a network device.
    """
    options = ffi.new(
        "struct bpf_link_create_opts *", {"sz": ffi.sizeof("struct bpf_link_create_opts"), "flags": flags}
    )
    result = lib.bpf_link_create(program_fd, target_fd, attach_type, options)
    return check(result, f"attach a program (attach type {attach_type})")


def link_update(link_fd: int, program_fd: int) -> None:
    """Replace a link's program; there is no moment without one."""
    check(lib.bpf_link_update(link_fd, program_fd, ffi.NULL), "replace the program of a link")


def link_detach(link_fd: int) -> None:
    """Detach a link's program now, whoever else still holds the link."""
    check(lib.bpf_link_detach(link_fd), "detach a link")


def program_attach(program_fd: int, target_fd: int, attach_type: int, flags: int) -> None:
    """Attach a program without a link; it stays until it is detached."""
    result = lib.bpf_prog_attach(program_fd, target_fd, attach_type, flags)
    check(result, f"attach a program (attach type {attach_type})")


def program_detach(program_fd: int, target_fd: int, attach_type: int) -> None:
    """Detach what :func:`program_attach` attached."""
    result = lib.bpf_prog_detach2(program_fd, target_fd, attach_type)
    check(result, f"detach a program (attach type {attach_type})")


def program_query(target_fd: int, attach_type: int, flags: int = 0) -> tuple[int, ...]:
    """Return the ids of the programs attached at a place, in the order in which they run."""
    capacity = 64
    while True:
        ids, count = ffi.new("uint32_t[]", capacity), ffi.new("uint32_t *", capacity)
        result = lib.bpf_prog_query(target_fd, attach_type, flags, ffi.NULL, ids, count)
        if result == -errno.ENOSPC:
            capacity = max(2 * capacity, count[0])
            continue
        check(result, f"ask which programs are attached (attach type {attach_type})")
        return tuple(ids[0 : count[0]])


class PacketRun(NamedTuple):
    """What a program made of a packet."""

    action: int
    """What it returned, as a signed number."""
    packet: bytes
    mark: int


def program_test_run(program_fd: int, packet: bytes, mark: int = 0) -> PacketRun:
    """Run a program of tc once on a packet, which has a mark (BPF_PROG_TEST_RUN)."""
    size = len(packet) + _ROOM
    data, out = ffi.new("char[]", packet), ffi.new("char[]", size)
    before, after = ffi.new("struct __sk_buff *", {"mark": mark}), ffi.new("struct __sk_buff *")
    options = ffi.new("struct bpf_test_run_opts *")
    options.sz = ffi.sizeof("struct bpf_test_run_opts")
    options.data_in, options.data_size_in = data, len(packet)
    options.data_out, options.data_size_out = out, size
    options.ctx_in, options.ctx_size_in = before, ffi.sizeof("struct __sk_buff")
    options.ctx_out, options.ctx_size_out = after, ffi.sizeof("struct __sk_buff")
    check(lib.bpf_prog_test_run_opts(program_fd, options), "run a program on a packet")
    action = options.retval - (1 << 32) if options.retval >> 31 else options.retval
    return PacketRun(action, bytes(ffi.buffer(out, options.data_size_out)), after.mark)


def map_iterate(program_fd: int, map_fd: int) -> None:
    """Run an iterator program (``iter/bpf_map_elem``) over all elements of a map; what it prints is not read."""
    check(lib.map_iterate(program_fd, map_fd), "run a program on each element of a map")


def map_ids() -> tuple[int, ...]:
    """Return the ids of all maps of the machine."""
    return _all_ids(lib.bpf_map_get_next_id, "maps")


def program_ids() -> tuple[int, ...]:
    """Return the ids of all programs of the machine."""
    return _all_ids(lib.bpf_prog_get_next_id, "programs")


def link_ids() -> tuple[int, ...]:
    """Return the ids of all links of the machine."""
    return _all_ids(lib.bpf_link_get_next_id, "links")


def _all_ids(following: Callable[[int, object], int], what: str) -> tuple[int, ...]:
    ids: list[int] = []
    cell = ffi.new("uint32_t *")
    while True:
        result = following(cell[0], cell)
        if result == -errno.ENOENT:
            return tuple(ids)
        check(result, f"list the {what} of this machine")
        ids.append(cell[0])


def program_open(program_id: int) -> int:
    """Return a descriptor of a program by its id."""
    return check(lib.bpf_prog_get_fd_by_id(program_id), f"open program {program_id}")


def possible_cpus() -> int:
    """Return how many values an entry of a per-CPU map has."""
    return check(lib.libbpf_num_possible_cpus(), "count the CPUs")


def filesystem_magic(path: str) -> int:
    """Return the kind of file system at a path (statfs(2) f_type)."""
    magic = ffi.new("uint64_t *")
    check(lib.filesystem_magic(path.encode(), magic), f"ask for the file system of {path}")
    return int(magic[0])


def membarrier() -> bool:
    """Wait until every CPU has left the RCU read sections it was in; False if this kernel refuses."""
    return lib.membarrier_global() == 0
