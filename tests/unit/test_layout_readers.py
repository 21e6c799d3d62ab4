# SPDX-License-Identifier: Apache-2.0
"""Readers that are held up between any two steps, while batches are written and grace periods pass."""

from __future__ import annotations

import random
from collections.abc import Collection, Generator, Iterable, Sequence
from typing import NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from kubeproxy_ebpf.layout.changes import ArrayMap, Change
from kubeproxy_ebpf.layout.layout import Batch
from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.plan.service_plan import FrontendKey, FrontendKind, ServicePortKey, ServicePortPlan
from kubeproxy_ebpf.testing import SMALL, Answer, FakeMapStore, Outcome, Reader
from kubeproxy_ebpf.writer import apply_changes
from tests.layout_world import (
    FRONTENDS,
    SOURCES,
    Node,
    World,
    check_settled,
    endpoint_keys,
    is_allowed,
    owner_of,
    ports_of,
    small_writes,
    world_of,
    worlds,
)

TIGHT = {**SMALL, ArrayMap.SERVICES: 12, ArrayMap.SLOTS: 100, ArrayMap.BACKENDS: 64, ArrayMap.ORIGINS: 24}
"""Room for two worlds: what a batch retires is handed out again soon."""
_MOST_READERS = 6


class Memory(NamedTuple):
    """What a UDP socket keeps of an answer."""

    key: FrontendKey
    origin: int
    port: ServicePortKey
    endpoint: bytes
    backend: int
    generation: int
    from_world: int
    """The first world that the reader may have seen."""
    at_world: int
    """The newest world when it was done."""


class FirstWorlds(NamedTuple):
    """The oldest worlds of which a reader may find something in the maps when it starts."""

    settled: int = 0
    """The newest that is wholly in the maps."""
    unguarded: int = 0
    """The newest before which no source range is left: those that go stay for a grace period."""


class Delayed:
    """A reader on its way, and the worlds that it may see."""

    def __init__(self, store: FakeMapStore, key: FrontendKey, source: Address, worlds: FirstWorlds) -> None:
        """Start."""
        self.key = key
        self.source = source
        self.first = worlds
        self.steps: Generator[None, None, Answer] = Reader(store).steps(key, source)


class Traffic:
    """Readers beside a writer. Who is next is drawn."""

    def __init__(self, store: FakeMapStore, seed: int) -> None:
        """Start with no readers and an empty world."""
        self._random = random.Random(seed)  # noqa: S311 - a drawn order, no secret
        self._store = store
        self.node = Node(store)
        self.readers: list[Delayed] = []
        self.worlds: list[World] = [{}]
        self.first = FirstWorlds()
        self.memories: list[Memory] = []
        self.ports: dict[int, ServicePortKey] = {}
        """Whose each service id is, or was last."""
        self._blocked_by: list[Delayed] | None = None
        """The readers that the grace period under way waits for."""
        self._closed_at = 0
        """The newest world that was wholly in the maps when that grace period began."""

    def move_to(self, world: World) -> None:
        """Write a world while readers read."""
        self.worlds.append(world)
        batch = self.node.batch_for(world)
        self.ports.update((id_, port.key) for id_, port in self.node.layout.contents.ports.items() if port.key)
        self.apply(batch)
        if not self.node.again:
            self.first = self.first._replace(settled=len(self.worlds) - 1)

    def apply(self, batch: Batch) -> None:
        """Apply a batch, word by word."""
        failed: list[Change] = []
        for change in small_writes(batch.changes):
            self.let_readers_run()
            failed += [failure.change for failure in apply_changes(self._store, [change])]
        self.node.commit(batch, failed)

    def let_readers_run(self) -> None:
        """Start, move on and end some readers."""
        if len(self.readers) < _MOST_READERS and self._random.random() < 0.5:
            key, source = self._random.choice(FRONTENDS), self._random.choice(SOURCES)
            self.readers.append(Delayed(self._store, key, source, self.first))
        for reader in self._random.sample(self.readers, min(len(self.readers), 2)):
            self.move_on(reader, self._random.choice((1, 1, 3, 40)))

    def move_on(self, reader: Delayed, steps: int) -> None:
        """Let one reader take some steps; when it is done, judge its answer."""
        for _ in range(steps):
            try:
                next(reader.steps)
            except StopIteration as end:
                self.readers.remove(reader)
                self.judge(reader, end.value)
                return

    def finish(self, readers: Iterable[Delayed]) -> None:
        """Let readers come to their end."""
        for reader in list(readers):
            if reader in self.readers:
                self.move_on(reader, 1000)

    def grace(self) -> None:
        """Begin a grace period, or end one as soon as the readers that hold it up are done."""
        if self._blocked_by is None:
            self.apply(self.node.layout.defragment())
            if self.node.layout.close_epoch():
                self._blocked_by = list(self.readers)
                self._closed_at = self.first.settled
            else:
                self.first = self.first._replace(unguarded=self.first.settled)
            return
        if self._random.random() < 0.5:
            self.finish(self._blocked_by)
        if not any(reader in self.readers for reader in self._blocked_by):
            self._blocked_by = None
            self.apply(self.node.layout.grace_passed())
            self.first = self.first._replace(unguarded=self._closed_at)

    def judge(self, reader: Delayed, answer: Answer) -> None:
        """Check that the answer is that of a world that was there while the reader was on its way."""
        assert_possible(self.worlds, reader, answer)
        for endpoint, backend, generation, _ in answer.members:
            self.memories.append(
                Memory(
                    key=reader.key,
                    origin=answer.origin,
                    port=self.ports[answer.service],
                    endpoint=endpoint,
                    backend=backend,
                    generation=generation,
                    from_world=reader.first.settled,
                    at_world=len(self.worlds) - 1,
                )
            )

    def check_memories(self) -> None:
        """Check that a socket keeps its backend exactly as long as the endpoint serves behind that frontend."""
        reader = Reader(self._store)
        for memory in self.memories:
            kept = reader.remembers(memory.key, memory.origin, memory.backend, memory.generation)
            if all(serves(world, memory) and owns(world, memory) for world in self.worlds[memory.from_world :]):
                assert kept
            if not owns(self.worlds[-1], memory) or not all(
                serves(world, memory) for world in self.worlds[memory.at_world :]
            ):
                assert not kept


