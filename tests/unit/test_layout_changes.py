# SPDX-License-Identifier: Apache-2.0
"""What one change of a plan writes, and what it leaves as it is."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.changes import ArrayMap, DeleteEntry, HashMap, InsertEntry, Phase
from kubeproxy_ebpf.layout.errors import CapacityError, UnnamableServiceError
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
from kubeproxy_ebpf.testing import SMALL, Answer, FakeMapStore, Member, Outcome, Reader
from kubeproxy_ebpf.writer import apply_changes
from tests.layout_world import SOURCE_RANGES, SOURCES, Node, audit, check_settled

WEB, OTHER = ObjectName("shop", "web"), ObjectName("shop", "other")
CLUSTER_IP = FrontendKey(parse_address("10.96.0.10"), 80, Protocol.TCP)
NODE_PORT = FrontendKey(parse_address("10.4.0.1"), 30080, Protocol.TCP)
ENDPOINTS = tuple(
    PlannedEndpoint(parse_address(f"10.244.0.{number}"), 8080, local=False, node_name="") for number in range(1, 40)
)

_STEPS_TO_THE_BACKEND = 8
"""After which a reader has read a slot, and not yet the backend that it names."""


def plan_of(service: ObjectName, count: int = 2, *frontends: FrontendKey) -> ServicePlan:
    """Return the plan of a Service with one port and some endpoints."""
    port = ServicePortPlan(
        key=ServicePortKey(service, "http", Protocol.TCP, Family.IPV4),
        frontends=tuple(Frontend(key, FrontendKind.CLUSTER_IP) for key in frontends),
        cluster_set=ENDPOINTS[:count],
        local_set=(),
        lingering=(),
        has_endpoints=count > 0,
        internal_local=False,
        external_local=False,
        affinity_seconds=0,
        source_ranges=None,
        cluster_ip_rules={},
        external_rules={},
    )
    return ServicePlan(service=service, ports=(port,))


def changed(plan: ServicePlan, **fields: Any) -> ServicePlan:
    """Return a plan whose port differs in some fields."""
    return replace(plan, ports=(replace(plan.ports[0], **fields),))


@pytest.fixture
def node() -> Node:
    """Return an agent with empty maps."""
    return Node(FakeMapStore())


def members(node: Node) -> dict[bytes, Member]:
    """Return the members of the ClusterIP's set, by endpoint."""
    return {member.endpoint: member for member in answer(node).members}


def answer(node: Node, key: FrontendKey = CLUSTER_IP) -> Answer:
    """Return what a connection finds."""
    return Reader(node.store).answer(key, SOURCES[0])


def packed(number: int) -> bytes:
    """Return an endpoint as readers name it."""
    return schema.pack_endpoint(ENDPOINTS[number].address, ENDPOINTS[number].port)


def test_who_stays_keeps_id_and_generation(node: Node) -> None:
    """A set that changes leaves the backends alone that stay in it."""
    node.reconcile({WEB: plan_of(WEB, 3, CLUSTER_IP)})
    before = members(node)
    node.reconcile({WEB: plan_of(WEB, 2, CLUSTER_IP)})
    after = members(node)
    assert {endpoint: before[endpoint] for endpoint in after} == after


def test_who_comes_back_is_somebody_else(node: Node) -> None:
    """An endpoint that was gone has another generation or id, before and after a grace period."""
    both = {WEB: plan_of(WEB, 2, CLUSTER_IP)}
    node.reconcile(both)
    seen = set()
    for _ in range(3):
        seen.add(members(node)[packed(1)])
        node.reconcile({WEB: plan_of(WEB, 1, CLUSTER_IP)})
        node.reconcile(both)
        seen.add(members(node)[packed(1)])
        node.reconcile({WEB: plan_of(WEB, 1, CLUSTER_IP)})
        node.rest()
        node.reconcile(both)
    assert len({(member.id, member.generation) for member in seen}) == 6


def test_who_lingers_is_still_the_same(node: Node) -> None:
    """An endpoint in neither set that still serves keeps its generation, but affinity lets go of it."""
    plan = plan_of(WEB, 2, CLUSTER_IP)
    node.reconcile({WEB: plan})
    member, origin = members(node)[packed(1)], answer(node).origin
    node.reconcile({WEB: changed(plan, cluster_set=ENDPOINTS[:1], lingering=ENDPOINTS[1:2])})
    assert Reader(node.store).remembers(CLUSTER_IP, origin, member.id, member.generation)
    assert flags_of(node, member.id) == schema.BACKEND_ALLOCATED
    node.reconcile({WEB: changed(plan, cluster_set=ENDPOINTS[:1])})
    assert not Reader(node.store).remembers(CLUSTER_IP, origin, member.id, member.generation)


