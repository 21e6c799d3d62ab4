# SPDX-License-Identifier: Apache-2.0
"""Scenes: Services are reached, through every kind of frontend."""

from __future__ import annotations

from demo.show import (
    CLUSTER_IPV4,
    CLUSTER_IPV6,
    EXTERNAL_IP,
    LOAD_BALANCER_IP,
    NOBODY,
    NODE_PORT,
    SERVICE_PORT,
    STICKY,
    Show,
    show_peer,
)
from demo.world import NODE

SERVERS = {"web-1", "web-2", "web-3"}
_EACH = 100
"""Connections for each server."""


def before_the_agent(show: Show) -> None:
    """Show that nobody serves Services yet."""
    stage = show.stage
    stage.scene("A node and its pods, without any proxy")
    stage.did(f"{len(show.world.processes)} namespaces: a node and {len(NODE.pods)} pods, outside a machine and a pod")
    direct = show.world["client-1"].connect(NODE.pod_addresses("web-1")[0], 8080)
    stage.expect(direct.answers == {"web-1": 1}, "web-1 to answer on its own address", direct)
    through = show.world["client-1"].connect(CLUSTER_IPV4, SERVICE_PORT)
    stage.expect(through.errors and not through.answers, "no answer from a ClusterIP", through)
    stage.saw(f"pods reach each other; the ClusterIP {CLUSTER_IPV4} gives {', '.join(through.errors)}")


def cluster_ips(show: Show) -> None:
    """Show TCP and UDP, IPv4 and IPv6, spread over the endpoints."""
    stage = show.stage
    stage.scene("A pod reaches ClusterIPs: TCP, UDP, IPv4, IPv6, over three endpoints")
    count = _EACH * len(SERVERS)
    for protocol in ("tcp", "udp"):
        for address in (CLUSTER_IPV4, CLUSTER_IPV6):
            peer = show_peer(address, SERVICE_PORT)
            stage.did(f"client-1: {count} {protocol.upper()} connections to {peer}")
            seen = show.world["client-1"].connect(address, SERVICE_PORT, protocol=protocol, count=count)
            show.expect_spread(seen, SERVERS, peer)
            stage.saw(f"getpeername() says {peer}; {seen.microseconds:.0f} µs each (median)")
            stage.histogram(seen.answers)
    peer = show_peer(CLUSTER_IPV4, SERVICE_PORT)
    stage.did(f"client-1: one datagram to {peer} from an unconnected socket")
    seen = show.world["client-1"].ask_unconnected(CLUSTER_IPV4, SERVICE_PORT)
    stage.expect(seen.peers.keys() == {peer}, f"the answer to come from {peer}", seen)
    stage.saw(f"{', '.join(seen.answers)} answers; recvfrom() says it came from {peer}")


def external_frontends(show: Show) -> None:
    """Show NodePort, externalIP and load balancer address, from a pod, a process of the node and from outside."""
    stage = show.stage
    stage.scene("External frontends, from a pod, from a process of the node and from outside")
    kinds = (
        ("NodePort", NODE.ipv4, NODE_PORT),
        ("NodePort", NODE.ipv6, NODE_PORT),
        ("externalIP", EXTERNAL_IP, SERVICE_PORT),
        ("load balancer", LOAD_BALANCER_IP, SERVICE_PORT),
    )
    stage.did(f"{_EACH * len(SERVERS)} TCP connections to each; answers of {' + '.join(sorted(SERVERS))}")
    for kind, address, port in kinds:
        peer = show_peer(address, port)
        for source in ("client-1", "node"):
            seen = show.world[source].connect(address, port, count=_EACH * len(SERVERS))
            show.expect_spread(seen, SERVERS, peer)
            spread = " + ".join(str(seen.answers[name]) for name in sorted(SERVERS))
            stage.saw(f"{source:8} → {kind:13} {peer:22} {spread}")
    stage.did("the machine outside: the same to the NodePort; its packets are translated, not its sockets")
    for address in (NODE.ipv4, NODE.ipv6):
        peer = show_peer(address, NODE_PORT)
        seen = show.world["outside"].connect(address, NODE_PORT, count=_EACH * len(SERVERS))
        show.expect_spread(seen, SERVERS, peer)
        spread = " + ".join(str(seen.answers[name]) for name in sorted(SERVERS))
        stage.saw(f"{'outside':8} → {'NodePort':13} {peer:22} {spread}")


def refused(show: Show) -> None:
    """Show that a Service without endpoints refuses at once, as does a port that a ClusterIP does not have."""
    stage = show.stage
    stage.scene("A Service without endpoints, and a port that no Service has")
    for address, port in ((NOBODY, SERVICE_PORT), (CLUSTER_IPV4, 81)):
        stage.did(f"client-1: a connection to {show_peer(address, port)}")
        seen = show.world["client-1"].connect(address, port)
        stage.expect(seen.errors == {"ECONNREFUSED": 1}, "ECONNREFUSED", seen)
        stage.saw(f"ECONNREFUSED after {seen.microseconds:.0f} µs")


def affinity(show: Show) -> None:
    """Show session affinity: each client stays with one endpoint."""
    stage = show.stage
    stage.scene("sessionAffinity: ClientIP")
    for source in ("client-1", "client-2", "node"):
        seen = show.world[source].connect(STICKY, SERVICE_PORT, count=_EACH)
        stage.expect(len(seen.answers) == 1 and not seen.errors, "one and the same server", seen)
        stage.saw(f"{source:8} → {show_peer(STICKY, SERVICE_PORT)}: {_EACH} of {_EACH} from {', '.join(seen.answers)}")
