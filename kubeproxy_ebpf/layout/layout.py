# SPDX-License-Identifier: Apache-2.0
"""Plans to changes: knows what the maps hold, and what to write so that they say what the plans say.

:meth:`Layout.prepare` makes a batch; whoever applies it tells with :meth:`Layout.commit` what failed.
Until then nothing here changes but what is handed out, so that a batch may fail at any write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.addresses import AddressKinds
from kubeproxy_ebpf.layout.backends import BackendTable
from kubeproxy_ebpf.layout.changes import (
    ArrayMap,
    Change,
    DeleteEntry,
    HashMap,
    InsertEntry,
    Phase,
    PublishWord,
    WriteEntries,
)
from kubeproxy_ebpf.layout.draft import Pools, PortDraft, Retired
from kubeproxy_ebpf.layout.entries import PlacedSet, PortEntries, address_kind
from kubeproxy_ebpf.layout.errors import CapacityError, MapFullError
from kubeproxy_ebpf.layout.ids import IdPool
from kubeproxy_ebpf.layout.ranges import RangePool
from kubeproxy_ebpf.layout.restore import Found
from kubeproxy_ebpf.map_schema import Set
from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.model.objects import ObjectName
from kubeproxy_ebpf.plan.service_plan import FrontendKey, ServicePlan, ServicePortKey

Capacities = Mapping[ArrayMap | HashMap, int]
HashKey = tuple[HashMap, bytes]


@dataclass(slots=True)
class Batch:
    """The changes of many Services, to be applied in this order."""

    changes: tuple[Change, ...] = ()
    errors: tuple[CapacityError, ...] = ()
    """Services that do not fit; they keep what they had."""
    services: dict[ObjectName, tuple[PortDraft, ...]] = field(default_factory=dict)
    touched: set[Address] = field(default_factory=set)
    owners: dict[HashKey, ObjectName] = field(default_factory=dict)
    moves: tuple[tuple[ServicePortKey, bool, PlacedSet], ...] = ()
    """Sets that only change their place: (port, whether it is the local set, where it goes)."""
    vacated: list[Set] = field(default_factory=list)
    """Where those stood."""


class Layout:
    """What the maps hold, by service port. Not safe for threads."""

    def __init__(self, capacities: Capacities) -> None:
        """Start with empty maps."""
        self._capacities = capacities
        self._pools = Pools(
            services=IdPool("services", capacities[ArrayMap.SERVICES]),
            origins=IdPool("origins", capacities[ArrayMap.ORIGINS]),
            slots=RangePool("slots", capacities[ArrayMap.SLOTS]),
            backends=BackendTable(capacities[ArrayMap.BACKENDS]),
        )
        self._ports: dict[ServicePortKey, PortEntries] = {}
        self._keys: dict[ObjectName, set[ServicePortKey]] = {}
        self._kinds: dict[ObjectName, tuple[tuple[Address, int], ...]] = {}
        self._addresses = AddressKinds()
        self._holders: dict[FrontendKey, ServicePortKey] = {}
        """Whose origin each frontend leads to: of two in turn, the one that was written last."""
        self._garbage: list[Change] = []
        self._open = Retired()
        self._closing: Retired | None = None
        self._long_ranges: list[int] = []
        self._entries: Counter[HashMap] = Counter()
        """How many entries of ours each keyed map holds, but for addresses."""

    @property
    def ports(self) -> Mapping[ServicePortKey, PortEntries]:
        """What the maps hold of each service port."""
        return self._ports

    @property
    def address_kinds(self) -> Mapping[Address, int]:
        """What the map ``addresses`` holds."""
        return self._addresses.written

    def fill(self) -> dict[str, tuple[int, int]]:
        """Return how many entries of each map are in use, and how many there are."""
        pools = self._pools
        used: dict[ArrayMap | HashMap, int] = {
            ArrayMap.SERVICES: pools.services.in_use,
            ArrayMap.ORIGINS: pools.origins.in_use,
            ArrayMap.BACKENDS: pools.backends.ids.in_use,
            ArrayMap.SLOTS: self._capacities[ArrayMap.SLOTS] - 1 - pools.slots.free,
            HashMap.ADDRESSES: len(self._addresses.written),
            **{name: self._entries[name] for name in (HashMap.FRONTENDS, HashMap.SOURCE_RANGES, HashMap.SERVICE_NAMES)},
        }
        return {name.value: (count, self._capacities[name]) for name, count in used.items()}

    # Batches

    def prepare(self, plans: Mapping[ObjectName, ServicePlan | None]) -> Batch:
        """Return what to write so that the maps say what these plans say; None: the Service is gone."""
        batch = Batch()
        errors: list[CapacityError] = []
        changes: list[Change] = []
        room = Counter(self._entries)
        for name, plan in plans.items():
            try:
                drafts = self._draft(name, plan, room)
            except MapFullError as full:
                errors.append(CapacityError(name, full))
                continue
            batch.services[name] = drafts
            for draft in drafts:
                self._holders.update(dict.fromkeys(draft.new.origins, draft.new.key))
                changes += draft.changes
                for change in draft.changes:
                    if isinstance(change, InsertEntry | DeleteEntry):
                        batch.owners[change.map, change.key] = name
            kinds = _kinds_of(plan)
            batch.touched |= self._addresses.replace(self._kinds.get(name, ()), kinds)
            if kinds:
                self._kinds[name] = kinds
            else:
                self._kinds.pop(name, None)
        changes += self._addresses.changes(batch.touched)
        batch.errors = tuple(errors)
        batch.changes = _in_order(changes)
        return batch

    def _draft(self, name: ObjectName, plan: ServicePlan | None, room: Counter[HashMap]) -> tuple[PortDraft, ...]:
        wanted = {port.key: port for port in plan.ports} if plan else {}
        drafts: list[PortDraft] = []
        try:
            for key in dict.fromkeys((*wanted, *sorted(self._keys.get(name, ())))):
                drafts.append(PortDraft(self._pools, self._ports.get(key), wanted.get(key), self._holders))  # noqa: PERF401 - cancelled one by one
            self._require_room(drafts, room)
        except MapFullError as full:
            for draft in drafts:
                draft.cancel()
            if full.map_name == ArrayMap.SLOTS.value and plan is not None:
                self._long_ranges += [len(port.cluster_set) for port in plan.ports]
                self._long_ranges += [len(port.local_set) for port in plan.ports]
            raise
        return tuple(drafts)

    def _require_room(self, drafts: Iterable[PortDraft], room: Counter[HashMap]) -> None:
        """Refuse a Service whose keys would not all fit: never half a Service. ``room``: entries so far."""
        added = Counter(change.map for draft in drafts for change in draft.changes if isinstance(change, InsertEntry))
        for name, count in added.items():
            if room[name] + count > self._capacities[name]:
                raise MapFullError(name.value, self._capacities[name])
        room.update(added)

    def commit(self, batch: Batch, failed: Collection[Change] = ()) -> set[ObjectName]:
        """Note that a batch was applied, but for what failed; return the Services that must be tried again."""
        lost = {(change.map, change.key) for change in failed if isinstance(change, InsertEntry | DeleteEntry)}
        for name, drafts in batch.services.items():
            for draft in drafts:
                self._settle(name, draft, lost)
                self._open.add(draft.retired)
        self._addresses.commit(batch.touched, (Address(key) for name, key in lost if name is HashMap.ADDRESSES))
        for key, is_local, placed in batch.moves:
            if is_local:
                self._ports[key].local = placed
            else:
                self._ports[key].cluster = placed
        self._open.ranges += batch.vacated
        again = {batch.owners[key] for key in lost if key in batch.owners}
        lost_addresses = {Address(key) for name, key in lost if name is HashMap.ADDRESSES}
        if lost_addresses:
            again |= {name for name in batch.services if lost_addresses & {one for one, _ in self._kinds.get(name, ())}}
        return again

    def _settle(self, name: ObjectName, draft: PortDraft, lost: Collection[HashKey]) -> None:
        """Make a draft what the maps hold. What was not written is not there; what was not deleted still is."""
        for number, flags in draft.backend_flags:
            self._pools.backends.set_flags(number, flags)
        for number in draft.retired.backends:
            self._pools.backends.retire(number)
        new = draft.new
        if lost:
            self._undo(draft, lost)
        for key in (draft.old.origins if draft.old else {}).keys() - new.origins.keys():
            if self._holders.get(key) == new.key:
                del self._holders[key]
        self._count(draft.old, -1)
        self._count(new, 1)
        if draft.is_removal and not (new.named or new.origins or new.source_ranges):
            self._ports.pop(new.key, None)
            keys = self._keys.get(name, set())
            keys.discard(new.key)
            if not keys:
                self._keys.pop(name, None)
            self._open.services.append(new.service)
            return
        self._ports[new.key] = new
        self._keys.setdefault(name, set()).add(new.key)

    def _count(self, port: PortEntries | None, sign: int) -> None:
        if port is not None:
            self._entries[HashMap.FRONTENDS] += sign * len(port.origins)
            self._entries[HashMap.SOURCE_RANGES] += sign * len(port.source_ranges)
            self._entries[HashMap.SERVICE_NAMES] += sign * port.named

    def _undo(self, draft: PortDraft, lost: Collection[HashKey]) -> None:
        new, old = draft.new, draft.old
        before = old.origins if old else {}
        for key in {*new.origins, *before}:
            if (HashMap.FRONTENDS, schema.pack_frontend_key(key)) not in lost:
                continue
            if key in before and key not in new.origins:
                new.origins[key] = before[key]
                draft.retired.origins.remove(before[key][0])
            elif key in new.origins and key not in before:
                draft.retired.origins.append(new.origins.pop(key)[0])
        ranges = new.source_ranges | (old.source_ranges if old else frozenset())
        new.source_ranges = frozenset(
            prefix
            for prefix in ranges
            if (prefix in new.source_ranges)
            != ((HashMap.SOURCE_RANGES, schema.pack_source_range(new.service, prefix)) in lost)
        )
        if (HashMap.SERVICE_NAMES, schema.pack_u32(new.service)) in lost:
            new.named = not new.named

    # Restart

    def adopt(self, found: Found) -> None:
        """Start with what the maps were found to hold. Only before the first batch."""
        self._pools.services.restore(port.service for port in found.ports)
        self._pools.origins.restore(origin for port in found.ports for origin, _ in port.origins.values())
        self._pools.slots.restore(
            placed.place for port in found.ports for placed in (port.cluster, port.local) if placed.place.length
        )
        used = [number for port in found.ports for number in port.backends.values()]
        self._pools.backends.restore(found.backends, used)
        self._addresses.restore(found.addresses)
        self._garbage = list(found.garbage)
        for port in found.ports:
            self._ports[port.key] = port
            self._holders.update(dict.fromkeys(port.origins, port.key))
            self._keys.setdefault(port.key.service, set()).add(port.key)
            self._count(port, 1)

    def prune(self, known: Collection[ObjectName]) -> Batch:
        """Return what to write so that nothing is left of Services that are not known, and of no one."""
        batch = self.prepare({name: None for name in self._keys.keys() | self._kinds.keys() if name not in known})
        leftovers = self._addresses.leftovers()
        batch.touched.update(leftovers)
        garbage = [change for change in self._garbage if not self._is_claimed(change)]
        batch.changes = _in_order([*batch.changes, *garbage, *self._addresses.changes(leftovers)])
        self._garbage = []
        return batch

    def _is_claimed(self, garbage: Change) -> bool:
        """Whether a key that was garbage has been overwritten by a Service since."""
        if not isinstance(garbage, DeleteEntry):
            return False
        if garbage.map is HashMap.SERVICE_NAMES:
            return any(schema.pack_u32(port.service) == garbage.key for port in self._ports.values())
        key = schema.unpack_frontend_key(garbage.key) if garbage.map is HashMap.FRONTENDS else None
        return any(key in port.origins for port in self._ports.values())

    # Grace periods

    def close_epoch(self) -> bool:
        """Close the epoch: what was retired in it is free after a grace period from now on. False: nothing was."""
        if self._closing is not None or not self._open:
            return False
        self._closing, self._open = self._open, Retired()
        return True

    def grace_passed(self) -> None:
        """Take back what was retired in the epoch that was closed."""
        if self._closing is not None:
            self._closing.give_back(self._pools)
            self._closing = None

    # Defragmentation

    def defragment(self) -> Batch:
        """Return moves that make room for the sets that lately found none, if moving helps."""
        wanted, self._long_ranges = self._long_ranges, []
        count = max(wanted, default=0)
        if not count or count > self._pools.slots.free or self._open.ranges or self._closing is not None:
            return Batch()
        holders = {
            placed.place: (key, is_local, placed)
            for key, port in self._ports.items()
            for is_local, placed in ((False, port.cluster), (True, port.local))
            if placed.place.length
        }
        batch = Batch()
        changes: list[Change] = []
        moves = []
        for old, new in self._pools.slots.moves_for(count, holders):
            key, is_local, placed = holders[old]
            moves.append((key, is_local, PlacedSet(new, placed.backends)))
            changes += _move(self._ports[key].service, new, placed.backends, is_local=is_local)
            batch.vacated.append(old)
        batch.moves = tuple(moves)
        batch.changes = _in_order(changes)
        return batch


def _move(service: int, place: Set, backends: tuple[int, ...], *, is_local: bool) -> list[Change]:
    offset = schema.SERVICE_LOCAL_SET_OFFSET if is_local else schema.SERVICE_CLUSTER_SET_OFFSET
    return [
        WriteEntries(Phase.WRITE, ArrayMap.SLOTS, place.base, schema.pack_slots(backends)),
        PublishWord(Phase.PUBLISH, ArrayMap.SERVICES, service, offset, place.word),
    ]


def _kinds_of(plan: ServicePlan | None) -> tuple[tuple[Address, int], ...]:
    if plan is None:
        return ()
    kinds = dict.fromkeys(
        (frontend.key.address, address_kind(frontend)) for port in plan.ports for frontend in port.frontends
    )
    kinds.update(dict.fromkeys((address, schema.ADDRESS_EXCLUDED) for address in plan.excluded_addresses))
    return tuple(kinds)


def _in_order(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Sort changes by phase, those of one map together; a key that is inserted is not deleted as well."""
    changes = list(changes)
    inserted = {(change.map, change.key) for change in changes if isinstance(change, InsertEntry)}
    kept = (
        change for change in changes if not (isinstance(change, DeleteEntry) and (change.map, change.key) in inserted)
    )
    return tuple(sorted(kept, key=lambda change: (change.phase, change.map.value)))