def test_who_goes_is_there_until_nobody_can_pick_it(node: Node) -> None:
    """A backend that leaves its set is free only after a grace period; affinity lets go of it at once."""
    node.reconcile({WEB: plan_of(WEB, 2, CLUSTER_IP)})
    member = members(node)[packed(1)]
    node.reconcile({WEB: plan_of(WEB, 1, CLUSTER_IP)})
    assert flags_of(node, member.id) == schema.BACKEND_ALLOCATED
    node.rest()
    assert flags_of(node, member.id) == 0


def test_who_was_picked_late_is_not_taken_for_the_next() -> None:
    """A reader that picks a backend as it goes may remember it, but never takes the entry's next owner for it."""
    node = Node(FakeMapStore({**SMALL, ArrayMap.BACKENDS: 3}))
    plan = plan_of(WEB, 1, CLUSTER_IP)
    node.reconcile({WEB: plan})
    late = Reader(node.store).steps(CLUSTER_IP, SOURCES[0])
    for _ in range(_STEPS_TO_THE_BACKEND):
        next(late)
    node.reconcile({WEB: changed(plan, cluster_set=ENDPOINTS[1:2])})
    found = ended(late)
    (picked,) = found.members
    node.rest()
    node.reconcile({WEB: changed(plan, cluster_set=ENDPOINTS[1:3])})
    assert members(node)[packed(2)].id == picked.id
    assert not Reader(node.store).remembers(CLUSTER_IP, found.origin, picked.id, picked.generation)


def ended(steps: Generator[None, None, Answer]) -> Answer:
    """Let a reader come to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            answer: Answer = end.value
            return answer


def flags_of(node: Node, backend: int) -> int:
    """Return a backend's flags."""
    size = schema.BACKEND_SIZE
    data = node.store.read(ArrayMap.BACKENDS, backend * size, (backend + 1) * size)
    return next(schema.unpack_backends(data)).flags


@pytest.mark.parametrize("loser_first", [True, False])
def test_a_frontend_changes_hands(node: Node, *, loser_first: bool) -> None:
    """Whoever is prepared first, the frontend leads to its new owner, and stays when the old one is gone."""
    node.reconcile({WEB: plan_of(WEB, 1, CLUSTER_IP)})
    plans = {OTHER: plan_of(OTHER, 2, CLUSTER_IP), WEB: plan_of(WEB, 1, NODE_PORT)}
    order = (WEB, OTHER) if loser_first else (OTHER, WEB)
    batch = node.layout.prepare({name: plans[name] for name in order})
    node.world = plans
    node.apply(batch)
    assert len(answer(node).members) == 2
    assert not [change for change in batch.changes if isinstance(change, DeleteEntry)]
    node.settle({OTHER: plans[OTHER]})
    check_settled_here(node, {OTHER: plans[OTHER]})


def check_settled_here(node: Node, world: dict[ObjectName, ServicePlan]) -> None:
    """Check that the frontend works and that nothing leaks."""
    check_settled(node, world, SMALL)
    assert answer(node).outcome is Outcome.DNAT


def test_a_frontend_that_changes_hands_needs_no_key(node: Node) -> None:
    """Between Services that are both there a frontend moves by one store."""
    node.settle({WEB: plan_of(WEB, 1, CLUSTER_IP), OTHER: plan_of(OTHER, 2, NODE_PORT)})
    batch = node.layout.prepare({OTHER: plan_of(OTHER, 2, NODE_PORT, CLUSTER_IP)})
    keyed = [(change.map, type(change)) for change in batch.changes if isinstance(change, InsertEntry | DeleteEntry)]
    assert keyed == []
    node.apply(batch)
    assert len(answer(node).members) == 2


