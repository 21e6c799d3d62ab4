# SPDX-License-Identifier: Apache-2.0
"""Maps that somebody else wrote into: nothing in them stops a start, and audit mends what differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.audit import Audit
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.map_schema import OriginEntry
from kubeproxy_ebpf.model.address import parse_address
from kubeproxy_ebpf.model.objects import Protocol
from kubeproxy_ebpf.plan.service_plan import FrontendKey, FrontendKind
from kubeproxy_ebpf.testing import SMALL, FakeMapStore
from kubeproxy_ebpf.writer import apply_changes
from tests.layout_world import (
    Node,
    World,
    audit,
    check_answers,
    check_no_backend_is_left,
    check_settled,
    world_of,
    worlds,
)

KEY_SIZES = {
    HashMap.ADDRESSES: (16, 4),
    HashMap.FRONTENDS: (20, 4),
    HashMap.SOURCE_RANGES: (24, 4),
    HashMap.SERVICE_NAMES: (4, 200),
}
ARRAYS = (ArrayMap.SERVICES, ArrayMap.SLOTS, ArrayMap.BACKENDS, ArrayMap.ORIGINS)
WORLD = world_of((70_001_234_567, 3_212_345, 998_877_665, 123_456_789, 5, 7_654_321), 987_654_321, 200)


class Damage(NamedTuple):
    """Bytes that somebody put into a map."""

    map: ArrayMap | HashMap
    number: int
    offset: int
    data: bytes

    def do(self, store: FakeMapStore) -> None:
        """Put them there: into an entry of an array; over a value, in place of a key, or beside the others."""
        if isinstance(self.map, ArrayMap):
            size = schema.ENTRY_SIZES[self.map]
            start = self.offset % size
            store.write(self.map, self.number * size + start, self.data[: size - start])
            return
        content = store.hashes[self.map]
        key_size, value_size = KEY_SIZES[self.map]
        keys = sorted(content)
        key = keys[self.number % len(keys)] if keys else bytes(key_size)
        match self.offset % 4:
            case 0:
                content.pop(key, None)
            case 1:
                content[key] = (self.data * value_size)[:value_size]
            case 2:
                content[(self.data * key_size)[:key_size]] = content.get(key, bytes(value_size))
            case _:
                content[(key[:-3] + self.data * 3)[:key_size]] = (self.data * value_size)[:value_size]


DAMAGE = st.lists(
    st.builds(
        Damage,
        st.sampled_from((*ARRAYS, *HashMap)),
        st.integers(0, 30),
        st.integers(0, 31),
        st.binary(min_size=1, max_size=8),
    ),
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(worlds(), DAMAGE, worlds())
def test_a_start_mends_whatever_it_finds(before: World, damage: Sequence[Damage], world: World) -> None:
    """Whatever the maps hold, an agent starts, serves, and leaves nothing that is not its own."""
    store = FakeMapStore()
    Node(store).settle(before)
    for one in damage:
        one.do(store)
    node = Node(store)
    node.settle(world)
    apply_changes(store, audit(node.layout, store))
    check_settled(node, world, SMALL)
    check_settled(restarted(store, world), world, SMALL)


@settings(max_examples=100, deadline=None)
@given(worlds(), DAMAGE, worlds(), DAMAGE)
def test_audit_mends_what_changed_under_a_running_agent(
    before: World, damage: Sequence[Damage], world: World, more_damage: Sequence[Damage]
) -> None:
    """What somebody changes while the agent runs is put right by the next audit, once and for all.

    It does not matter that all was known to be in order before, nor what the agent changed itself since.
    """
    store = FakeMapStore()
    node = Node(store)
    audit_ = Audit(node.layout, store)
    for wanted, done in ((before, damage), (world, more_damage)):
        node.settle(wanted)
        assert not any(audit_.parts())
        for one in done:
            one.do(store)
        for repairs in audit_.parts():
            apply_changes(store, repairs)
        check_answers(store, wanted)
        check_no_backend_is_left(store, wanted)
        assert not any(audit_.parts())
        assert audit(node.layout, store) == ()


def restarted(store: FakeMapStore, world: World) -> Node:
    """Return an agent that started once more and found nothing to do."""
    node = Node(store)
    assert node.batch_for(world).changes == ()
    node.settle(world)
    return node


@pytest.mark.parametrize("name", ARRAYS)
def test_all_ones(name: ArrayMap) -> None:
    """An array full of ones does not stop a start."""
    store = FakeMapStore()
    Node(store).settle(WORLD)
    store.write(name, 0, b"\xff" * len(store.read(name)))
    node = Node(store)
    node.settle(WORLD)
    apply_changes(store, audit(node.layout, store))
    check_settled(node, WORLD, SMALL)


def test_audit_leaves_what_waits_alone() -> None:
    """What goes only after a grace period is no damage."""
    store = FakeMapStore()
    node = Node(store)
    node.settle(WORLD)
    node.reconcile({})
    assert audit(node.layout, store) == ()
    assert node.layout.close_epoch()
    assert audit(node.layout, store) == ()
    node.apply(node.layout.grace_passed())
    assert audit(node.layout, store) == ()
    check_settled(node, {}, SMALL)


def test_the_self_test_is_left_alone() -> None:
    """A self-test that is under way keeps entry 0, its frontend and its address, whoever starts, prunes or audits."""
    store = FakeMapStore()
    address = parse_address("198.51.100.7")
    key = schema.pack_frontend_key(FrontendKey(address, 4000, Protocol.TCP))
    store.hashes[HashMap.FRONTENDS][key] = schema.pack_u32(0)
    store.hashes[HashMap.ADDRESSES][address] = schema.pack_u32(schema.ADDRESS_EXTERNAL)
    store.write(ArrayMap.ORIGINS, 0, schema.pack_origin(OriginEntry(key, 0, FrontendKind.EXTERNAL_IP)))
    node = Node(store)
    node.settle(WORLD)
    assert audit(node.layout, store) == ()
    assert store.hashes[HashMap.FRONTENDS][key] == schema.pack_u32(0)
    assert store.hashes[HashMap.ADDRESSES][address] == schema.pack_u32(schema.ADDRESS_EXTERNAL)


def test_what_only_looks_like_the_self_test_goes() -> None:
    """A frontend that leads to origin 0 from a real address is nobody's."""
    store = FakeMapStore()
    key = schema.pack_frontend_key(FrontendKey(parse_address("10.9.9.9"), 80, Protocol.TCP))
    store.hashes[HashMap.FRONTENDS][key] = schema.pack_u32(0)
    Node(store).settle({})
    assert not store.hashes[HashMap.FRONTENDS]
