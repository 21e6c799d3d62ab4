# SPDX-License-Identifier: Apache-2.0
"""What the kernel's maps say, by names: equal for two agents that know the same, whatever ids each has given out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubeproxy_ebpf.cli.inventory import Filter, Inventory
from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.map_schema import unpack_settings


def contents(pin_folder: Path) -> dict[str, Any]:
    """Read the maps."""
    with loader.open_pinned(pin_folder) as store:
        inventory = Inventory(store, Filter())
        return {
            "services": [row._replace(id=0) for row in inventory.services()],
            "frontends": [row._replace(service=0, origin=0) for row in inventory.frontends()],
            "backends": [row._replace(service=0, id=0, generation=0) for row in inventory.backends()],
            # Where members lie, and who has one slot more where they do not come out even, is the layout's.
            "sets": [
                row._replace(base=0, slots=0, endpoints=tuple(sorted(set(row.endpoints)))) for row in inventory.sets()
            ],
            "addresses": sorted(store.entries(HashMap.ADDRESSES)),
            "settings": unpack_settings(store.read(ArrayMap.SETTINGS)),
        }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return what is in one of two and not in the other, for a person to read."""
    found = []
    for name in one.keys() | other.keys():
        if one[name] != other[name]:
            rows, others = ([side[name]] if name == "settings" else side[name] for side in (one, other))
            found += [f"only here: {name} {row}" for row in rows if row not in others]
            found += [f"only there: {name} {row}" for row in others if row not in rows]
    return found
