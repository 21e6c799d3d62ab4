# SPDX-License-Identifier: Apache-2.0
"""Compares what the programs expect of maps with what the agent writes and with what is pinned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kubeproxy_ebpf.datapath import resize
from kubeproxy_ebpf.datapath.errors import MixedVersionsError, UnknownLayoutError
from kubeproxy_ebpf.datapath.libbpf.bpf_object import MapDefinition
from kubeproxy_ebpf.datapath.libbpf.kernel_types import MapType
from kubeproxy_ebpf.datapath.libbpf.syscalls import MapInfo
from kubeproxy_ebpf.map_schema import ENTRY_SIZES

_COMPARED = ("type", "key_size", "value_size", "flags")


def require_same_layout(expected: Iterable[MapDefinition], pinned: Mapping[str, MapInfo]) -> None:
    """Check every pinned map that the programs use.

    Raises:
        UnknownLayoutError: type, key, value or flags differ, or a size that the programs have
            built in; names the map, what is found, what is expected.
    """
    for definition in expected:
        found = pinned.get(definition.name)
        if found is None:
            continue
        size_is_fixed = definition.type == MapType.ARRAY and definition.name not in resize.RESIZABLE_ARRAYS
        for aspect in (*_COMPARED, "max_entries") if size_is_fixed else _COMPARED:
            is_, should_be = getattr(found, aspect), getattr(definition, aspect)
            if is_ != should_be:
                msg = (
                    f"the pinned map {definition.name} has {aspect} {is_}, this version expects {should_be}: "
                    "run `kubeproxy-ebpf unload`, then start again; Services do not work in between"
                )
                raise UnknownLayoutError(msg)


def require_agents_layout(expected: Mapping[str, MapDefinition]) -> None:
    """Check the programs' arrays against the entries that the agent writes.

    Raises:
        MixedVersionsError: an array is missing, or its entries have another size, or one that the kernel would pad.
    """
    for array, size in ENTRY_SIZES.items():
        definition = expected.get(array.value)
        found = definition.value_size if definition else 0
        if found != size or size % 8:
            msg = (
                f"the programs' map {array.value} has entries of {found} bytes, the agent writes {size}: "
                "the package was put together from different versions; install it again"
            )
            raise MixedVersionsError(msg)
