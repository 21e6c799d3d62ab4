# SPDX-License-Identifier: Apache-2.0
"""Programs of a handful of instructions, written by hand: to probe a kernel and to ask it one thing."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from kubeproxy_ebpf.datapath.libbpf._libbpf import ffi, lib
from kubeproxy_ebpf.datapath.libbpf.errors import check
from kubeproxy_ebpf.datapath.libbpf.kernel_types import AttachType, Helper, MapType, ProgramType

_INSTRUCTION = struct.Struct("=BBhi")
Instruction = bytes


def move_immediate(register: int, value: int) -> Instruction:
    """``register = value`` (BPF_ALU64 | BPF_MOV | BPF_K)."""
    return _INSTRUCTION.pack(0xB7, register, 0, value)


def move_register(register: int, source: int) -> Instruction:
    """``register = source`` (BPF_ALU64 | BPF_MOV | BPF_X)."""
    return _INSTRUCTION.pack(0xBF, source << 4 | register, 0, 0)


def add_immediate(register: int, value: int) -> Instruction:
    """``register += value`` (BPF_ALU64 | BPF_ADD | BPF_K)."""
    return _INSTRUCTION.pack(0x07, register, 0, value)


def store_word(register: int, offset: int, source: int) -> Instruction:
    """``*(u64 *)(register + offset) = source`` (BPF_STX | BPF_MEM | BPF_DW)."""
    return _INSTRUCTION.pack(0x7B, source << 4 | register, offset, 0)


def store_immediate(register: int, offset: int, value: int) -> Instruction:
    """``*(u32 *)(register + offset) = value`` (BPF_ST | BPF_MEM | BPF_W)."""
    return _INSTRUCTION.pack(0x62, register, offset, value)


def load_map(register: int, map_fd: int) -> Instruction:
    """``register = map`` (BPF_LD | BPF_IMM | BPF_DW with BPF_PSEUDO_MAP_FD; two instructions long)."""
    return _INSTRUCTION.pack(0x18, 1 << 4 | register, 0, map_fd) + _INSTRUCTION.pack(0, 0, 0, 0)


def call(helper: Helper) -> Instruction:
    """``r0 = helper(r1, …, r5)`` (BPF_JMP | BPF_CALL)."""
    return _INSTRUCTION.pack(0x85, 0, 0, helper)


def leave() -> Instruction:
    """``return r0`` (BPF_JMP | BPF_EXIT)."""
    return _INSTRUCTION.pack(0x95, 0, 0, 0)


def load_instructions(attach_type: AttachType, name: str, instructions: Sequence[Instruction]) -> int:
    """Load a program for a hook and return its descriptor.

    Raises:
        KernelError: the kernel does not know the hook, or the verifier refuses.
    """
    return _load(attach_type.program_type, attach_type, name, instructions)


def load_plain(program_type: ProgramType, name: str, instructions: Sequence[Instruction]) -> int:
    """Load a program that is for no hook and return its descriptor.

    Raises:
        KernelError: the verifier refuses.
    """
    return _load(program_type, 0, name, instructions)


def _load(program_type: ProgramType, attach_type: int, name: str, instructions: Sequence[Instruction]) -> int:
    code = b"".join(instructions)
    count = len(code) // _INSTRUCTION.size
    result = lib.program_load(program_type, attach_type, name.encode(), code, count, ffi.NULL, 0)
    return check(result, f"load the program {name}")


def has_helper(program_type: ProgramType, helper: Helper) -> bool:
    """Whether programs of a type can call a helper on this kernel; needs the right to load programs."""
    return lib.libbpf_probe_bpf_helper(program_type, helper, ffi.NULL) == 1


def has_map_type(map_type: MapType) -> bool:
    """Whether this kernel can create maps of a type; needs the right to."""
    return lib.libbpf_probe_bpf_map_type(map_type, ffi.NULL) == 1
