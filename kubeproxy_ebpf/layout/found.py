# SPDX-License-Identifier: Apache-2.0
"""What the maps were found to hold, and a view of it for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.changes import HashMap
from kubeproxy_ebpf.layout.epochs import Retired
from kubeproxy_ebpf.layout.states import Owner, PlacedSet, PortState
from kubeproxy_ebpf.map_schema import BackendEntry
from kubeproxy_ebpf.model.address import Address, Prefix
from kubeproxy_ebpf.plan.service_plan import FrontendKey, FrontendKind, ServicePortKey


class PortEntries:
    """One service port, unpacked."""

    def __init__(self, key: ServicePortKey, state: PortState, owners: dict[bytes, Owner]) -> None:
        """Show a state; ``owners`` are those of all frontends."""
        self.key = key
        self._state = state
        self._owners = owners

    @property
    def service(self) -> int:
        """Its service id."""
        return self._state.service

    @property
    def affinity_seconds(self) -> int:
        """How long affinity lasts; 0: there is none."""
        return self._state.affinity_seconds

    @property
    def flags(self) -> int:
        """Its flags, enum service_flag."""
        return self._state.flags

    @property
    def cluster(self) -> PlacedSet:
        """Its cluster set."""
        return self._state.cluster

    @property
    def local(self) -> PlacedSet:
        """Its local set."""
        return self._state.local

    @cached_property
    def backends(self) -> dict[tuple[Address, int], int]:
        """Backend ids by endpoint."""
        entries = schema.unpack_backends(self._state.entries)
        return {
            (entry.address, entry.port): number for number, entry in zip(self._state.backends, entries, strict=True)
        }

    @cached_property
    def origins(self) -> dict[FrontendKey, tuple[int, FrontendKind]]:
        """Origin ids and kinds by frontend."""
        keys = ((schema.unpack_frontend_key(key), self._owners[key]) for key in self._state.frontends)
        return {key: (owner.origin, FrontendKind(owner.kind)) for key, owner in keys if key is not None}

    @cached_property
    def source_ranges(self) -> frozenset[Prefix]:
        """The sources that its load balancer addresses let in, if its flags say so."""
        return frozenset(schema.unpack_source_range(key)[1] for key in self._state.source_ranges)


@dataclass(slots=True)
class Found:
    """What the maps hold, told apart by whether somebody can be its owner."""

    states: list[PortState] = field(default_factory=list)
    """Service ports; those without a name last."""
    owners: dict[bytes, Owner] = field(default_factory=dict)
    addresses: dict[Address, int] = field(default_factory=dict)
    """Kind bits, but for addresses of the self-test."""
    backend_data: bytes = b""
    """The entries of all backends that ever were."""
    stray_keys: list[tuple[HashMap, bytes]] = field(default_factory=list)
    """Keys that lead nowhere, or are damaged."""
    stray_origins: list[int] = field(default_factory=list)
    """Origins that say they are somebody's, but no frontend leads there."""
    free: Retired = field(default_factory=Retired)
    """What belongs to nobody. Some reader may still be at it."""
    first_unused: dict[str, int] = field(default_factory=dict)
    """By array: from here on nothing was ever used."""

    @property
    def ports(self) -> list[PortEntries]:
        """The service ports that have a name, unpacked."""
        return [PortEntries(state.key, state, self.owners) for state in self.states if state.key is not None]

    @property
    def backends(self) -> list[tuple[int, BackendEntry]]:
        """Every entry of ``backends`` that ever was in use, unpacked."""
        entries = enumerate(schema.unpack_backends(self.backend_data))
        return [(number, entry) for number, entry in entries if number and (entry.generation or entry.flags)]
