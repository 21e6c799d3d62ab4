# SPDX-License-Identifier: Apache-2.0
"""How many entries each map has. Generous: arrays cost 8 to 32 bytes an entry, most hashes only what is in them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields

from kubeproxy_ebpf.datapath.errors import MapSizeError

LARGEST = 1 << 30
FLOW_TABLES = ("flows", "opening_flows")
"""Maps of the packet programs alone; their entries are made at once, and how many depends on the machine."""

_MEMORY_FOR_FLOW = 65_536
"""Bytes of memory for each entry of ``flows``, which takes some 150: a quarter of a percent."""
_FEWEST_FLOWS, _MOST_FLOWS = 65_536, 4_194_304
_STANDING_FOR_OPENING = 4


def _flows_by_memory() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(max(memory // _MEMORY_FOR_FLOW, _FEWEST_FLOWS), _MOST_FLOWS)


def _opening_flows_by_memory() -> int:
    return _flows_by_memory() // _STANDING_FOR_OPENING


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSizes:
    """Entries of each map that has a size to choose, by the map's name; ``events`` counts bytes."""

    addresses: int = 262_144
    frontends: int = 1_048_576
    services: int = 262_144
    slots: int = 524_288
    backends: int = 262_144
    origins: int = 262_144
    source_ranges: int = 65_536
    service_names: int = 262_144
    affinity: int = 65_536
    peer_names: int = 1_048_576
    """A power of two: the low bits of a socket's cookie are its place."""
    socket_origins_overflow: int = 65_536
    flows: int = field(default_factory=_flows_by_memory)
    """Two for each connection to an endpoint of this node, four for one elsewhere."""
    opening_flows: int = field(default_factory=_opening_flows_by_memory)
    service_counters: int = 65_536
    events: int = 262_144
    """Bytes; rounded up to a power of two."""

    def __post_init__(self) -> None:
        """Raise MapSizeError for what no map can have."""
        for name, size in self.as_mapping().items():
            if not 1 <= size <= LARGEST:
                msg = f"map {name} cannot have {size} entries: choose 1 to {LARGEST}"
                raise MapSizeError(msg)
        if self.peer_names & (self.peer_names - 1):
            msg = f"map peer_names cannot have {self.peer_names} entries: choose a power of two"
            raise MapSizeError(msg)

    def as_mapping(self) -> dict[str, int]:
        """Return the sizes by map name."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}
