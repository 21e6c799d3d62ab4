# SPDX-License-Identifier: Apache-2.0
"""ClusterState: what a change makes dirty, and that it never forgets a Service that a change touches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubeproxy_ebpf.model.address import Family, parse_address, parse_prefix
from kubeproxy_ebpf.model.objects import (
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Ignored,
    Node,
    ObjectName,
    Protocol,
    Service,
    ServicePort,
    TrafficPolicy,
)
from kubeproxy_ebpf.model.problems import MOST_PROBLEMS
from kubeproxy_ebpf.model.settings import LocalDetection, NodePortKeyword, NodeState, Settings
from kubeproxy_ebpf.plan import frontends, planner
from kubeproxy_ebpf.plan.cluster import ClusterState
from kubeproxy_ebpf.plan.service_plan import ServicePlan, Source

NODE_IP = parse_address("192.0.2.10")
CLUSTER_IP = parse_address("10.96.0.10")
NODE = NodeState(
    node=Node(name="this-node", addresses=(NODE_IP,), zone="zone-a"), interface_addresses=frozenset({NODE_IP})
)
WEB = ObjectName("default", "web")
SHOP = ObjectName("default", "shop")
HTTP = ServicePort(name="http", protocol=Protocol.TCP, port=80)
SERVICE = Service(name=WEB, uid="1", cluster_ips=(CLUSTER_IP,), ports=(HTTP,))
OTHER = Service(name=SHOP, uid="2", cluster_ips=(parse_address("10.96.0.20"),), ports=(HTTP,))
ENDPOINT = Endpoint(parse_address("10.244.0.5"))
SLICE = EndpointSlice(
    name=ObjectName("default", "web-1"),
    service=WEB,
    family=Family.IPV4,
    uid="3",
    ports=(EndpointPort("http", Protocol.TCP, 8080),),
    endpoints=(ENDPOINT,),
)


@pytest.fixture
def state() -> ClusterState:
    """Return a state with two Services, one of which has a slice, and nothing dirty."""
    state = ClusterState(Settings(), NODE)
    for newest in (SERVICE, OTHER, SLICE):
        state.observe(newest)
    assert set(state.take_dirty()) == {WEB, SHOP}
    return state


def plan(state: ClusterState, name: ObjectName = WEB) -> ServicePlan:
    """Return the plan of a Service that exists."""
    found = state.plan(name)
    assert found is not None
    return found


def test_same_objects_again_change_nothing(state: ClusterState) -> None:
    """A relist that brings what is known already costs nothing."""
    for newest in (SERVICE, OTHER, SLICE, replace(SLICE, changed_at="2024-01-01T00:00:00Z")):
        state.observe(newest)
    state.set_node(NODE)
    state.set_settings(Settings())
    assert state.take_dirty() == ()


def test_slice_touches_its_service_only(state: ClusterState) -> None:
    """An endpoint change is one Service's business."""
    state.observe(replace(SLICE, endpoints=()))
    assert state.take_dirty() == (WEB,)
    assert state.take_dirty() == ()


def test_slice_that_moves_touches_both_services(state: ClusterState) -> None:
    """A slice that changes its Service leaves the old one."""
    state.observe(replace(SLICE, service=SHOP))
    assert set(state.take_dirty()) == {WEB, SHOP}
    assert not plan(state).ports[0].has_endpoints
    assert plan(state, SHOP).ports[0].has_endpoints


def test_slice_without_service_touches_nothing(state: ClusterState) -> None:
    """Slices may come before their Service."""
    state.observe(replace(SLICE, name=ObjectName("default", "new-1"), service=ObjectName("default", "new")))
    assert state.take_dirty() == ()


def test_no_plan_without_service(state: ClusterState) -> None:
    """A deleted Service is dirty once, and has no plan."""
    state.delete_service(WEB)
    assert state.take_dirty() == (WEB,)
    assert state.plan(WEB) is None
    assert set(state.services) == {SHOP}
    state.delete_service(WEB)
    assert state.take_dirty() == ()


def test_deletion_of_an_earlier_object_of_that_name_is_ignored(state: ClusterState) -> None:
    """Recreated under one name: the deletion of the old one may arrive after the new one."""
    state.observe(replace(SERVICE, uid="9"))
    state.observe(replace(SLICE, uid="8"))
    state.delete_service(WEB, uid="1")
    state.delete_endpoint_slice(SLICE.name, uid="3")
    assert plan(state).ports[0].has_endpoints
    state.delete_endpoint_slice(SLICE.name, uid="8")
    assert not plan(state).ports[0].has_endpoints
    state.delete_service(WEB, uid="9")
    assert state.plan(WEB) is None