def holds(port: ServicePortPlan, endpoint: bytes) -> bool:
    """Whether an endpoint serves for a service port, in a set or lingering."""
    return endpoint in endpoint_keys((*port.cluster_set, *port.local_set, *port.lingering))


def serves(world: World, memory: Memory) -> bool:
    """Whether the endpoint that is remembered serves for its service port in a world."""
    port = ports_of(world).get(memory.port)
    return port is not None and holds(port, memory.endpoint)


def owns(world: World, memory: Memory) -> bool:
    """Whether the service port has the frontend in a world."""
    owner = owner_of(world, memory.key)
    return owner is not None and owner[0].key == memory.port


def ports_named(worlds: Sequence[World], names: Collection[ServicePortKey]) -> list[ServicePortPlan]:
    """Return what some worlds plan for some service ports."""
    return [ports_of(world)[name] for world in worlds for name in names if name in ports_of(world)]


def assert_possible(worlds: Sequence[World], reader: Delayed, answer: Answer) -> None:
    """Check an answer. Policy, sets and source ranges may be those of different worlds; a set never is a mixture."""
    assert answer.outcome is not Outcome.BROKEN
    seen = worlds[reader.first.settled :]
    owners = [owner_of(world, reader.key) for world in seen]
    if answer.outcome is Outcome.MISS:
        assert None in owners or len(seen) > 3
        return
    # A frontend that goes, or changes hands, may still lead to its old service port when that has its new set.
    names = {owner[0].key for owner in owners if owner}
    kinds = {owner[1] for owner in owners if owner}
    ports = ports_named(seen, names)
    if answer.outcome is Outcome.DENIED:
        assert not all(is_allowed(port, kind, reader.source) for port in ports for kind in kinds)
        return
    guards = ports_named(worlds[reader.first.unguarded :], names)
    assert any(is_allowed(port, kind, reader.source) for port in guards for kind in kinds)
    policies = {FrontendKind.CLUSTER_IP in kinds and port.internal_local for port in ports}
    sets = {endpoint_keys(port.local_set if policy else port.cluster_set) for port in ports for policy in policies}
    assert tuple(sorted(member.endpoint for member in answer.members)) in sets
    if answer.outcome is not Outcome.DNAT and len(seen) <= 2:
        assert answer.outcome in {Outcome.DROP if port.has_endpoints else Outcome.REJECT for port in ports}
        is_cluster_ip = FrontendKind.CLUSTER_IP in kinds
        assert () in [port.local_set if is_cluster_ip and port.internal_local else port.cluster_set for port in ports]


_RANGES_GO_AS_THE_LAST_ENDPOINT_DOES = [
    world_of((0, 0, 0, 0, 995061, 0), 0, 0),
    world_of((0, 0, 0, 0, 0, 1), 0, 0),
    world_of((66496885, 0, 0, 0, 0, 0), 0, 0),
    world_of((19369665, 0, 0, 0, 0, 0), 256, 0),
]


@settings(max_examples=300, deadline=None)
@example(_RANGES_GO_AS_THE_LAST_ENDPOINT_DOES, 0)
@given(st.lists(worlds(), min_size=1, max_size=5), st.integers(0, 1 << 32))
def test_delayed_readers_see_one_world_or_the_other(path: Sequence[World], seed: int) -> None:
    """Wherever a reader stops, it sees the set that was or the one that is, whole, and backends that are there."""
    traffic = Traffic(FakeMapStore(TIGHT), seed)
    for world in path:
        traffic.move_to(world)
        traffic.grace()
        traffic.let_readers_run()
        traffic.grace()
    traffic.finish(traffic.readers)
    while traffic._blocked_by is not None:
        traffic.grace()
    traffic.node.settle(path[-1])
    traffic.check_memories()
    check_settled(traffic.node, path[-1], TIGHT)
