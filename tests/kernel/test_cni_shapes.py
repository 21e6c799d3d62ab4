# SPDX-License-Identifier: Apache-2.0
"""Clients outside, on nodes whose pods are joined as CNIs join them: strict rp_filter, conntrack, firewall, masquerade.

Endpoints are pods here and on another node. The agent is the real one, and finds out where its programs belong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel import cni
from tests.kernel.agent_process import AgentProcess, Manifests, endpoint_slice, node, service
from tests.kernel.cni import CniNode
from tests.kernel.namespaces import Namespace, join_by
from tests.kernel.processes import run_in
from tests.kernel.scratch import Starter
from tests.kernel.servers import tcp_ask, tcp_server, udp_ask, udp_server
from tests.kernel.transfers import digest_of, exchange

NODE, CLIENT = "192.0.2.1", "192.0.2.2"
BACKBONE, OTHER = "198.51.100.1", "198.51.100.2"
POD_HERE, POD_THERE = "10.1.0.5", "10.2.0.5"
NODE_PORTS = {"here": 30080, "elsewhere": 30081}
SIZE = 5_000_000
pytestmark = [
    pytest.mark.parametrize("shape", cni.SHAPES.values(), ids=cni.SHAPES.keys()),
    pytest.mark.usefixtures("agent"),
]


@pytest.fixture
def client(
    shape: Callable[[CniNode, CniNode], None],
    node_namespace: Namespace,
    make_namespace: Callable[..., Namespace],
    background: Starter,
) -> Namespace:
    """Return a client outside the node, which has a pod with servers in it, as has another node."""
    outside, other = make_namespace("client"), make_namespace("other")
    join_by(node_namespace, outside, "uplink", NODE, CLIENT)
    join_by(node_namespace, other, "backbone", BACKBONE, OTHER)
    pods = {address: make_namespace("pod", address) for address in (POD_HERE, POD_THERE)}
    here = CniNode(node_namespace, BACKBONE, "10.1.0", pods[POD_HERE])
    there = CniNode(other, OTHER, "10.2.0", pods[POD_THERE])
    cni.build(shape, here, there)
    for address, pod in pods.items():
        background(pod, None, tcp_server, "pod", address, 8080)
        background(pod, None, udp_server, "pod", address, 8080)
    return outside


@pytest.fixture
def agent(
    client: Namespace, node_namespace: Namespace, scratch_cgroup: Path, bpffs: Path, tmp_path: Path
) -> Iterator[AgentProcess]:
    """Run the node's agent, with a Service whose endpoint is here and one whose endpoint is elsewhere."""
    assert client
    manifests = Manifests(tmp_path)
    manifests.write("node.yaml", node(NODE))
    for number, (name, address) in enumerate({"here": POD_HERE, "elsewhere": POD_THERE}.items()):
        ports = [
            {"name": protocol.lower(), "protocol": protocol, "port": 80, "nodePort": NODE_PORTS[name]}
            for protocol in ("TCP", "UDP")
        ]
        endpoints = endpoint_slice(name, [address])
        if name == "elsewhere":
            endpoints["endpoints"][0]["nodeName"] = "other"
        endpoints["ports"] = [
            {"name": protocol.lower(), "protocol": protocol, "port": 8080} for protocol in ("TCP", "UDP")
        ]
        manifests.write(
            f"{name}.yaml", service(name, f"10.96.0.{10 + number}", type="NodePort", ports=ports), endpoints
        )
    process = AgentProcess(node_namespace, scratch_cgroup, bpffs, manifests, tmp_path / "agent.log")
    process.start()
    yield process
    process.kill()
    sys.stdout.write(process.log.read_text())


def seen_client(greeting: str) -> str:
    """Return whom a server saw."""
    name, address, _ = greeting.split()
    assert name == "pod"
    return address


@pytest.mark.parametrize("ask", [tcp_ask, udp_ask], ids=["TCP", "UDP"])
def test_an_endpoint_here_sees_the_client(client: Namespace, ask: Callable[[str, int], str]) -> None:
    """Its own address, whatever the CNI masquerades."""
    for _ in range(3):
        assert seen_client(run_in(client, None, ask, NODE, NODE_PORTS["here"])) == CLIENT


@pytest.mark.parametrize("ask", [tcp_ask, udp_ask], ids=["TCP", "UDP"])
def test_an_endpoint_elsewhere_sees_this_node(
    client: Namespace, shape: Callable[[CniNode, CniNode], None], ask: Callable[[str, int], str]
) -> None:
    """By the address of the device that leads there, which a tunnel's is."""
    expected = "10.1.0.0" if shape is cni.overlaid else BACKBONE
    for _ in range(3):
        assert seen_client(run_in(client, None, ask, NODE, NODE_PORTS["elsewhere"])) == expected


@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_nothing_of_a_large_transfer_is_lost(client: Namespace, place: str) -> None:
    """Both ways at once, through a narrower tunnel, too."""
    assert run_in(client, None, exchange, NODE, NODE_PORTS[place], SIZE) == digest_of(SIZE)
