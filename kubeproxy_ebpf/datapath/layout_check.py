# SPDX-License-Identifier: Apache-2.0
"""Compares pinned maps with what the programs expect, and decides which can be used as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kubeproxy_ebpf.datapath.errors import UnknownLayoutError
from kubeproxy_ebpf.datapath.libbpf.bpf_object import MapDefinition
from kubeproxy_ebpf.datapath.libbpf.syscalls import MapInfo

_COMPARED = ("type", "key_size", "value_size", "flags")


def require_same_layout(expected: Iterable[MapDefinition], pinned: Mapping[str, MapInfo]) -> None:
    """Check every pinned map that the programs use.

    Raises:
        UnknownLayoutError: type, key, value or flags differ; names the map, what is found, what is expected.
    """
    for definition in expected:
        found = pinned.get(definition.name)
        if found is None:
            continue
        for aspect in _COMPARED:
            is_, should_be = getattr(found, aspect), getattr(definition, aspect)
            if is_ != should_be:
                msg = (
                    f"the pinned map {definition.name} has {aspect} {is_}, this version expects {should_be}: "
                    "run `kubeproxy-ebpf unload`, then start again; Services do not work in between"
                )
                raise UnknownLayoutError(msg)
