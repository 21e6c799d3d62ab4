# SPDX-License-Identifier: Apache-2.0
"""The difference between what the maps hold for one service port and what its plan says, as changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kubeproxy_ebpf import map_schema as schema
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
from kubeproxy_ebpf.layout.entries import EndpointKey, PlacedSet, PortEntries, backend_flags, service_flags
from kubeproxy_ebpf.layout.ids import IdPool
from kubeproxy_ebpf.layout.ranges import RangePool
from kubeproxy_ebpf.map_schema import BackendEntry, OriginEntry, ServiceEntry, Set
from kubeproxy_ebpf.model.address import Prefix
from kubeproxy_ebpf.plan.service_plan import FrontendKey, FrontendKind, PlannedEndpoint, ServicePortKey, ServicePortPlan

ONE = schema.pack_u32(1)


@dataclass(slots=True)
class Pools:
    """Everything that is handed out."""

    services: IdPool
    origins: IdPool
    slots: RangePool
    backends: BackendTable


@dataclass(slots=True)
class Retired:
    """What is out of use, and may be handed out again after a grace period."""

    services: list[int] = field(default_factory=list)
    origins: list[int] = field(default_factory=list)
    backends: list[int] = field(default_factory=list)
    ranges: list[Set] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.services or self.origins or self.backends or self.ranges)

    def add(self, other: Retired) -> None:
        """Take over what another one holds."""
        self.services += other.services
        self.origins += other.origins
        self.backends += other.backends
        self.ranges += other.ranges

    def give_back(self, pools: Pools) -> None:
        """Hand everything back: no reader can meet it any more."""
        pools.services.give_back(self.services)
        pools.origins.give_back(self.origins)
        pools.backends.ids.give_back(self.backends)
        pools.slots.give_back(self.ranges)


class PortDraft:
    """What becomes of one service port. Making it hands out ids and changes nothing else."""

    def __init__(
        self,
        pools: Pools,
        old: PortEntries | None,
        plan: ServicePortPlan | None,
        holders: Mapping[FrontendKey, ServicePortKey],
    ) -> None:
        """Work out the changes. ``holders`` says whose origin each frontend leads to.

        Raises:
            MapFullError: something is used up; nothing is left handed out.
        """
        self.changes: list[Change] = []
        self.retired = Retired()
        self.backend_flags: list[tuple[int, int]] = []
        """Flags that entries of ``backends`` get."""
        self.old = old
        self.is_removal = plan is None
        self._pools = pools
        self._holders = holders
        self._taken = Retired()
        try:
            self.new = self._remove(old) if plan is None and old is not None else self._update(old, plan)
        except BaseException:
            self._taken.give_back(pools)
            raise

    def cancel(self) -> None:
        """Hand back what was taken, as the changes are not going to be applied."""
        self._taken.give_back(self._pools)

    def _update(self, old: PortEntries | None, plan: ServicePortPlan | None) -> PortEntries:
        assert plan is not None  # noqa: S101 - a draft without either is nobody's
        is_new = old is None
        if old is None:
            service = self._take(self._pools.services.take, self._taken.services)
            old = PortEntries(plan.key, service)
        new = PortEntries(plan.key, old.service, named=True)
        self._place_backends(old, new, backend_flags(plan))
        new.cluster = self._place_set(old.cluster, new, plan.cluster_set)
        new.local = self._place_set(old.local, new, plan.local_set)
        new.affinity_seconds, new.flags = plan.affinity_seconds, service_flags(plan)
        if not old.named:
            self._insert(Phase.GUARD, HashMap.SERVICE_NAMES, schema.pack_u32(new.service), schema.pack_name(plan.key))
        self._publish_service(old, new, is_new=is_new)
        self._guard(old, new, frozenset(plan.source_ranges or ()))
        self._expose(old, new, {frontend.key: frontend.kind for frontend in plan.frontends})
        return new

    def _remove(self, old: PortEntries) -> PortEntries:
        new = PortEntries(old.key, old.service)
        self._expose(old, new, {})
        self._guard(old, new, frozenset())
        self._delete(Phase.UNGUARD, HashMap.SERVICE_NAMES, schema.pack_u32(old.service))
        for (_, port), number in old.backends.items():
            self._retire_backend(number, port)
        self.retired.ranges += [one.place for one in (old.cluster, old.local) if one.place.length]
        return new

    def _place_backends(self, old: PortEntries, new: PortEntries, wanted: dict[EndpointKey, int]) -> None:
        table = self._pools.backends
        for endpoint, flags in wanted.items():
            number = old.backends.get(endpoint)
            address, port = endpoint
            if number is None:
                number = self._take(table.take, self._taken.backends)
                entry = BackendEntry(address, port, new.service, 0, table.generation(number), flags)
                self.changes.append(WriteEntries(Phase.WRITE, ArrayMap.BACKENDS, number, schema.pack_backend(entry)))
                self.backend_flags.append((number, flags))
            elif table.flags(number) != flags:
                self._publish_backend(Phase.PUBLISH, number, table.generation(number), flags, port)
                self.backend_flags.append((number, flags))
            new.backends[endpoint] = number
        if len(old.backends) + len(self._taken.backends) != len(wanted):
            for endpoint, number in old.backends.items():
                if endpoint not in wanted:
                    self._retire_backend(number, endpoint[1])

    def _retire_backend(self, number: int, port: int) -> None:
        generation = (self._pools.backends.generation(number) + 1) & 0xFFFFFFFF
        self._publish_backend(Phase.RETIRE, number, generation, 0, port)
        self.retired.backends.append(number)

    def _publish_backend(self, phase: Phase, number: int, generation: int, flags: int, port: int) -> None:
        word = schema.backend_state_word(generation, flags, port)
        self.changes.append(PublishWord(phase, ArrayMap.BACKENDS, number, schema.BACKEND_STATE_OFFSET, word))

    def _place_set(self, old: PlacedSet, new: PortEntries, endpoints: tuple[PlannedEndpoint, ...]) -> PlacedSet:
        backends = tuple([new.backends[address, port] for address, port, _, _ in endpoints])
        if backends == old.backends or sorted(backends) == sorted(old.backends):
            return old
        if old.place.length:
            self.retired.ranges.append(old.place)
        if not backends:
            return PlacedSet()
        place = self._pools.slots.take(len(backends))
        self._taken.ranges.append(place)
        self.changes.append(WriteEntries(Phase.WRITE, ArrayMap.SLOTS, place.base, schema.pack_slots(backends)))
        return PlacedSet(place, backends)

    def _publish_service(self, old: PortEntries, new: PortEntries, *, is_new: bool) -> None:
        if is_new:
            entry = ServiceEntry(new.cluster.place, new.local.place, new.affinity_seconds, new.flags)
            data = schema.pack_service(entry)
            self.changes.append(WriteEntries(Phase.WRITE, ArrayMap.SERVICES, new.service, data))
            return
        for offset, before, after in (
            (schema.SERVICE_CLUSTER_SET_OFFSET, old.cluster.place, new.cluster.place),
            (schema.SERVICE_LOCAL_SET_OFFSET, old.local.place, new.local.place),
        ):
            if before != after:
                self.changes.append(PublishWord(Phase.PUBLISH, ArrayMap.SERVICES, new.service, offset, after.word))
        if (old.affinity_seconds, old.flags) != (new.affinity_seconds, new.flags):
            word = schema.service_rules_word(new.affinity_seconds, new.flags)
            offset = schema.SERVICE_RULES_OFFSET
            self.changes.append(PublishWord(Phase.PUBLISH, ArrayMap.SERVICES, new.service, offset, word))

    def _guard(self, old: PortEntries, new: PortEntries, wanted: frozenset[Prefix]) -> None:
        for prefix in wanted - old.source_ranges:
            key = schema.pack_source_range(new.service, prefix)
            self._insert(Phase.GUARD, HashMap.SOURCE_RANGES, key, ONE)
        for prefix in old.source_ranges - wanted:
            self._delete(Phase.UNGUARD, HashMap.SOURCE_RANGES, schema.pack_source_range(new.service, prefix))
        new.source_ranges = wanted

    def _expose(self, old: PortEntries, new: PortEntries, wanted: dict[FrontendKey, FrontendKind]) -> None:
        for key, kind in wanted.items():
            known = old.origins.get(key)
            if known is None:
                origin = self._take(self._pools.origins.take, self._taken.origins)
                packed = schema.pack_frontend_key(key)
                data = schema.pack_origin(OriginEntry(packed, new.service, kind))
                self.changes.append(WriteEntries(Phase.WRITE, ArrayMap.ORIGINS, origin, data))
                self._insert(Phase.EXPOSE, HashMap.FRONTENDS, packed, schema.pack_u32(origin))
            else:
                origin, before = known
                if kind != before:
                    word = schema.origin_owner_word(new.service, kind)
                    offset = schema.ORIGIN_OWNER_OFFSET
                    self.changes.append(PublishWord(Phase.PUBLISH, ArrayMap.ORIGINS, origin, offset, word))
            new.origins[key] = origin, kind
        for key, (origin, _) in old.origins.items():
            if key in wanted:
                continue
            # Where it leads to another one's origin by now, the key is that one's.
            if self._holders.get(key) == old.key:
                self._delete(Phase.WITHDRAW, HashMap.FRONTENDS, schema.pack_frontend_key(key))
            self.retired.origins.append(origin)

    def _insert(self, phase: Phase, name: HashMap, key: bytes, value: bytes) -> None:
        self.changes.append(InsertEntry(phase, name, key, value))

    def _delete(self, phase: Phase, name: HashMap, key: bytes) -> None:
        self.changes.append(DeleteEntry(phase, name, key))

    @staticmethod
    def _take(take: Callable[[], int], taken: list[int]) -> int:
        number = take()
        taken.append(number)
        return number
