# SPDX-License-Identifier: Apache-2.0
"""Plans to the writes that make the maps say so, and the memory of what the maps say already.

Whoever applies a batch commits it before the next one is made. A batch that was given up half-way cannot be
committed: then the maps are read again, as after a crash.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.addresses import Kind, bits
from kubeproxy_ebpf.layout.changes import ArrayMap, Change, DeleteEntry, HashMap, InsertEntry, Phase
from kubeproxy_ebpf.layout.compare import ADDRESS_KINDS
from kubeproxy_ebpf.layout.contents import WANTED, Capacities, Contents, HashKey
from kubeproxy_ebpf.layout.defragment import Slide, slides
from kubeproxy_ebpf.layout.draft import Draft
from kubeproxy_ebpf.layout.entries import remove_port
from kubeproxy_ebpf.layout.epochs import Retired
from kubeproxy_ebpf.layout.errors import LayoutError
from kubeproxy_ebpf.layout.found import Found
from kubeproxy_ebpf.layout.ids import IdPool
from kubeproxy_ebpf.layout.keys import write_again, write_kinds
from kubeproxy_ebpf.layout.ranges import RangePool
from kubeproxy_ebpf.layout.states import PortState
from kubeproxy_ebpf.layout.update import ServiceUpdate
from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.model.objects import ObjectName
from kubeproxy_ebpf.plan.service_plan import FrontendKind, ServicePlan, ServicePortKey


@dataclass(slots=True)
class Batch:
    """Changes to be applied in this order."""

    changes: tuple[Change, ...] = ()
    errors: tuple[LayoutError, ...] = ()
    """Services that cannot be laid out; they keep what they had."""
    services: frozenset[ObjectName] = frozenset()
    """Those that the changes are for."""
    draft: Draft = field(default_factory=Draft)
    passed: Retired | None = None
    """What is free once this batch is applied."""
    moves: tuple[Slide, ...] = ()
    """Sets that only change their place."""


class Layout:
    """What the maps hold. Not safe for threads."""

    def __init__(self, capacities: Capacities) -> None:
        """Start with empty maps."""
        self._contents = Contents(capacities)
        self.revision = 0
        """Counts what may have changed the contents: with the same number they are the same."""
        self._restored_kinds: list[Kind] = []
        self._stray_origins: list[int] = []

    @property
    def contents(self) -> Contents:
        """What the maps hold, for whoever compares; not to be changed."""
        return self._contents

    def fill(self) -> dict[str, tuple[int, int]]:
        """Return how many entries of each map are in use, and how many there are."""
        return self._contents.fill()

    def service_port(self, service: int) -> ServicePortKey | None:
        """Return whose a service id is."""
        port = self._contents.ports.get(service)
        return port.key if port else None

    # Batches

    def prepare(self, plans: Mapping[ObjectName, ServicePlan | None]) -> Batch:
        """Return what to write so that the maps say what these plans say; None: the Service is gone."""
        draft = Draft()
        errors: list[LayoutError] = []
        for service, plan in plans.items():
            try:
                ServiceUpdate(self._contents, service, plan).write(draft)
            except LayoutError as error:
                errors.append(error)
        refused = {error.service for error in errors}
        return Batch(draft.changes(), tuple(errors), frozenset(plans) - refused, draft)

    def commit(self, batch: Batch, failed: Collection[Change] = ()) -> set[ObjectName]:
        """Note that a batch was applied, but for the keys that failed; return the Services to be tried again.

        Trying again is preparing the Service again: then what failed is written as it should be by then.
        """
        self.revision += 1
        lost = {(change.map, change.key) for change in failed if isinstance(change, InsertEntry | DeleteEntry)}
        again: set[ObjectName] = set()
        for name, entries in batch.draft.keyed.items():
            for key, (change, service) in entries.items():
                if (name, key) in lost:
                    self._contents.unwritten.setdefault(service, set()).add((name, key))
                    again.update(() if service is None else (service,))
                elif type(change) is DeleteEntry:
                    self._note_deletion(name, key)
        self._contents.epochs.open.add(batch.draft.retired)
        if batch.passed is not None:
            self._take_back(batch.passed, lost)
        return again

    def _note_deletion(self, name: HashMap, key: bytes) -> None:
        contents = self._contents
        if name is HashMap.SOURCE_RANGES:
            contents.source_ranges.pop(key, None)
        elif contents.value(name, key) is None:
            contents.present[name].discard(key)

    # Restart

    def adopt(self, found: Found) -> None:
        """Start with what the maps were found to hold. Only before the first batch."""
        contents, first = self._contents, found.first_unused
        sizes = contents.capacities
        contents.services = IdPool(sizes[ArrayMap.SERVICES], first[ArrayMap.SERVICES.value])
        contents.origins = IdPool(sizes[ArrayMap.ORIGINS], first[ArrayMap.ORIGINS.value])
        contents.backends = IdPool(sizes[ArrayMap.BACKENDS], first[ArrayMap.BACKENDS.value])
        contents.slots = RangePool(sizes[ArrayMap.SLOTS], first[ArrayMap.SLOTS.value])
        contents.generations = schema.backend_generations(found.backend_data)
        contents.epochs.open.add(found.free)
        contents.owners = dict(found.owners)
        for state in found.states:
            self._adopt_port(state)
        contents.present[HashMap.FRONTENDS].update(found.owners)
        contents.present[HashMap.ADDRESSES].update(found.addresses)
        for name, key in found.stray_keys:
            if name in contents.present:
                contents.present[name].add(key)
        unwritten = {(HashMap.ADDRESSES, address) for address in self._adopt_kinds(found)}
        contents.unwritten[None] = unwritten.union(found.stray_keys)
        self._stray_origins = list(found.stray_origins)

    def _adopt_port(self, state: PortState) -> None:
        contents = self._contents
        contents.ports[state.service] = state
        contents.present[HashMap.SERVICE_NAMES].add(schema.pack_u32(state.service))
        contents.source_ranges.update(dict.fromkeys(state.source_ranges, WANTED))
        if state.key is not None:
            service = state.key.service
            contents.service_ports[service] = (*contents.service_ports.get(service, ()), state.service)

    def _adopt_kinds(self, found: Found) -> set[bytes]:
        """Take over who wants which kind of address; return the addresses whose entries say something else.

        What is in the map stays wanted until all Services that may want it had their say.
        """
        contents = self._contents
        for service, ids in contents.service_ports.items():
            frontends = (key for port in ids for key in contents.ports[port].frontends)
            kinds = {(Address(key[:16]), ADDRESS_KINDS[FrontendKind(contents.owners[key].kind)]) for key in frontends}
            contents.kinds[service] = tuple(sorted(kinds))
            for kind in kinds:
                contents.addresses.acquire(kind)
        for address, found_kinds in found.addresses.items():
            for kind_bit in bits(found_kinds):
                contents.addresses.acquire((address, kind_bit))
                self._restored_kinds.append((address, kind_bit))
        kinds_of = contents.addresses.kinds
        return {address for address in contents.addresses if kinds_of(address) != found.addresses.get(address)}

    def prune(self, known: Collection[ObjectName]) -> Batch:
        """Return what to write so that nothing is left of Services that are not known, and of no one."""
        contents, draft = self._contents, Draft()
        for service in list(dict.fromkeys((*contents.service_ports, *contents.kinds))):
            if service not in known:
                ServiceUpdate(contents, service, None).write(draft)
        draft.service = None
        for port in [port for port in contents.ports.values() if port.key is None]:
            remove_port(contents, draft, port)
        for origin in self._stray_origins:
            draft.publish(Phase.RETIRE, ArrayMap.ORIGINS, origin, schema.ORIGIN_OWNER_OFFSET, 0)
        draft.retired.origins += self._stray_origins
        write_kinds(contents, draft, self._restored_kinds, ())
        self._stray_origins, self._restored_kinds = [], []
        write_again(contents, draft, contents.unwritten.pop(None, ()))
        return Batch(draft.changes(), draft=draft)

    # Grace periods

    def close_epoch(self) -> bool:
        """Close the epoch: what was retired in it is free after a grace period from now on. False: nothing was."""
        return self._contents.epochs.close()

    def grace_passed(self) -> Batch:
        """Return what to write once nobody reads any more what was retired in the closed epoch."""
        contents, draft = self._contents, Draft()
        passed = contents.epochs.take_closed()
        for backend in passed.backends:
            word = schema.backend_state_word(contents.move_on(backend), 0, 0)
            draft.publish(Phase.RELEASE, ArrayMap.BACKENDS, backend, schema.BACKEND_STATE_OFFSET, word)
        for service in passed.services:
            draft.delete(Phase.UNGUARD, HashMap.SERVICE_NAMES, schema.pack_u32(service))
        for key in passed.source_ranges:
            if contents.source_ranges.get(key) == contents.epochs.number - 1:
                draft.delete(Phase.UNGUARD, HashMap.SOURCE_RANGES, key)
        write_again(contents, draft, contents.unwritten.pop(None, ()))
        return Batch(draft.changes(), draft=draft, passed=passed)

    def _take_back(self, passed: Retired, lost: Collection[HashKey]) -> None:
        """Hand back what nobody can meet any more; a service id only once its name and source ranges are gone."""
        contents, again = self._contents, self._contents.epochs.open
        for key in passed.source_ranges:
            if (HashMap.SOURCE_RANGES, key) in lost:
                contents.source_ranges[key] = contents.epochs.number
                again.source_ranges.append(key)
        held = {schema.unpack_source_range(key)[0] for name, key in lost if name is HashMap.SOURCE_RANGES}
        held.update(schema.unpack_u32(key) for name, key in lost if name is HashMap.SERVICE_NAMES)
        again.services += [service for service in passed.services if service in held]
        contents.services.give_back(service for service in passed.services if service not in held)
        contents.services.give_back(passed.free_services)
        contents.backends.give_back(passed.backends)
        contents.backends.give_back(passed.free_backends)
        contents.origins.give_back(passed.origins)
        contents.slots.give_back(passed.ranges)

    # Defragmentation

    def defragment(self) -> Batch:
        """Return the next step towards room for the set that lately found none; no changes: there is none to do."""
        contents, draft = self._contents, Draft()
        length = contents.wanted_range
        if not length or contents.epochs.waiting(ArrayMap.SLOTS):
            return Batch()
        if not contents.slots.longest < length <= contents.slots.available:
            contents.wanted_range = 0
            return Batch()
        places = {
            placed.place.base: (service, is_local, placed)
            for service, port in contents.ports.items()
            for is_local, placed in ((False, port.cluster), (True, port.local))
            if placed.backends
        }
        moves = slides(contents.slots.holes, {base: placed for base, (_, _, placed) in places.items()}, length)
        for move in moves:
            service, is_local, _ = places[move.old.place.base]
            port = contents.ports[service]
            offset = schema.SERVICE_LOCAL_SET_OFFSET if is_local else schema.SERVICE_CLUSTER_SET_OFFSET
            contents.slots.take_at(move.hole.base, len(move.written))
            draft.write(ArrayMap.SLOTS, move.hole.base, len(move.written), schema.pack_slots(move.written))
            draft.publish(Phase.PUBLISH, ArrayMap.SERVICES, service, offset, move.new.place.word)
            draft.retired.ranges += move.freed
            contents.ports[service] = port._replace(local=move.new) if is_local else port._replace(cluster=move.new)
        return Batch(draft.changes(), draft=draft, moves=tuple(moves))
