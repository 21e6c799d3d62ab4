# SPDX-License-Identifier: Apache-2.0
"""Writes keys that several Services may have to do with: addresses, and what could not be written before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.addresses import Kind
from kubeproxy_ebpf.layout.changes import HashMap, Phase
from kubeproxy_ebpf.layout.contents import Contents, HashKey
from kubeproxy_ebpf.layout.draft import Draft

INSERT_PHASES = {
    HashMap.SERVICE_NAMES: Phase.GUARD,
    HashMap.SOURCE_RANGES: Phase.GUARD,
    HashMap.FRONTENDS: Phase.EXPOSE,
    HashMap.ADDRESSES: Phase.ANNOUNCE,
}
DELETE_PHASES = {
    HashMap.SERVICE_NAMES: Phase.UNGUARD,
    HashMap.SOURCE_RANGES: Phase.UNGUARD,
    HashMap.FRONTENDS: Phase.WITHDRAW,
    HashMap.ADDRESSES: Phase.CONCEAL,
}


def write_kinds(contents: Contents, draft: Draft, old: Sequence[Kind], new: Sequence[Kind]) -> None:
    """Write the addresses whose kind bits differ once somebody wants new kinds in place of old ones."""
    if old == new:
        return
    gone, come = set(old).difference(new), set(new).difference(old)
    before = {address: contents.addresses.kinds(address) for address, _ in sorted(gone | come)}
    for kind in come:
        contents.addresses.acquire(kind)
    for kind in gone:
        contents.addresses.release(kind)
    for address, was in before.items():
        kinds = contents.addresses.kinds(address)
        if not kinds:
            draft.delete(Phase.CONCEAL, HashMap.ADDRESSES, address)
        elif kinds != was:
            phase = Phase.ANNOUNCE if kinds & ~was else Phase.CONCEAL
            draft.insert(phase, HashMap.ADDRESSES, address, schema.pack_u32(kinds))
            contents.present[HashMap.ADDRESSES].add(address)


def write_again(contents: Contents, draft: Draft, keys: Iterable[HashKey]) -> None:
    """Write keys as they should be by now, whatever is in the map."""
    for name, key in sorted(keys, key=lambda item: (item[0].value, item[1])):
        value = contents.value(name, key)
        if key in draft.keyed[name]:
            continue
        if value is None:
            draft.delete(DELETE_PHASES[name], name, key)
        else:
            draft.insert(INSERT_PHASES[name], name, key, value)
            if name in contents.present:
                contents.present[name].add(key)
