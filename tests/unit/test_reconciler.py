# SPDX-License-Identifier: Apache-2.0
"""The reconciler: what fails is tried again and harms nobody else; what drifts is repaired."""

from __future__ import annotations

import pytest

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.layout import restore
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.layout.layout import Layout
from kubeproxy_ebpf.map_schema import SettingsEntry
from kubeproxy_ebpf.model.address import Family, parse_address, parse_prefix
from kubeproxy_ebpf.model.objects import (
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Node,
    ObjectName,
    Protocol,
    Service,
    ServicePort,
)
from kubeproxy_ebpf.model.settings import NodeState, Settings
from kubeproxy_ebpf.plan.cluster import ClusterState
from kubeproxy_ebpf.reconciler import Reconciler
from kubeproxy_ebpf.testing import SMALL, FakeMapStore, FaultyMapStore


class World:
    """A reconciler over maps in memory, with a clock of the test's own; grace periods pass at once."""

    def __init__(self, store: FakeMapStore | None = None) -> None:
        """Start without Services."""
        self.now = 0.0
        self.store = store or FakeMapStore()
        self.cluster = ClusterState(Settings(), NodeState(node=Node(name="this-node")))
        self.reconciler = Reconciler(
            cluster=self.cluster,
            layout=Layout({name: self.store.capacity(name) for name in SMALL}),
            store=self.store,
            clock=lambda: self.now,
            start_grace_period=lambda: None,
        )

    def serve(self, number: int, endpoints: int = 2) -> ObjectName:
        """Let there be a Service with some endpoints."""
        name = ObjectName("default", f"web-{number}")
        address = parse_address(f"10.96.0.{number}")
        port = ServicePort(name="", protocol=Protocol.TCP, port=80)
        self.cluster.set_service(Service(name=name, cluster_ips=(address,), ports=(port,)))
        self.cluster.set_endpoint_slice(
            EndpointSlice(
                name=name,
                service=name,
                family=Family.IPV4,
                ports=(EndpointPort("", Protocol.TCP, 8080),),
                endpoints=tuple(Endpoint(parse_address(f"10.244.{number}.{one}")) for one in range(1, endpoints + 1)),
            )
        )
        return name

    def settle(self) -> None:
        """Let time pass until nothing is left to be tried again."""
        for _ in range(20):
            wait = self.reconciler.seconds_to_next()
            if wait is None:
                return
            self.now += wait
            self.reconciler.sync()
            self.reconciler.readers_are_gone()
        pytest.fail("it never settles")


def keys(store: FakeMapStore) -> dict[HashMap, set[bytes]]:
    """Return the keys of every keyed map."""
    return {name: {key for key, _ in store.entries(name)} for name in HashMap}


@pytest.mark.parametrize("refused", range(1, 8))
def test_a_refused_write_is_tried_again(refused: int) -> None:
    """Whichever keyed write fails, a later round completes it, and the maps are as if it had not failed."""
    clean, faulty = World(), World(FaultyMapStore())
    assert isinstance(faulty.store, FaultyMapStore)
    for world in (clean, faulty):
        world.serve(1)
        world.serve(2)
    faulty.store.refuse = frozenset({refused})
    clean.reconciler.sync()
    faulty.reconciler.sync()
    faulty.settle()
    assert keys(faulty.store) == keys(clean.store)
    assert sum(faulty.reconciler.audit_parts()) == 0


def test_a_full_map_is_an_error_on_one_service() -> None:
    """A Service that does not fit waits, the next one is served, and the first as soon as there is room."""
    world = World(FakeMapStore({**SMALL, ArrayMap.BACKENDS: 8}))
    large = world.serve(1, endpoints=20)
    world.serve(2)
    world.reconciler.sync()
    assert len(keys(world.store)[HashMap.FRONTENDS]) == 1
    assert world.reconciler.seconds_to_next() is not None
    world.serve(1, endpoints=3)
    world.reconciler.sync()
    world.settle()
    assert len(keys(world.store)[HashMap.FRONTENDS]) == 2
    world.cluster.delete_service(large)
    world.reconciler.sync()
    assert len(keys(world.store)[HashMap.FRONTENDS]) == 1


def test_the_same_world_takes_no_write() -> None:
    """A round without a change writes nothing."""
    world = World()
    world.serve(1)
    assert world.reconciler.sync().writes
    assert world.reconciler.sync() == (0, 0)


def test_drift_is_repaired() -> None:
    """What somebody else deleted or added is repaired by the audit, and found in order by the next one."""
    world = World()
    world.serve(1)
    world.reconciler.sync()
    before = keys(world.store)
    frontend = next(iter(before[HashMap.FRONTENDS]))
    del world.store.hashes[HashMap.FRONTENDS][frontend]
    world.store.hashes[HashMap.ADDRESSES][parse_address("10.96.0.77")] = map_schema.pack_u32(1)
    assert sum(world.reconciler.audit_parts())
    assert keys(world.store) == before
    assert sum(world.reconciler.audit_parts()) == 0


def test_nothing_is_pruned_before_everything_was_read() -> None:
    """What an agent before this one left stays while the cluster state is not complete."""
    world = World()
    world.serve(1)
    world.reconciler.sync()
    next_world = World(world.store)
    layout = Layout({name: world.store.capacity(name) for name in SMALL})
    layout.adopt(restore.find(world.store))
    reconciler = Reconciler(
        cluster=next_world.cluster, layout=layout, store=world.store, clock=lambda: 0.0, start_grace_period=lambda: None
    )
    reconciler.sync(is_complete=False)
    assert keys(world.store)[HashMap.FRONTENDS]
    reconciler.sync()
    reconciler.readers_are_gone()
    assert not any(keys(world.store).values())


def test_settings_are_written_once() -> None:
    """Settings take effect, the same ones again take no write, and others replace them."""
    world = World()
    first = SettingsEntry(service_cidrs=(parse_prefix("10.96.0.0/16"),), host_netns_cookie=7)
    second = SettingsEntry(service_cidrs=(parse_prefix("fd00::/112"), parse_prefix("10.97.0.0/16")))
    for wanted in (first, second):
        assert world.reconciler.apply_settings(wanted)
        assert map_schema.unpack_settings(world.store.read(ArrayMap.SETTINGS)) == wanted
        assert world.reconciler.apply_settings(wanted) == 0


class WatchedMapStore(FakeMapStore):
    """Keeps what the settings were at each grace period."""

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self.at_grace_periods: list[bytes] = []

    def wait_for_readers(self) -> None:
        """Look."""
        self.at_grace_periods.append(bytes(self.read(ArrayMap.SETTINGS)))


def test_prefixes_take_effect_a_grace_period_after_they_were_written() -> None:
    """The first ones, and others in their place: at the grace period they are there, and nobody counts them yet."""
    store = WatchedMapStore()
    world = World(store)
    for cidrs in ("10.96.0.0/16",), ("10.97.0.0/16", "fd00::/112"):
        wanted = SettingsEntry(service_cidrs=tuple(map(parse_prefix, cidrs)))
        world.reconciler.apply_settings(wanted)
        before, after = store.at_grace_periods[-1], bytes(store.read(ArrayMap.SETTINGS))
        prefixes = slice(map_schema.SETTINGS_PREFIXES_OFFSET, map_schema.SETTINGS_SIZE)
        assert before[prefixes] == after[prefixes]
        assert map_schema.unpack_settings(before).service_cidrs == ()
        assert map_schema.unpack_settings(after) == wanted
