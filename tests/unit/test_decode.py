# SPDX-License-Identifier: Apache-2.0
"""Raw objects to the model: what is read, what is left out and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubeproxy_ebpf.decode import ObjectError, decode_endpoint_slice, decode_node, decode_service, decode_service_cidr
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
from tests.raw_objects import NODE, SERVICE, SERVICE_CIDR, SLICE, changed

DECODERS = {"Service": decode_service, "EndpointSlice": decode_endpoint_slice, "Node": decode_node}


def test_service() -> None:
    """Every field of a Service that counts is read."""
    assert decode_service(SERVICE) == Service(
        name=ObjectName("shop", "web"),
        uid="1-2",
        created="2024-01-01T00:00:00Z",
        cluster_ips=(parse_address("10.96.0.10"), parse_address("fd00:10:96::10")),
        external_ips=(parse_address("198.51.100.7"),),
        load_balancer_ips=(parse_address("198.51.100.8"),),
        ports=(
            ServicePort(name="http", protocol=Protocol.TCP, port=80, node_port=30080),
            ServicePort(name="dns", protocol=Protocol.UDP, port=53),
        ),
        source_ranges=(parse_prefix("203.0.113.0/24"), parse_prefix("10.0.0.0/8")),
        internal_policy=TrafficPolicy.LOCAL,
        external_policy=TrafficPolicy.LOCAL,
        affinity_seconds=60,
        health_check_node_port=32000,
    )


def test_endpoint_slice() -> None:
    """Every field of an EndpointSlice that counts is read."""
    assert decode_endpoint_slice(SLICE) == EndpointSlice(
        name=ObjectName("shop", "web-x7k2p"),
        service=ObjectName("shop", "web"),
        family=Family.IPV4,
        uid="3-4",
        ports=(EndpointPort("http", Protocol.TCP, 8080),),
        endpoints=(
            Endpoint(
                address=parse_address("10.244.0.5"),
                ready=False,
                serving=True,
                terminating=True,
                node_name="this-node",
                node_hints=("this-node",),
                zone_hints=("zone-a",),
            ),
        ),
        changed_at="2024-01-01T00:00:01Z",
    )


def test_node() -> None:
    """Of a Node the internal addresses come first, whatever their order in the status."""
    assert decode_node(NODE) == Node(
        name="this-node",
        addresses=(parse_address("192.0.2.10"), parse_address("198.51.100.10")),
        zone="zone-a",
        pod_cidrs=(parse_prefix("10.244.0.0/24"), parse_prefix("fd00:10:244::/64")),
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.deletionTimestamp", "2024-01-01T00:00:00Z"),
        ("spec.taints", [{"key": "a"}, {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]),
    ],
)
def test_node_being_deleted(path: str, value: object) -> None:
    """A Node is on its way out with a deletionTimestamp or the autoscaler's taint, and with nothing else."""
    assert not decode_node(NODE).being_deleted
    assert decode_node(changed(NODE, path, value)).being_deleted


def test_node_with_a_single_pod_cidr() -> None:
    """PodCIDR counts where podCIDRs is absent."""
    node = decode_node(changed(NODE, "spec", {"podCIDR": "10.244.3.0/24"}))
    assert node.pod_cidrs == (parse_prefix("10.244.3.0/24"),)


def test_node_with_an_unusable_address_keeps_the_others() -> None:
    """One bad address is a problem of the Node, which is usable without it."""
    node = decode_node(changed(NODE, "status.addresses.2.address", "192.0.2"))
    assert node.addresses == (parse_address("198.51.100.10"),)
    assert node.problems == (
        "Node this-node: status.addresses[2].address is '192.0.2'; write an IP address such as 10.0.0.1 or fd00::1",
    )


