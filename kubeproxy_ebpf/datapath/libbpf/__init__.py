# SPDX-License-Identifier: Apache-2.0
"""The binding to libbpf, and the only place that knows cffi.

Three storeys: C (``cdef.h``, ``source.c``, compiled by ``build_bpf.py`` into ``_libbpf``), one thin function for each
C function (:mod:`.syscalls`, :mod:`.programs`), and classes (:class:`.bpf_object.BpfObject`,
:class:`.memory.SharedMemory`, :class:`.ring_buffer.RingBuffer`).
"""
