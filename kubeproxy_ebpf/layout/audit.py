# SPDX-License-Identifier: Apache-2.0
"""What layout believes against what the kernel's maps hold, as the changes that repair the difference."""

from __future__ import annotations

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.changes import Change, DeleteEntry, HashMap, InsertEntry, Phase
from kubeproxy_ebpf.layout.draft import ONE
from kubeproxy_ebpf.layout.layout import Layout
from kubeproxy_ebpf.layout.restore import SELF_TEST_ORIGIN
from kubeproxy_ebpf.map_store import MapStore

_PHASES = {
    HashMap.SERVICE_NAMES: (Phase.GUARD, Phase.UNGUARD),
    HashMap.SOURCE_RANGES: (Phase.GUARD, Phase.UNGUARD),
    HashMap.FRONTENDS: (Phase.EXPOSE, Phase.WITHDRAW),
    HashMap.ADDRESSES: (Phase.ANNOUNCE, Phase.CONCEAL),
}


def audit(layout: Layout, store: MapStore) -> tuple[Change, ...]:
    """Return the changes after which the keyed maps hold what they should."""
    changes: list[Change] = []
    for name, wanted in _wanted(layout).items():
        found = dict(store.entries(name))
        insert, delete = _PHASES[name]
        changes += [InsertEntry(insert, name, key, value) for key, value in wanted.items() if found.get(key) != value]
        changes += [
            DeleteEntry(delete, name, key)
            for key, value in found.items()
            if key not in wanted and not _is_self_test(name, value)
        ]
    return tuple(sorted(changes, key=lambda change: change.phase))


def _is_self_test(name: HashMap, value: bytes) -> bool:
    return name is HashMap.FRONTENDS and schema.unpack_u32(value) == SELF_TEST_ORIGIN


def _wanted(layout: Layout) -> dict[HashMap, dict[bytes, bytes]]:
    ports = layout.ports.values()
    return {
        HashMap.SERVICE_NAMES: {
            schema.pack_u32(port.service): schema.pack_name(port.key) for port in ports if port.named
        },
        HashMap.SOURCE_RANGES: {
            schema.pack_source_range(port.service, prefix): ONE for port in ports for prefix in port.source_ranges
        },
        HashMap.FRONTENDS: {
            schema.pack_frontend_key(key): schema.pack_u32(origin)
            for port in ports
            for key, (origin, _) in port.origins.items()
        },
        HashMap.ADDRESSES: {bytes(address): schema.pack_u32(kinds) for address, kinds in layout.address_kinds.items()},
    }