def test_items_of_a_list_need_neither_kind_nor_namespace() -> None:
    """Items of a list carry no kind; a file may leave the namespace out."""
    raw = {"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}}
    service = decode_service(raw)
    assert isinstance(service, Service)
    assert service.name == ObjectName("default", "web")


def test_ignored_is_told_from_malformed() -> None:
    """What is none of a proxy's business is no error, and says why."""
    headless = decode_service(changed(SERVICE, "spec.clusterIP", "None"))
    assert headless == Ignored(kind="Service", name=ObjectName("shop", "web"), reason="is headless", uid="1-2")
    no_service = decode_endpoint_slice(changed(SLICE, "metadata.labels", {}))
    assert isinstance(no_service, Ignored)
    assert "belongs to no Service" in no_service.reason


def test_error_names_object_field_and_remedy() -> None:
    """An error can be acted on without looking at the code."""
    with pytest.raises(ObjectError) as caught:
        decode_service(changed(SERVICE, "spec.sessionAffinityConfig.clientIP", 5))
    assert str(caught.value) == "Service shop/web: spec.sessionAffinityConfig.clientIP is 5; write a mapping of fields"
    assert (caught.value.kind, caught.value.name) == ("Service", ObjectName("shop", "web"))
    assert caught.value.field == "spec.sessionAffinityConfig.clientIP"


@pytest.mark.parametrize(
    ("policy_of", "expected"),
    [
        ({"type": "ClusterIP", "externalIPs": []}, TrafficPolicy.CLUSTER),
        ({"type": "ClusterIP", "externalIPs": ["198.51.100.7"]}, TrafficPolicy.LOCAL),
        ({"type": "NodePort", "externalIPs": []}, TrafficPolicy.LOCAL),
        ({"type": "LoadBalancer", "externalIPs": []}, TrafficPolicy.LOCAL),
    ],
)
def test_external_policy_counts_only_for_what_is_external(policy_of: dict[str, Any], expected: TrafficPolicy) -> None:
    """ExternalTrafficPolicy Local says nothing about a Service without external frontends."""
    service = decode_service(changed(SERVICE, "spec", SERVICE["spec"] | policy_of))
    assert isinstance(service, Service)
    assert service.external_policy is expected


@pytest.mark.parametrize(
    "change",
    [{"type": "NodePort"}, {"externalTrafficPolicy": "Cluster"}, {"healthCheckNodePort": None}],
)
def test_health_check_node_port_needs_a_load_balancer_with_policy_local(change: dict[str, Any]) -> None:
    """A health check port left over from another type or policy does not count."""
    service = decode_service(changed(SERVICE, "spec", SERVICE["spec"] | change))
    assert isinstance(service, Service)
    assert service.health_check_node_port == 0


@pytest.mark.parametrize(
    ("raw", "path", "count"),
    [
        (SERVICE, "spec.ports", 10_001),
        (SERVICE, "spec.externalIPs", 1_001),
        (SERVICE, "spec.loadBalancerSourceRanges", 10_001),
        (SLICE, "endpoints", 10_001),
        (SLICE, "ports", 10_001),
    ],
)
def test_absurd_numbers_are_refused(raw: dict[str, Any], path: str, count: int) -> None:
    """A list beyond any use is refused as a whole, with its bound."""
    with pytest.raises(ObjectError, match=f"{path} has {count} entries; write at most {count - 1}"):
        DECODERS[raw["kind"]](changed(raw, path, [None] * count))


def test_texts_are_shared() -> None:
    """Names that come again and again are kept once, as a hundred thousand endpoints name few nodes."""
    first, second = (decode_endpoint_slice(copy.deepcopy(SLICE)) for _ in range(2))
    assert isinstance(first, EndpointSlice)
    assert isinstance(second, EndpointSlice)
    renamed = changed(SLICE, "endpoints.0.nodeName", b"this-node".decode())
    third = decode_endpoint_slice(renamed)
    assert isinstance(third, EndpointSlice)
    assert first.endpoints[0].node_name is second.endpoints[0].node_name is third.endpoints[0].node_name


def test_service_cidr() -> None:
    """Its ranges count; one that cannot be read is a problem of its own."""
    decoded = decode_service_cidr(SERVICE_CIDR)
    assert decoded.name == ObjectName("", "kubernetes")
    assert list(map(str, decoded.cidrs)) == ["10.96.0.0/12", "fd00:10:96::/112"]
    partly = decode_service_cidr(changed(SERVICE_CIDR, "spec.cidrs", ["10.96.0.0/12", "everything"]))
    assert list(map(str, partly.cidrs)) == ["10.96.0.0/12"]
    assert partly.problems == (
        "ServiceCIDR kubernetes: spec.cidrs[1] is 'everything'; write a CIDR such as 10.0.0.0/8 or fd00::/64",
    )
