# SPDX-License-Identifier: Apache-2.0
"""A compiled object file on its way into the kernel: its maps, programs and constants."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from kubeproxy_ebpf.datapath.libbpf._libbpf import ffi, lib
from kubeproxy_ebpf.datapath.libbpf.errors import KernelError, check
from kubeproxy_ebpf.datapath.libbpf.messages import collected

if TYPE_CHECKING:
    from kubeproxy_ebpf.datapath.libbpf._libbpf import CData

LOG_TAIL = 40
"""How many of libbpf's last lines an error carries: the verifier says at the end what it minds."""


class LoadError(Exception):
    """libbpf or the kernel's verifier refused an object. ``log`` has all that was said, line by line."""

    def __init__(self, path: Path, action: str, cause: KernelError, log: list[str]) -> None:
        """Name the file, what was tried, what helps and the end of the log."""
        remedy = "`kubeproxy-ebpf check` says what this machine lacks" if path.exists() else "install the package again"
        tail = "".join(f"\n  {line}" for line in log[-LOG_TAIL:])
        super().__init__(f"cannot {action} {path}: {cause}; {remedy}{tail}")
        self.log = tuple(log)


class MapDefinition(NamedTuple):
    """What an object file asks for. ``internal``: constants and variables of the programs themselves."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    internal: bool


class ProgramDefinition(NamedTuple):
    """A program of an object file."""

    name: str
    type: int
    attach_type: int


class BpfObject:
    """An opened object file. After :meth:`load` its maps and programs have descriptors, until :meth:`close`."""

    def __init__(self, path: Path) -> None:
        """Open and parse a file; nothing reaches the kernel yet.

        Raises:
            LoadError: there is no such file, or it is no BPF object.
        """
        self._path = path
        with collected() as log:
            self._object = lib.bpf_object__open_file(str(path).encode(), ffi.NULL)
            error = ffi.errno
        if self._object == ffi.NULL:
            raise LoadError(path, "open", KernelError(error, "parse the file"), log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor; what is pinned or attached lives on."""
        if self._object != ffi.NULL:
            lib.bpf_object__close(self._object)
            self._object = ffi.NULL

    def maps(self) -> tuple[MapDefinition, ...]:
        """Return the object's maps, in the order of the file."""
        return tuple(_map_definition(pointer) for pointer in self._map_pointers())

    def programs(self) -> tuple[ProgramDefinition, ...]:
        """Return the object's programs, in the order of the file."""
        return tuple(_program_definition(pointer) for pointer in self._program_pointers())

    def set_entries(self, map_name: str, entries: int) -> int:
        """Set how many entries a map is created with; return the number after libbpf's rounding (ring buffers)."""
        pointer = self._map_pointer(map_name)
        check(lib.bpf_map__set_max_entries(pointer, entries), f"give map {map_name} {entries} entries")
        return lib.bpf_map__max_entries(pointer)

    def entries(self, map_name: str) -> int:
        """Return how many entries a map is created with, or has if it is reused."""
        return lib.bpf_map__max_entries(self._map_pointer(map_name))

    def reuse_map(self, map_name: str, fd: int) -> None:
        """Load the programs against an existing map; the descriptor stays the caller's."""
        check(lib.bpf_map__reuse_fd(self._map_pointer(map_name), fd), f"reuse map {map_name}")

    def set_constant(self, name: str, value: int) -> None:
        """Set a ``const volatile`` number of the programs; the verifier prunes what it rules out.

        Raises:
            KeyError: no program has such a constant.
            OverflowError: the value does not fit it.
        """
        offset, size = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        if lib.constant_find(self._object, name.encode(), offset, size) < 0:
            raise KeyError(name)
        data = value.to_bytes(size[0], sys.byteorder)
        length = ffi.new("size_t *")
        # libbpf puts the start of the object's name before the section's.
        section = next(map_.name for map_ in self.maps() if map_.internal and map_.name.endswith(".rodata"))
        start = lib.bpf_map__initial_value(self._map_pointer(section), length)
        ffi.memmove(ffi.cast("char *", start) + offset[0], data, size[0])

    def has_constant(self, name: str) -> bool:
        """Whether some program reads a constant of this name."""
        cell = ffi.new("uint32_t[2]")
        return lib.constant_find(self._object, name.encode(), cell, cell + 1) == 0

    def load(self) -> None:
        """Create the maps that are not reused and hand the programs to the verifier. All or nothing.

        Raises:
            LoadError: with the end of the verifier's log.
        """
        with collected() as log:
            result = lib.bpf_object__load(self._object)
        if result < 0:
            raise LoadError(self._path, "load", KernelError(-result, "create its maps and programs"), log)

    def map_fd(self, map_name: str) -> int:
        """Return a loaded map's descriptor, which the object owns."""
        return check(lib.bpf_map__fd(self._map_pointer(map_name)), f"use map {map_name} before it is loaded")

    def program_fd(self, program_name: str) -> int:
        """Return a loaded program's descriptor, which the object owns."""
        return check(lib.bpf_program__fd(self._program_pointer(program_name)), f"use program {program_name}")

    def _map_pointers(self) -> Iterator[CData]:
        pointer = lib.bpf_object__next_map(self._object, ffi.NULL)
        while pointer != ffi.NULL:
            yield pointer
            pointer = lib.bpf_object__next_map(self._object, pointer)

    def _program_pointers(self) -> Iterator[CData]:
        pointer = lib.bpf_object__next_program(self._object, ffi.NULL)
        while pointer != ffi.NULL:
            yield pointer
            pointer = lib.bpf_object__next_program(self._object, pointer)

    def _map_pointer(self, name: str) -> CData:
        for pointer in self._map_pointers():
            if _text(lib.bpf_map__name(pointer)) == name:
                return pointer
        raise KeyError(name)

    def _program_pointer(self, name: str) -> CData:
        for pointer in self._program_pointers():
            if _text(lib.bpf_program__name(pointer)) == name:
                return pointer
        raise KeyError(name)


def _text(pointer: CData) -> str:
    return ffi.string(pointer).decode()


def _map_definition(pointer: CData) -> MapDefinition:
    return MapDefinition(
        _text(lib.bpf_map__name(pointer)),
        lib.bpf_map__type(pointer),
        lib.bpf_map__key_size(pointer),
        lib.bpf_map__value_size(pointer),
        lib.bpf_map__max_entries(pointer),
        lib.bpf_map__map_flags(pointer),
        lib.bpf_map__is_internal(pointer),
    )


def _program_definition(pointer: CData) -> ProgramDefinition:
    return ProgramDefinition(
        _text(lib.bpf_program__name(pointer)),
        lib.bpf_program__type(pointer),
        lib.bpf_program__expected_attach_type(pointer),
    )
