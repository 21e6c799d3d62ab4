# SPDX-License-Identifier: Apache-2.0
"""Any sequence of changes leads to the same plans as a cold start with the final objects.

The objects are drawn from so small a world that Services share addresses, ports and slices all the time.
"""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

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
    TrafficPolicy,
)
from kubeproxy_ebpf.model.settings import LocalDetection, NodePortKeyword, NodeState, Settings
from kubeproxy_ebpf.plan.cluster import ClusterState
from kubeproxy_ebpf.plan.service_plan import ServicePlan

NODE_IP = parse_address("192.0.2.10")
NODE = NodeState(
    node=Node(name="this-node", addresses=(NODE_IP,), zone="zone-a"), interface_addresses=frozenset({NODE_IP})
)
ADDRESSES = [parse_address(text) for text in ("198.51.100.7", "192.0.2.10", "10.96.0.1", "10.96.0.2", "2001:db8:1::7")]
NAMES = [ObjectName("default", name) for name in ("a", "b", "c")]


def tuples(strategy: st.SearchStrategy, most: int) -> st.SearchStrategy[tuple]:
    """Return tuples of distinct values."""
    return st.lists(strategy, max_size=most, unique=True).map(tuple)


PORTS = st.lists(
    st.builds(
        ServicePort,
        name=st.sampled_from(["http", ""]),
        protocol=st.sampled_from([Protocol.TCP, Protocol.UDP]),
        port=st.sampled_from([80, 30080]),
        node_port=st.sampled_from([0, 80, 30080]),
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda port: (port.name, port.protocol),
).map(tuple)
SERVICES = st.builds(
    Service,
    name=st.sampled_from(NAMES),
    created=st.sampled_from(["", "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"]),
    cluster_ips=st.sampled_from(
        [(parse_address("10.96.0.1"),), (parse_address("10.96.0.2"), parse_address("fd00:10:96::2"))]
    ),
    external_ips=tuples(st.sampled_from(ADDRESSES), 2),
    load_balancer_ips=tuples(st.sampled_from(ADDRESSES), 2),
    ports=PORTS,
    source_ranges=tuples(st.sampled_from([parse_prefix("192.0.2.0/24"), parse_prefix("2001:db8::/32")]), 2),
    internal_policy=st.sampled_from(TrafficPolicy),
    external_policy=st.sampled_from(TrafficPolicy),
    excluded=st.sampled_from([False, False, False, True]),
)
SLICES = st.builds(
    EndpointSlice,
    name=st.sampled_from(NAMES),
    service=st.sampled_from(NAMES),
    family=st.just(Family.IPV4),
    ports=st.just((EndpointPort("http", Protocol.TCP, 8080), EndpointPort("", Protocol.UDP, 8080))),
    endpoints=tuples(
        st.builds(
            Endpoint,
            address=st.sampled_from(ADDRESSES[:2]),
            ready=st.booleans(),
            terminating=st.booleans(),
            node_name=st.sampled_from(["", "this-node", "other-node"]),
            zone_hints=st.sampled_from([(), ("zone-a",), ("zone-b",)]),
        ),
        2,
    ),
)
NODES = st.builds(
    NodeState,
    node=st.builds(
        Node,
        name=st.sampled_from(["this-node", "other-node"]),
        addresses=st.sampled_from([(NODE_IP,), (ADDRESSES[0], ADDRESSES[4])]),
        zone=st.sampled_from(["", "zone-a", "zone-b"]),
        pod_cidrs=st.sampled_from([(), (parse_prefix("10.244.0.0/24"),)]),
    ),
    interface_addresses=st.frozensets(st.sampled_from(ADDRESSES)),
)
SETTINGS = st.builds(
    Settings,
    node_port_addresses=st.sampled_from([(NodePortKeyword.PRIMARY,), (NodePortKeyword.ALL,)]),
    exclude_cidrs=st.sampled_from([(), (parse_prefix("10.96.0.2/32"),), (parse_prefix("198.51.100.0/24"),)]),
    masquerade_all=st.booleans(),
    local_detection=st.sampled_from([LocalDetection.NONE, LocalDetection.NODE_CIDR]),
)
CHANGES = st.lists(
    st.tuples(st.just("observe"), SERVICES | SLICES)
    | st.tuples(st.sampled_from(["delete_service", "delete_endpoint_slice"]), st.sampled_from(NAMES))
    | st.tuples(st.just("set_node"), NODES)
    | st.tuples(st.just("set_settings"), SETTINGS)
    | st.tuples(st.just("plan"), st.none()),
    max_size=20,
)


def refresh(state: ClusterState, plans: dict[ObjectName, ServicePlan]) -> None:
    """Plan what is dirty."""
    for name in state.take_dirty():
        newest = state.plan(name)
        if newest is None:
            plans.pop(name, None)
        else:
            plans[name] = newest


def cold_start(
    current: Settings, node: NodeState, objects: Iterable[Service | EndpointSlice]
) -> dict[ObjectName, ServicePlan]:
    """Return the plans of a state that has only ever seen these objects."""
    state = ClusterState(current, node)
    for newest in objects:
        state.observe(newest)
    plans: dict[ObjectName, ServicePlan] = {}
    refresh(state, plans)
    return plans


@settings(deadline=None, max_examples=400)
@given(changes=CHANGES, data=st.data())
def test_any_sequence_of_changes_equals_a_cold_start(changes: list, data: st.DataObject) -> None:
    """Only dirty Services are planned again, and yet all plans are right at the end, whatever the order was."""
    current, node = Settings(), NODE
    state = ClusterState(current, node)
    plans: dict[ObjectName, ServicePlan] = {}
    objects: dict[tuple[str, ObjectName], Service | EndpointSlice] = {}
    for action, argument in changes:
        match action:
            case "observe":
                objects[type(argument).__name__, argument.name] = argument
            case "delete_service":
                objects.pop(("Service", argument), None)
            case "delete_endpoint_slice":
                objects.pop(("EndpointSlice", argument), None)
            case "set_node":
                node = argument
            case "set_settings":
                current = argument
        if action == "plan":
            refresh(state, plans)
        else:
            getattr(state, action)(argument)
    refresh(state, plans)
    order = data.draw(st.permutations(sorted(objects)), label="order of the cold start")
    assert plans == cold_start(current, node, [objects[key] for key in order])
    keys = [key for planned in plans.values() for port in planned.ports for key, _ in port.frontends]
    assert len(keys) == len(set(keys)), "a frontend has two owners"