def test_object_that_stops_counting_goes(state: ClusterState) -> None:
    """A Service that becomes headless, and a slice that loses its label, are gone."""
    state.observe(Ignored(kind="EndpointSlice", name=SLICE.name, reason="belongs to no Service"))
    assert state.take_dirty() == (WEB,)
    state.observe(Ignored(kind="Service", name=WEB, reason="is headless"))
    assert state.plan(WEB) is None


def test_zone_touches_services_with_zone_hints(state: ClusterState) -> None:
    """A zone label matters only to those whose endpoints have hints."""
    hinted = replace(SLICE, endpoints=(replace(ENDPOINT, zone_hints=("zone-b",)),))
    state.observe(hinted)
    state.take_dirty()
    state.set_node(replace(NODE, node=replace(NODE.node, zone="zone-b")))
    assert state.take_dirty() == (WEB,)


def test_node_name_touches_everything(state: ClusterState) -> None:
    """Which endpoints are local depends on this node's name."""
    state.set_node(replace(NODE, node=replace(NODE.node, name="another")))
    assert set(state.take_dirty()) == {WEB, SHOP}


def test_interface_address_touches_whose_cluster_ip_it_is(state: ClusterState) -> None:
    """Somebody binds a ClusterIP here: its Service is left alone as long as that lasts."""
    state.set_node(replace(NODE, interface_addresses=NODE.interface_addresses | {CLUSTER_IP}))
    assert state.take_dirty() == (WEB,)
    assert plan(state).excluded_addresses == (CLUSTER_IP,)
    assert plan(state).ports == ()
    state.set_node(NODE)
    assert state.take_dirty() == (WEB,)
    assert plan(state).excluded_addresses == ()
    assert len(plan(state).ports) == 1


def test_interface_address_of_a_pod_touches_nothing(state: ClusterState) -> None:
    """Addresses come and go on a busy node; most are nobody's frontend."""
    state.set_node(replace(NODE, interface_addresses=NODE.interface_addresses | {parse_address("10.244.0.1")}))
    assert state.take_dirty() == ()


def test_node_address_touches_services_with_node_ports(state: ClusterState) -> None:
    """NodePorts follow the node's addresses."""
    state.set_settings(Settings(node_port_addresses=(NodePortKeyword.ALL,)))
    state.observe(replace(SERVICE, ports=(replace(HTTP, node_port=30080),)))
    state.take_dirty()
    second = parse_address("198.51.100.10")
    state.set_node(replace(NODE, interface_addresses=NODE.interface_addresses | {second}))
    assert state.take_dirty() == (WEB,)
    assert {key.address for key, _ in plan(state).ports[0].frontends} == {CLUSTER_IP, NODE_IP, second}


def test_primary_address_touches_services_with_source_ranges(state: ClusterState) -> None:
    """Ranges that name this node allow its VIPs."""
    vip = parse_address("198.51.100.8")
    ranges = (parse_prefix("198.51.100.0/30"), parse_prefix("192.0.2.0/24"))
    state.observe(replace(SERVICE, load_balancer_ips=(vip,), source_ranges=ranges))
    state.take_dirty()
    assert plan(state).ports[0].source_ranges == (*ranges, parse_prefix("198.51.100.8/32"))
    state.set_node(replace(NODE, node=replace(NODE.node, addresses=(parse_address("203.0.113.1"),))))
    assert state.take_dirty() == (WEB,)
    assert plan(state).ports[0].source_ranges == ranges


def test_local_detection_touches_everything(state: ClusterState) -> None:
    """What is masqueraded depends on whether pods can be told from others, here by the node's podCIDRs."""
    state.set_settings(Settings(local_detection=LocalDetection.NODE_CIDR))
    state.take_dirty()
    assert not plan(state).ports[0].cluster_ip_rules[Source.OUTSIDE].masquerade
    state.set_node(replace(NODE, node=replace(NODE.node, pod_cidrs=(parse_prefix("10.244.0.0/24"),))))
    assert set(state.take_dirty()) == {WEB, SHOP}
    assert plan(state).ports[0].cluster_ip_rules[Source.OUTSIDE].masquerade