def test_phases_are_in_order_and_maps_together(node: Node) -> None:
    """A batch is sorted by phase; within one the entries of a map follow each other."""
    node.settle({WEB: plan_of(WEB, 1, CLUSTER_IP)})
    batch = node.layout.prepare(
        {WEB: None, OTHER: changed(plan_of(OTHER, 2, NODE_PORT), source_ranges=SOURCE_RANGES[5])}
    )
    places = [(change.phase, change.map) for change in batch.changes]
    assert [phase for phase, _ in places] == sorted(phase for phase, _ in places)
    assert len(set(places)) == sum(one != two for one, two in zip(places, [None, *places], strict=False))
    assert {phase for phase, _ in places} >= {Phase.WRITE, Phase.GUARD, Phase.EXPOSE, Phase.WITHDRAW, Phase.RETIRE}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        (ArrayMap.SERVICES, 2),
        (ArrayMap.BACKENDS, 5),
        (ArrayMap.SLOTS, 5),
        (ArrayMap.ORIGINS, 2),
        (HashMap.SERVICE_NAMES, 1),
        (HashMap.FRONTENDS, 1),
        (HashMap.ADDRESSES, 1),
        (HashMap.SOURCE_RANGES, 2),
    ],
)
def test_who_does_not_fit_is_told_why_and_disturbs_nobody(name: ArrayMap | HashMap, size: int) -> None:
    """A Service for which a map is too small is an error that says so; others are served, its old state stays."""
    node = Node(FakeMapStore({**SMALL, name: size}))
    old = changed(plan_of(WEB, 1, CLUSTER_IP), source_ranges=SOURCE_RANGES[3])
    node.reconcile({WEB: old})
    contents = node.layout.fill()
    large = changed(plan_of(WEB, 8, CLUSTER_IP, NODE_PORT), source_ranges=SOURCE_RANGES[5])
    second = replace(large.ports[0], key=large.ports[0].key._replace(port="second"), frontends=())
    batch = node.layout.prepare({WEB: replace(large, ports=(large.ports[0], second))})
    (error,) = batch.errors
    assert isinstance(error, CapacityError)
    assert (error.service, error.map_name, error.capacity, error.transient) == (WEB, name.value, size, False)
    assert f"mapSizes.{name.value}" in str(error)
    assert batch.changes == ()
    assert node.layout.fill() == contents
    node.reconcile({WEB: changed(old, affinity_seconds=600)})
    assert answer(node).affinity_seconds == 600


def test_room_after_a_grace_period_is_said() -> None:
    """A Service that only has to wait is not sent for a larger map."""
    node = Node(FakeMapStore({**SMALL, ArrayMap.BACKENDS: 5}))
    node.reconcile({WEB: plan_of(WEB, 4, CLUSTER_IP)})
    node.reconcile({OTHER: plan_of(OTHER, 3, CLUSTER_IP)})
    (error,) = node.layout.prepare({OTHER: plan_of(OTHER, 3, CLUSTER_IP)}).errors
    assert isinstance(error, CapacityError)
    assert error.transient
    assert "mapSizes" not in str(error)
    node.rest()
    node.reconcile({OTHER: plan_of(OTHER, 3, CLUSTER_IP)})
    assert len(answer(node).members) == 3


def test_slots_in_pieces_are_joined() -> None:
    """A set for which the free slots suffice, but no range does, is served once others have made room."""
    node = Node(FakeMapStore({**SMALL, ArrayMap.SLOTS: 21}))
    names = [ObjectName("shop", f"small-{number}") for number in range(10)]
    world = {name: plan_of(name, 2) for name in names}
    node.reconcile(world)
    world = {name: plan for number, (name, plan) in enumerate(world.items()) if number % 2}
    node.reconcile({**world})
    for name in names:
        if name not in world:
            node.apply(node.layout.prepare({name: None}))
    node.rest()
    large = plan_of(WEB, 9, CLUSTER_IP)
    node.apply(node.layout.prepare(world | {WEB: large}))
    assert node.again == {WEB}
    node.rest()
    node.apply(node.layout.prepare({WEB: large}))
    assert len(answer(node).members) == 9
    for name in world:
        assert len(node.layout.contents.ports[node.layout.contents.service_ports[name][0]].cluster.backends) == 2


def test_a_name_that_does_not_fit_is_that_services_error(node: Node) -> None:
    """A name of more than 64 bytes is an error that names the Service; others are served."""
    long = ObjectName("shop", "x" * 65)
    batch = node.layout.prepare({long: plan_of(long, 1), WEB: plan_of(WEB, 1, CLUSTER_IP)})
    (error,) = batch.errors
    assert isinstance(error, UnnamableServiceError)
    assert error.service == long
    assert "shorter" in str(error)
    node.apply(batch)
    assert answer(node).outcome is Outcome.DNAT


