# SPDX-License-Identifier: Apache-2.0
"""How many entries each map has. Generous: arrays cost 8 to 32 bytes an entry, hashes only what is in them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from kubeproxy_ebpf.datapath.errors import MapSizeError

LARGEST = 1 << 30


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
    flows: int = 262_144
    """Two for each connection to an endpoint of this node, four for one elsewhere."""
    opening_flows: int = 65_536
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
        return {field.name: getattr(self, field.name) for field in fields(self)}
