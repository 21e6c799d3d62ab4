# SPDX-License-Identifier: Apache-2.0
"""Pod networks as CNIs build them: a node and another one, a pod on each, routes between, and a firewall like theirs.

The nodes are joined by a device ``backbone`` already. Nothing here knows of Services.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.kernel.namespaces import Namespace, join

NETWORK = "10.0.0.0/8"
"""Of all pods."""
TUNNEL_MTU = 1450


@dataclass(frozen=True)
class CniNode:
    """A node, the pods' network on it, and its pod. Pods have the fifth address of their node's network."""

    host: Namespace
    address: str
    """Its own, on the backbone."""
    pods: str
    """The first three numbers of the network's addresses: ``10.1.0``."""
    pod: Namespace


def bridged(node: CniNode, other: CniNode) -> None:
    """Join the pod by a bridge, and route to the other node's pods by that node (the bridge plugin, kube-router)."""
    _bridge(node)
    node.host.ip(f"route add {other.pods}.0/24 via {other.address}")
    _masquerade(node, f"-s {NETWORK} ! -d {NETWORK} -j MASQUERADE")


def routed(node: CniNode, other: CniNode) -> None:
    """Give the pod a device and a route of its own, without a bridge (Calico, the ptp plugin, cloud CNIs)."""
    join(node.host, node.pod)
    node.host.ip(f"route add {other.pods}.0/24 via {other.address}")
    _masquerade(node, f"-s {NETWORK} ! -d {NETWORK} -j MASQUERADE")


def overlaid(node: CniNode, other: CniNode) -> None:
    """Join the pod by a bridge, and send to the other node's pods through a VXLAN tunnel, with flannel's rules."""
    _bridge(node, TUNNEL_MTU)
    mac = {one: f"02:00:00:00:02:{one.pods.split('.')[1].zfill(2)}" for one in (node, other)}
    node.host.ip(
        f"link add flannel.1 address {mac[node]} type vxlan "
        f"id 1 local {node.address} dev backbone dstport 8472 nolearning",
        f"address add {node.pods}.0/32 dev flannel.1",
        f"link set flannel.1 mtu {TUNNEL_MTU} up",
        f"neighbour add {other.pods}.0 lladdr {mac[other]} dev flannel.1",
        f"route add {other.pods}.0/24 via {other.pods}.0 dev flannel.1 onlink",
    )
    node.host.run("bridge", "fdb", "append", mac[other], "dev", "flannel.1", "dst", other.address)
    _masquerade(
        node,
        f"-s {NETWORK} -d {NETWORK} -j RETURN",
        f"-s {NETWORK} ! -d 224.0.0.0/4 -j MASQUERADE --random-fully",
        f"! -s {NETWORK} -d {node.pods}.0/24 -j RETURN",
        f"! -s {NETWORK} -d {NETWORK} -j MASQUERADE --random-fully",
    )


SHAPES: dict[str, Callable[[CniNode, CniNode], None]] = {
    "a bridge": bridged,
    "routed devices": routed,
    "an overlay": overlaid,
}


def build(shape: Callable[[CniNode, CniNode], None], node: CniNode, other: CniNode) -> None:
    """Build a pod network over both nodes, as strict as networks are."""
    for one, peer in ((node, other), (other, node)):
        one.host.sysctl("net.ipv4.ip_forward", 1)
        one.host.sysctl("net.ipv4.conf.all.rp_filter", 1)
        shape(one, peer)
        for rule in (
            "-P FORWARD DROP",
            "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
            f"-A FORWARD -s {NETWORK} -j ACCEPT",
            f"-A FORWARD -d {NETWORK} -j ACCEPT",
        ):
            one.host.run("iptables", *rule.split())


def _bridge(node: CniNode, mtu: int = 1500) -> None:
    node.host.ip(
        f"link add cni0 mtu {mtu} type bridge",
        f"address add {node.pods}.1/24 dev cni0",
        "link set cni0 up",
        f"link add port mtu {mtu} type veth peer name eth0 mtu {mtu} netns {node.pod.pid}",
        "link set port master cni0 up",
    )
    node.pod.ip(
        f"address add {node.pods}.5/24 dev eth0",
        "link set eth0 up",
        f"route add default via {node.pods}.1",
    )


def _masquerade(node: CniNode, *rules: str) -> None:
    for rule in rules:
        node.host.run("iptables", "-t", "nat", "-A", "POSTROUTING", *rule.split())