def test_an_id_waits_for_its_name_to_go() -> None:
    """A service id whose name could not be deleted is not handed out again before it was."""
    store = FakeMapStore({**SMALL, ArrayMap.SERVICES: 2})
    node = Node(store)
    node.reconcile({WEB: plan_of(WEB, 1, CLUSTER_IP)})
    node.apply(node.layout.prepare({WEB: None}))
    assert node.layout.close_epoch()
    batch = node.layout.grace_passed()
    failed = [change for change in batch.changes if change.map is HashMap.SERVICE_NAMES]
    apply_changes(store, [change for change in batch.changes if change not in failed])
    node.commit(batch, failed)
    assert node.layout.prepare({OTHER: plan_of(OTHER, 1)}).errors
    node.rest()
    assert not node.layout.prepare({OTHER: plan_of(OTHER, 1)}).errors


def test_fill_counts_what_waits(node: Node) -> None:
    """What is in a grace period is still in use; an empty layout uses nothing."""
    node.reconcile({WEB: plan_of(WEB, 3, CLUSTER_IP)})
    full = {"services": 1, "origins": 1, "backends": 3, "slots": 3, "addresses": 1, "frontends": 1, "service_names": 1}
    assert {name: used for name, (used, _) in node.layout.fill().items() if used} == full
    node.apply(node.layout.prepare({WEB: None}))
    waiting = {"services": 1, "origins": 1, "backends": 3, "slots": 3, "service_names": 1}
    assert {name: used for name, (used, _) in node.layout.fill().items() if used} == waiting
    node.rest()
    assert not any(used for used, _ in node.layout.fill().values())
    assert node.layout.fill()["slots"] == (0, SMALL[ArrayMap.SLOTS])


def test_generations_are_not_forgotten_at_a_restart() -> None:
    """A restarted agent counts on: nobody who remembers an old backend takes a new one for it."""
    store = FakeMapStore({**SMALL, ArrayMap.BACKENDS: 2})
    node = Node(store)
    plan = plan_of(WEB, 1, CLUSTER_IP)
    seen = set()
    for number in range(4):
        world = {WEB: changed(plan, cluster_set=ENDPOINTS[number : number + 1])}
        node.settle(world)
        seen.add((members(node)[packed(number)].id, members(node)[packed(number)].generation))
        node = Node(store)
        node.settle({WEB: changed(plan, cluster_set=())})
        node = Node(store)
    assert len(seen) == 4


def test_two_ids_of_one_name() -> None:
    """A crash before a Service's old id was given back leaves two with one name; the one that serves is kept."""
    store = FakeMapStore()
    node = Node(store)
    world = {WEB: plan_of(WEB, 0, CLUSTER_IP)}
    node.reconcile(world)
    node.reconcile({})
    node.reconcile(world)
    assert len(store.hashes[HashMap.SERVICE_NAMES]) == 2
    node = Node(store)
    assert node.batch_for(world).changes == ()
    node.settle(world)
    check_settled(node, world, SMALL)
    assert len(store.hashes[HashMap.SERVICE_NAMES]) == 1


def test_two_sets_that_share_slots() -> None:
    """Of two sets that damage made share their slots one is written anew; both serve what they should."""
    store = FakeMapStore()
    node = Node(store)
    world = {WEB: plan_of(WEB, 2, CLUSTER_IP), OTHER: plan_of(OTHER, 2, NODE_PORT)}
    node.settle(world)
    first, second = (number * schema.SERVICE_SIZE for number in (1, 2))
    store.write(ArrayMap.SERVICES, second, store.read(ArrayMap.SERVICES, first, first + 8))
    node = Node(store)
    node.settle(world)
    check_settled(node, world, SMALL)
    assert sorted(member.endpoint for member in answer(node, NODE_PORT).members) == [packed(0), packed(1)]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_sets_that_slide_over_themselves(size: int) -> None:
    """Holes shorter than the sets above them are joined as well; every set keeps its members."""
    node = Node(FakeMapStore({**SMALL, ArrayMap.SLOTS: 1 + 5 * (size + 4)}))
    names = [ObjectName("shop", f"service-{number}") for number in range(10)]
    world = {name: plan_of(name, 4 if number % 2 else size) for number, name in enumerate(names)}
    node.reconcile(world)
    assert not node.again
    world = {name: plan for name, plan in world.items() if len(plan.ports[0].cluster_set) == 4 and name in names[1::2]}
    node.reconcile(world)
    node.rest()
    world[WEB] = plan_of(WEB, 5 * size, CLUSTER_IP)
    node.reconcile(world)
    node.settle(world)
    assert len(answer(node).members) == 5 * size
    assert not audit(node.layout, node.store)
    assert all(len(port.cluster.backends) in {4, 5 * size} for port in node.layout.contents.ports.values())
