# SPDX-License-Identifier: Apache-2.0
"""Endless change through the real layout and map store, in maps so small that every id is needed again at once.

Frontend n is ``10.96.0.n:80`` and has endpoints ``10.1.n.x:8000+n`` alone, whatever Service it belongs to: so a reader
(``objects/delayed_reader.bpf.c``) can tell whether it met something of another one. The first frontends are there
all the time and get new endpoints at every step; of the others half go in one step and the rest come in the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.layout.layout import Batch, Layout
from kubeproxy_ebpf.map_schema import ENTRY_SIZES
from kubeproxy_ebpf.model.address import Family, parse_address
from kubeproxy_ebpf.model.objects import ObjectName, Protocol
from kubeproxy_ebpf.plan.service_plan import (
    Frontend,
    FrontendKey,
    FrontendKind,
    PlannedEndpoint,
    ServicePlan,
    ServicePortKey,
    ServicePortPlan,
)
from kubeproxy_ebpf.writer import apply_changes

FRONTENDS, KEPT, COMING, ENDPOINTS = 12, 4, 2, 2
_LIVE = KEPT + 2 * COMING
_ENTRY, _ADDRESS = ENTRY_SIZES[ArrayMap.BACKENDS], 16
_PLACES = (_LIVE + KEPT) * ENDPOINTS
SIZES: dict[ArrayMap | HashMap, int] = {
    ArrayMap.SERVICES: 1 + _LIVE,
    ArrayMap.ORIGINS: 1 + _LIVE,
    ArrayMap.BACKENDS: 1 + _PLACES,
    ArrayMap.SLOTS: 1 + _PLACES,
    ArrayMap.SETTINGS: 1,
    HashMap.ADDRESSES: 64,
    HashMap.FRONTENDS: 64,
    HashMap.SOURCE_RANGES: 64,
    HashMap.SERVICE_NAMES: 64,
}
"""No id is spare: what one step gives back, the next one takes."""


def plan_of(name: ObjectName, number: int, version: int) -> ServicePlan:
    """Return a Service with a frontend and this version of its endpoints."""
    hosts = (1 + (version * ENDPOINTS + index) % 250 for index in range(ENDPOINTS))
    endpoints = (
        PlannedEndpoint(parse_address(f"10.1.{number}.{host}"), 8000 + number, local=False, node_name="n")
        for host in hosts
    )
    key = FrontendKey(parse_address(f"10.96.0.{number}"), 80, Protocol.TCP)
    port = ServicePortPlan(
        key=ServicePortKey(name, "", Protocol.TCP, Family.IPV4),
        frontends=(Frontend(key, FrontendKind.CLUSTER_IP),),
        cluster_set=tuple(sorted(endpoints)),
        local_set=(),
        lingering=(),
        has_endpoints=True,
        internal_local=False,
        external_local=False,
        affinity_seconds=0,
        source_ranges=None,
        cluster_ip_rules={},
        external_rules={},
    )
    return ServicePlan(service=name, ports=(port,))


class Churn:
    """A cluster of which nothing stays as it was. ``reused`` counts, by map, the ids that came to somebody else."""

    def __init__(self, store: KernelMapStore, wait: Callable[[], None]) -> None:
        """Fill the maps. ``wait`` is what happens between taking something out of use and handing it out again."""
        self.reused: Counter[ArrayMap] = Counter()
        self._store = store
        self._wait = wait
        self._layout = Layout({name: store.capacity(name) for name in SIZES})
        self._owners: dict[tuple[ArrayMap, int], object] = {}
        self._version = 0
        self._there = [(ObjectName("churn", f"kept-{number}"), number) for number in range(1, KEPT + 1)]
        self._passing: list[tuple[ObjectName, int]] = []
        self._away = list(range(KEPT + 1, FRONTENDS + 1))
        while len(self._passing) < 2 * COMING:
            self._come()

    def step(self) -> None:
        """Let Services go, and others come; each time all that stay get other endpoints."""
        leaving, self._passing = self._passing[:COMING], self._passing[COMING:]
        self._away += [number for _, number in leaving]
        self._write({name: None for name, _ in leaving})
        self._come()

    def _come(self) -> None:
        coming, self._away = self._away[:COMING], self._away[COMING:]
        named = [(ObjectName("churn", f"passing-{self._version}-{number}"), number) for number in coming]
        self._passing += named
        self._write({name: plan_of(name, number, self._version) for name, number in named})

    def _write(self, plans: Mapping[ObjectName, ServicePlan | None]) -> None:
        self._version += 1
        kept = {name: plan_of(name, number, self._version) for name, number in self._there}
        batch = self._layout.prepare({**plans, **kept})
        assert batch.errors == ()
        self._apply(batch)
        self._count_reuse()
        assert self._layout.close_epoch() or self._version == 1
        self._wait()
        self._apply(self._layout.grace_passed())

    def _apply(self, batch: Batch) -> None:
        assert apply_changes(self._store, batch.changes) == []
        assert self._layout.commit(batch) == set()

    def _count_reuse(self) -> None:
        contents = self._layout.contents
        for port in contents.ports.values():
            self._note(ArrayMap.SERVICES, port.service, port.key)
            for frontend in port.frontends:
                self._note(ArrayMap.ORIGINS, contents.owners[frontend].origin, (port.key, frontend))
            for position, backend in enumerate(port.backends):
                self._note(ArrayMap.BACKENDS, backend, (port.key, port.entries[position * _ENTRY :][:_ADDRESS]))

    def _note(self, name: ArrayMap, number: int, owner: object) -> None:
        if self._owners.setdefault((name, number), owner) != owner:
            self.reused[name] += 1
            self._owners[name, number] = owner
