# SPDX-License-Identifier: Apache-2.0
"""The compiled objects: their structures are those of the header, and their maps are what user space relies on."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cffi import FFI

from kubeproxy_ebpf.datapath.libbpf.bpf_object import BpfObject, MapDefinition
from kubeproxy_ebpf.datapath.libbpf.kernel_types import MapType
from kubeproxy_ebpf.datapath.loader import CONNECT_OBJECT
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap

HEADERS = [Path(__file__).parents[3] / "bpf_src" / name for name in ("map_types.h", "flow_types.h")]
PRELUDE = "".join(f"typedef uint{bits}_t __u{bits}; typedef int{bits}_t __s{bits};" for bits in (8, 16, 32, 64)) + (
    "typedef uint16_t __be16; typedef uint32_t __be32;"
)
BPF_F_NO_PREALLOC, BPF_F_MMAPABLE = 1, 1 << 10
Layout = tuple[int, dict[str, int]]


@pytest.fixture(scope="module")
def header() -> FFI:
    """Return the header as the binding's compiler reads it."""
    command = ("gcc", "-E", "-P", "-DKUBEPROXY_CFFI", HEADERS[-1])  # it includes the other
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ffi = FFI()
    ffi.cdef(PRELUDE + text)
    return ffi


@pytest.fixture(scope="module")
def structs_in_object() -> dict[str, Layout]:
    """Return size and offsets of each structure that the objects' BTF knows."""
    types: list[dict[str, Any]] = []
    for path in (CONNECT_OBJECT, *(CONNECT_OBJECT.with_name(f"{name}.bpf.o") for name in ("forward", "sweep"))):
        command = ("bpftool", "-j", "btf", "dump", "file", path)
        types += json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["types"]
    return {
        type_["name"]: (type_["size"], {member["name"]: member["bits_offset"] // 8 for member in type_["members"]})
        for type_ in types
        if type_["kind"] == "STRUCT"
    }


def test_every_structure_of_a_map_is_as_in_the_header(header: FFI, structs_in_object: dict[str, Layout]) -> None:
    """Sizes and offsets as clang laid them out for the kernel and gcc would for user space."""
    names = re.findall(r"^struct (\w+) \{", "".join(header.read_text() for header in HEADERS), re.MULTILINE)
    # BTF keeps what maps hold; events are in the ring buffer only.
    in_ring_buffer = {"event", "packet_event"}
    assert set(names) - structs_in_object.keys() == in_ring_buffer
    for name in set(names) - in_ring_buffer:
        fields = {field: entry.offset for field, entry in header.typeof(f"struct {name}").fields}
        assert structs_in_object[name] == (header.sizeof(f"struct {name}"), fields), name


@pytest.fixture(scope="module")
def maps() -> dict[str, MapDefinition]:
    """Return the object's maps."""
    with BpfObject(CONNECT_OBJECT) as object_:
        return {map_.name: map_ for map_ in object_.maps() if not map_.internal}


def test_arrays_that_user_space_writes_are_memory(maps: dict[str, MapDefinition]) -> None:
    """Mapped into memory, with values that are multiples of eight bytes: so is the kernel's stride."""
    for array in (*(array.value for array in ArrayMap), "peer_names"):
        assert maps[array].type == MapType.ARRAY
        assert maps[array].flags == BPF_F_MMAPABLE
        assert maps[array].value_size % 8 == 0


def test_keyed_maps_cost_only_what_is_in_them(maps: dict[str, MapDefinition]) -> None:
    """Their sizes may be generous."""
    for name in (*(name.value for name in HashMap), "socket_origins_overflow"):
        assert maps[name].flags == BPF_F_NO_PREALLOC


def test_nothing_but_programs_and_type_information_is_shipped() -> None:
    """A debugger's sections are left out, and no path of the builder's is in it."""
    command = ("readelf", "--section-headers", "--wide", CONNECT_OBJECT)
    sections = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert ".BTF.ext" in sections
    assert ".debug" not in sections
    assert str(HEADERS[0].parent.parent).encode() not in CONNECT_OBJECT.read_bytes()
