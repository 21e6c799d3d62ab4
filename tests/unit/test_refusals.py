# SPDX-License-Identifier: Apache-2.0
"""What the log says of a Service that does not fit: each reason once, and recovery only of what is served again."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from kubeproxy_ebpf.decode import decode_endpoint_slice, decode_service
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.layout.layout import Layout
from kubeproxy_ebpf.model.objects import Node, ObjectName
from kubeproxy_ebpf.model.settings import NodeState, Settings
from kubeproxy_ebpf.plan.cluster import ClusterState
from kubeproxy_ebpf.reconciler import Reconciler
from kubeproxy_ebpf.testing import SMALL, FakeMapStore

SIZES = {**SMALL, ArrayMap.BACKENDS: 8, HashMap.SOURCE_RANGES: 8}
WEB = ObjectName("shop", "web")


class Agent:
    """A reconciler on small maps, whose clock jumps to the next try."""

    def __init__(self) -> None:
        """Start with empty maps and no Services."""
        self.now = 0.0
        self.cluster = ClusterState(Settings(), NodeState(node=Node(name="this-node")))
        self.reconciler = Reconciler(
            cluster=self.cluster,
            layout=Layout(SIZES),
            store=FakeMapStore(SIZES),
            clock=lambda: self.now,
            start_grace_period=lambda: None,
        )

    def sync(self) -> list[tuple[str, str]]:
        """Write what changed and try again what failed; return the events logged of the Service, with their maps."""
        self.now += 60
        with capture_logs() as log:
            self.reconciler.sync()
            self.reconciler.readers_are_gone()
        return [(event["event"], event.get("map", "")) for event in log if event.get("service") == str(WEB)]

    def put(self, *, endpoints: int, ranges: int) -> None:
        """Give the Service that many endpoints and allowed sources."""
        metadata: dict[str, Any] = {"namespace": "shop", "name": "web"}
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": "10.96.0.1",
                "ports": [{"port": 80}],
                "loadBalancerSourceRanges": [f"10.0.{number}.0/24" for number in range(ranges)],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.8"}]}},
        }
        endpoint_slice = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080}],
            "endpoints": [{"addresses": [f"10.244.0.{number + 1}"]} for number in range(endpoints)],
        }
        self.cluster.observe(decode_service(service))
        self.cluster.observe(decode_endpoint_slice(endpoint_slice))


def test_each_reason_is_logged_once() -> None:
    """A Service that fits into one map and then not into another needs another remedy; a mere try is not logged."""
    agent = Agent()
    agent.put(endpoints=20, ranges=2)
    assert agent.sync() == [("service_not_served", "backends")]
    assert agent.sync() == []
    agent.put(endpoints=2, ranges=20)
    assert agent.sync() == [("service_not_served", "source_ranges")]
    assert agent.sync() == []
    agent.put(endpoints=2, ranges=2)
    assert agent.sync() == [("service_recovered", "")]
    agent.put(endpoints=20, ranges=2)
    assert agent.sync() == [("service_not_served", "backends")]


def test_a_deleted_service_does_not_recover() -> None:
    """A Service that is deleted while it waits for room is forgotten without a word of recovery."""
    agent = Agent()
    agent.put(endpoints=20, ranges=2)
    assert agent.sync() == [("service_not_served", "backends")]
    agent.cluster.delete_service(WEB)
    assert agent.sync() == []
    assert agent.reconciler.seconds_to_next() is None