def test_duplicates_alike_are_settled_by_the_slices_names() -> None:
    """Which of two slices came first does not matter."""
    on_nodes = [
        replace(SLICE, name=ObjectName("default", f"web-{node}"), endpoints=(replace(ENDPOINT, node_name=node),))
        for node in ("other-node", "this-node")
    ]
    for order in (on_nodes, on_nodes[::-1]):
        state = ClusterState(Settings(), NODE)
        state.observe(SERVICE)
        for newest in order:
            state.observe(newest)
        assert plan(state).ports[0].cluster_set[0].node_name == "other-node"


def test_external_policy_counts_only_with_an_external_frontend(state: ClusterState) -> None:
    """A load balancer that has neither VIP nor NodePort yet has no use for a local set and for source ranges."""
    local = replace(SERVICE, external_policy=TrafficPolicy.LOCAL, source_ranges=(parse_prefix("203.0.113.0/24"),))
    state.observe(local)
    assert not plan(state).ports[0].external_local
    assert plan(state).ports[0].source_ranges is None
    state.observe(replace(local, load_balancer_ips=(parse_address("198.51.100.8"),)))
    assert plan(state).ports[0].external_local
    assert plan(state).ports[0].source_ranges == (parse_prefix("203.0.113.0/24"),)


def test_owner_that_goes_touches_the_next(state: ClusterState) -> None:
    """Both Services of a contested frontend are in one batch, so that it changes hands in it."""
    address = parse_address("198.51.100.7")
    state.observe(replace(SERVICE, external_ips=(address,), created="2024-01-01T00:00:00Z"))
    state.observe(replace(OTHER, external_ips=(address,), created="2024-02-01T00:00:00Z"))
    state.take_dirty()
    assert [problem for problem in plan(state, SHOP).problems if "belongs to Service default/web" in problem]
    state.delete_service(WEB)
    assert set(state.take_dirty()) == {WEB, SHOP}
    assert plan(state, SHOP).problems == ()
    assert address in {key.address for key, _ in plan(state, SHOP).ports[0].frontends}


def test_loser_that_comes_or_goes_touches_nobody_else(state: ClusterState) -> None:
    """Who asks in vain changes nothing for the owner."""
    address = parse_address("198.51.100.7")
    state.observe(replace(SERVICE, external_ips=(address,), created="2024-01-01T00:00:00Z"))
    state.take_dirty()
    state.observe(replace(OTHER, external_ips=(address,), created="2024-02-01T00:00:00Z"))
    assert state.take_dirty() == (SHOP,)
    state.delete_service(SHOP)
    assert state.take_dirty() == (SHOP,)


def test_of_unknown_age_is_the_oldest(state: ClusterState) -> None:
    """A Service of a manifest without creationTimestamp goes before one that has it, whatever their names."""
    address = parse_address("198.51.100.7")
    state.observe(replace(OTHER, external_ips=(address,), created="2024-01-01T00:00:00Z"))
    state.observe(replace(SERVICE, external_ips=(address,)))
    assert [one.key.address for one in plan(state).ports[0].frontends] == [CLUSTER_IP, address]
    assert "belongs to Service default/web" in plan(state, SHOP).problems[0]


def test_too_many_frontends_serve_none(state: ClusterState, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service that asks for an absurd number of frontends gets none, and a sentence."""
    monkeypatch.setattr(frontends, "MOST_FRONTENDS", 2)
    state.observe(replace(SERVICE, external_ips=(NODE_IP, parse_address("198.51.100.7"))))
    assert plan(state).ports == ()
    assert "make up to 3 frontends, of at most 2" in plan(state).problems[0]
    assert len(plan(state, SHOP).ports) == 1


def test_many_problems_are_counted(state: ClusterState) -> None:
    """A Service whose every port is wrong does not fill the log."""
    ports = tuple(ServicePort(name=f"port-{number}", protocol=Protocol.TCP, port=80) for number in range(1000))
    state.observe(replace(SERVICE, ports=ports))
    assert len(plan(state).problems) == MOST_PROBLEMS + 1
    assert plan(state).problems[-1] == "Service default/web: 989 more problems like these"


def test_too_many_endpoints_serve_none(state: ClusterState, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service with an absurd number of endpoints is not served, and a sentence says so."""
    monkeypatch.setattr(planner, "MOST_ENDPOINTS", 1)
    assert len(plan(state).ports) == 1
    state.observe(replace(SLICE, endpoints=(ENDPOINT, Endpoint(parse_address("10.244.0.6")))))
    assert plan(state).ports == ()
    assert "have 2 endpoints altogether, of at most 1" in plan(state).problems[0]
