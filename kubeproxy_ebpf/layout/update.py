# SPDX-License-Identifier: Apache-2.0
"""One Service's plan into a draft, wholly or not at all."""

from __future__ import annotations

from typing import TypeVar

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.layout.compare import PortDiff, compare, kinds_of
from kubeproxy_ebpf.layout.contents import Contents
from kubeproxy_ebpf.layout.draft import Draft
from kubeproxy_ebpf.layout.entries import let_go, remove_port, write_port
from kubeproxy_ebpf.layout.errors import CapacityError, UnnamableServiceError
from kubeproxy_ebpf.layout.ids import IdPool
from kubeproxy_ebpf.layout.keys import write_again, write_kinds
from kubeproxy_ebpf.map_schema import NameTooLongError, Set
from kubeproxy_ebpf.model.objects import ObjectName
from kubeproxy_ebpf.plan.service_plan import ServicePlan

_Value = TypeVar("_Value")


class ServiceUpdate:
    """Knows what one Service takes before anything is taken."""

    def __init__(self, contents: Contents, service: ObjectName, plan: ServicePlan | None) -> None:
        """Compare a plan, None if the Service is gone, with what the maps hold.

        Raises:
            UnnamableServiceError: a name does not fit.
        """
        self._contents = contents
        self._service = service
        known = {port.key: port for port in map(contents.ports.__getitem__, contents.service_ports.get(service, ()))}
        plans = plan.ports if plan else ()
        try:
            self._diffs: list[PortDiff] = [compare(known.pop(port.key, None), port) for port in plans]
        except NameTooLongError as error:
            raise UnnamableServiceError(service, HashMap.SERVICE_NAMES.value, str(error)) from error
        self._gone = tuple(known.values())
        self._kinds = kinds_of(plan) if plan else ()

    def write(self, draft: Draft) -> None:
        """Write the Service into a draft.

        Raises:
            CapacityError: it does not fit; nothing is taken, nothing is written.
        """
        contents, service = self._contents, self._service
        self._require_room()
        ranges = iter(self._take_ranges())
        draft.service = service
        ports = [(diff, write_port(contents, draft, diff, ranges)) for diff in self._diffs]
        for diff, port in ports:
            if diff.old is not None and diff.old is not port:
                let_go(contents, draft, diff.old, port)
        for old in self._gone:
            remove_port(contents, draft, old)
        write_kinds(contents, draft, contents.kinds.get(service, ()), self._kinds)
        write_again(contents, draft, contents.unwritten.pop(service, ()))
        _remember(contents.service_ports, service, tuple(port.service for _, port in ports))
        _remember(contents.kinds, service, self._kinds)

    def _require_room(self) -> None:
        contents, diffs = self._contents, self._diffs
        ports = backends = source_ranges = 0
        frontends: set[bytes] = set()
        for diff in diffs:
            ports += diff.old is None
            backends += diff.new_backends
            source_ranges += self._new_source_ranges(diff)
            frontends.update([key for key in diff.frontends if key not in contents.owners])
        self._require_ids(ArrayMap.SERVICES, contents.services, ports)
        self._require_ids(ArrayMap.BACKENDS, contents.backends, backends)
        self._require_ids(ArrayMap.ORIGINS, contents.origins, len(frontends))
        self._require_keys(HashMap.SERVICE_NAMES, ports)
        self._require_keys(HashMap.FRONTENDS, contents.new_keys(HashMap.FRONTENDS, frontends))
        addresses = {address for address, _ in self._kinds}
        self._require_keys(HashMap.ADDRESSES, contents.new_keys(HashMap.ADDRESSES, addresses))
        self._require_keys(HashMap.SOURCE_RANGES, source_ranges)

    def _require_ids(self, name: ArrayMap, pool: IdPool, count: int) -> None:
        if count and count > pool.available:
            raise self._too_small(name, count - pool.available)

    def _require_keys(self, name: HashMap, count: int) -> None:
        if not count:
            return
        lacking = self._contents.used(name) + count - self._contents.capacities[name]
        if lacking > 0:
            raise self._too_small(name, lacking)

    def _new_source_ranges(self, diff: PortDiff) -> int:
        if not diff.plan.source_ranges:
            return 0
        prefixes = set(diff.plan.source_ranges)
        if diff.old is None:
            return len(prefixes)
        keys = [schema.pack_source_range(diff.old.service, prefix) for prefix in prefixes]
        return self._contents.new_keys(HashMap.SOURCE_RANGES, keys)

    def _take_ranges(self) -> list[Set]:
        """Take the slots of every set that must be written, or none."""
        contents = self._contents
        lengths = [length for diff in self._diffs for length in diff.new_ranges]
        taken: list[Set] = []
        for length in lengths:
            place = contents.slots.take(length)
            if place is None:
                contents.slots.give_back(taken)
                if sum(lengths) <= contents.slots.available + contents.epochs.waiting(ArrayMap.SLOTS):
                    contents.wanted_range = max(contents.wanted_range, length)
                raise self._too_small(ArrayMap.SLOTS, sum(lengths) - contents.slots.available)
            taken.append(place)
        return taken

    def _too_small(self, name: ArrayMap | HashMap, lacking: int) -> CapacityError:
        waiting = self._contents.epochs.waiting(name)
        return CapacityError(self._service, name.value, self._contents.capacities[name], transient=lacking <= waiting)


def _remember(memory: dict[ObjectName, tuple[_Value, ...]], service: ObjectName, value: tuple[_Value, ...]) -> None:
    """Keep a Service's tuple, if there is anything in it."""
    if value:
        memory[service] = value
    else:
        memory.pop(service, None)
