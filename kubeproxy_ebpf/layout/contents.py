# SPDX-License-Identifier: Apache-2.0
"""What the maps hold, and what they have room for: the one state behind all batches."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.addresses import AddressKinds, Kind
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.layout.epochs import Epochs
from kubeproxy_ebpf.layout.ids import IdPool
from kubeproxy_ebpf.layout.ranges import RangePool
from kubeproxy_ebpf.layout.states import Owner, PortState
from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.model.objects import ObjectName

Capacities = Mapping[ArrayMap | HashMap, int]
HashKey = tuple[HashMap, bytes]

WANTED = 0
"""A source range that somebody wants; any other number is the epoch in which the last one who did let go."""

ONE = schema.pack_u32(1)
_WRAP = 1 << 32


class Contents:
    """Ids, ranges, service ports and keys. Nothing in here decides anything."""

    def __init__(self, capacities: Capacities) -> None:
        """Start with empty maps."""
        self.capacities = capacities
        self.services = IdPool(capacities[ArrayMap.SERVICES])
        self.origins = IdPool(capacities[ArrayMap.ORIGINS])
        self.backends = IdPool(capacities[ArrayMap.BACKENDS])
        self.slots = RangePool(capacities[ArrayMap.SLOTS])
        self.generations: array[int] = array("I", (0,))
        """Of each backend that ever was; also a free one's is never forgotten."""
        self.ports: dict[int, PortState] = {}
        """By service id."""
        self.service_ports: dict[ObjectName, tuple[int, ...]] = {}
        self.kinds: dict[ObjectName, tuple[Kind, ...]] = {}
        self.owners: dict[bytes, Owner] = {}
        """By frontend key. A frontend has one owner, whoever else may have had it before."""
        self.addresses = AddressKinds()
        self.source_ranges: dict[bytes, int] = {}
        """Keys in the map: ``WANTED``, or the epoch in which they were let go."""
        self.present: dict[HashMap, set[bytes]] = {
            name: set() for name in (HashMap.FRONTENDS, HashMap.ADDRESSES, HashMap.SERVICE_NAMES)
        }
        """Keys that may be in the map."""
        self.unwritten: dict[ObjectName | None, set[HashKey]] = {}
        """Keys whose last write failed, by the Service to be tried again."""
        self.epochs = Epochs()
        self.wanted_range = 0
        """The longest range that was asked for in vain."""

    def value(self, name: HashMap, key: bytes) -> bytes | None:
        """Return what a map should hold for a key; None: nothing."""
        match name:
            case HashMap.FRONTENDS:
                owner = self.owners.get(key)
                return schema.pack_u32(owner.origin) if owner else None
            case HashMap.ADDRESSES:
                kinds = self.addresses.kinds(Address(key))
                return schema.pack_u32(kinds) if kinds else None
            case HashMap.SERVICE_NAMES:
                port = self.ports.get(schema.unpack_u32(key))
                return schema.pack_name(port.key) if port and port.key else None
            case HashMap.SOURCE_RANGES:
                return ONE if key in self.source_ranges else None

    def take_backends(self, count: int) -> list[int]:
        """Return ids of backends that nobody has, and whose generations nobody can remember."""
        ids = self.backends.take(count)
        missing = max(ids, default=0) + 1 - len(self.generations)
        if missing > 0:
            self.generations.frombytes(bytes(missing * self.generations.itemsize))
        return ids

    def move_on(self, backend: int) -> int:
        """Give a backend its next generation, and return it."""
        generation = (self.generations[backend] + 1) % _WRAP
        self.generations[backend] = generation
        return generation

    def used(self, name: HashMap) -> int:
        """Return how many keys a map may hold."""
        return len(self.source_ranges) if name is HashMap.SOURCE_RANGES else len(self.present[name])

    def new_keys(self, name: HashMap, keys: Iterable[bytes]) -> int:
        """Return how many of these keys are not in a map yet."""
        known = self.source_ranges if name is HashMap.SOURCE_RANGES else self.present[name]
        return len([key for key in keys if key not in known])

    def fill(self) -> dict[str, tuple[int, int]]:
        """Return how many entries of each map are in use, those in a grace period among them, and how many fit."""
        used: dict[ArrayMap | HashMap, int] = {
            ArrayMap.SERVICES: self.services.in_use,
            ArrayMap.ORIGINS: self.origins.in_use,
            ArrayMap.BACKENDS: self.backends.in_use,
            ArrayMap.SLOTS: self.slots.in_use,
            **{name: self.used(name) for name in HashMap},
        }
        return {name.value: (count, self.capacities[name]) for name, count in used.items()}
