# SPDX-License-Identifier: Apache-2.0
"""Any sequence of plans, crashes, restarts and failures leads where a cold start with the last plans leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.plan.service_plan import ServicePortPlan
from kubeproxy_ebpf.testing import SMALL, FakeMapStore, FaultyMapStore
from kubeproxy_ebpf.writer import apply_changes
from tests.layout_world import Node, World, check_answers, check_settled, ports_of, small_writes, worlds

TIGHT = {**SMALL, ArrayMap.SERVICES: 10, ArrayMap.SLOTS: 45, ArrayMap.BACKENDS: 40, ArrayMap.ORIGINS: 16}
"""Little more than two of the larger worlds need, so that ids come back and Services do not fit for a while."""


class Step(NamedTuple):
    """A world, and what goes wrong on the way there."""

    world: World
    crash_after: int | None
    """Writes, words of copies counted one by one."""
    refused: frozenset[int]
    """Numbers of keyed writes that fail."""
    grace: bool
    prune: bool


STEPS = st.lists(
    st.builds(
        Step,
        worlds(),
        st.none() | st.integers(0, 120),
        st.frozensets(st.integers(1, 12), max_size=3),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


def take(node: Node, store: FaultyMapStore, step: Step) -> Node:
    """Take a step; return the agent that runs then."""
    batch = node.batch_for(step.world)
    if step.crash_after is not None:
        for change in list(small_writes(batch.changes))[: step.crash_after]:
            apply_changes(store, [change])
        return Node(store)
    store.keyed_writes, store.refuse = 0, step.refused
    node.apply(batch)
    if step.prune:
        node.apply(node.layout.prune(frozenset(step.world)))
    store.refuse = frozenset()
    if step.grace:
        store.keyed_writes, store.refuse = 0, step.refused
        node.rest()
        store.refuse = frozenset()
    return node


@settings(max_examples=250, deadline=None)
@given(STEPS, st.booleans())
def test_every_way_leads_where_a_cold_start_leads(steps: Sequence[Step], restart: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever happened, the maps end up as if the last plans were all there ever was, and nothing leaks."""
    store = FaultyMapStore(SMALL)
    node = Node(store)
    for step in steps:
        node = take(node, store, step)
    if restart:
        node = Node(store)
    node.settle(steps[-1].world)
    check_settled(node, steps[-1].world, SMALL)


@settings(max_examples=120, deadline=None)
@given(STEPS)
def test_full_maps_hold_up_nobody_for_good(steps: Sequence[Step]) -> None:
    """Services that do not fit wait until there is room; then everything is as after a cold start."""
    store = FaultyMapStore(TIGHT)
    node = Node(store)
    for step in steps:
        node = take(node, store, step)
    node.settle({})
    check_settled(node, {}, TIGHT)
    if fits(steps[-1].world):
        node.settle(steps[-1].world)
        check_settled(node, steps[-1].world, TIGHT)


def fits(world: World) -> bool:
    """Whether a world fits into empty maps."""
    cold = Node(FakeMapStore(TIGHT))
    return not cold.batch_for(world).errors


@settings(max_examples=150, deadline=None)
@given(worlds(), worlds())
def test_the_same_world_takes_no_write(before: World, world: World) -> None:
    """A restart with what is there already writes nothing at all: no key, no word, no copy."""
    store = FakeMapStore()
    node = Node(store)
    node.settle(before)
    node.settle(world)
    store.log.clear()
    arrays = {name: store.read(name) for name in ArrayMap}
    node = Node(store)
    assert node.batch_for(world).changes == ()
    assert node.layout.prune(frozenset(world)).changes == ()
    node.settle(world)
    assert store.log == []
    assert arrays == {name: store.read(name) for name in ArrayMap}


@settings(max_examples=100, deadline=None)
@given(worlds(), st.integers(0, 200), worlds())
def test_a_crash_while_pruning_is_completed(world: World, after: int, left: World) -> None:
    """An agent that dies while it clears away what nobody knows leaves what the next one clears away."""
    store = FakeMapStore()
    Node(store).settle(left)
    node = Node(store)
    node.reconcile(world)
    for change in list(small_writes(node.layout.prune(frozenset(world)).changes))[:after]:
        apply_changes(store, [change])
    node = Node(store)
    node.settle(world)
    check_settled(node, world, SMALL)


@settings(max_examples=100, deadline=None)
@given(worlds(), worlds(), st.integers(0, 100))
def test_a_crash_after_a_grace_period_is_completed(before: World, world: World, after: int) -> None:
    """What is written once readers are gone may be cut short as well."""
    store = FakeMapStore()
    node = Node(store)
    node.settle(before)
    node.reconcile(world)
    if node.layout.close_epoch():
        for change in node.layout.grace_passed().changes[:after]:
            apply_changes(store, [change])
    check_answers(store, world)
    node = Node(store)
    node.settle(world)
    check_settled(node, world, SMALL)


@settings(max_examples=150, deadline=None)
@given(worlds(), worlds())
def test_endpoints_alone_need_no_system_call(before: World, after: World) -> None:
    """Where only endpoints differ, only arrays are written."""
    store = FakeMapStore()
    node = Node(store)
    node.settle(before)
    new_ports = ports_of(after)
    world = {
        name: replace(
            plan,
            ports=tuple(with_endpoints_of(port, new_ports.get(port.key)) for port in plan.ports),
        )
        for name, plan in before.items()
    }
    store.log.clear()
    node.reconcile(world)
    node.rest()
    assert not [write for write in store.log if isinstance(write.map, HashMap)]
    check_settled(node, world, SMALL)


def with_endpoints_of(port: ServicePortPlan, other: ServicePortPlan | None) -> ServicePortPlan:
    """Return a service port's plan with another one's endpoints."""
    if other is None:
        return port
    return replace(
        port,
        cluster_set=other.cluster_set,
        local_set=other.local_set if port.internal_local or port.external_local else (),
        lingering=other.lingering,
        has_endpoints=other.has_endpoints,
    )
