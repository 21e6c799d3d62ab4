# SPDX-License-Identifier: Apache-2.0
"""TCP sockets and Services: where connections go, and what the socket sees."""

from __future__ import annotations

import socket

import pytest

from tests.kernel.programs.conftest import Node
from tests.kernel.programs.service_maps import (
    CLUSTER_IP,
    EXTERNAL_IP,
    EXTERNAL_LOCAL,
    HAS_ENDPOINTS,
    INTERNAL_LOCAL,
    LOAD_BALANCER,
    LOCALHOST_NODE_PORTS,
    NODE_PORT,
)
from tests.kernel.servers import family_of, tcp_ask

CLUSTER = "10.96.0.10"
CLUSTER_V6 = "fd00:96::10"


def names(address: str, port: int, count: int) -> set[str]:
    """Connect a number of times; return the servers that answered."""
    return {tcp_ask(address, port).split()[0] for _ in range(count)}


def peer_name(address: str, port: int, family: int | None = None) -> tuple[str, int]:
    """Connect and return what getpeername() says."""
    with socket.socket(family_of(address) if family is None else family) as client:
        client.connect((address, port))
        return client.getpeername()[:2]


def connect_error(address: str, port: int, bind: str = "") -> int:
    """Return connect()'s error number, 0 if it succeeds."""
    with socket.socket(family_of(address)) as client:
        client.settimeout(5)
        if bind:
            client.bind((bind, 0))
        return client.connect_ex((address, port))


@pytest.mark.parametrize(
    ("address", "endpoints"),
    [(CLUSTER, ("10.1.1.1", "10.1.1.2", "10.1.1.3")), (CLUSTER_V6, ("fd00:1::11", "fd00:1::12", "fd00:1::13"))],
)
def test_connections_spread_over_the_endpoints(node: Node, address: str, endpoints: tuple[str, ...]) -> None:
    """Every endpoint of a ClusterIP answers; the peer is the Service; each connection counts."""
    served = [node.serve_tcp(f"server{number}", endpoint) for number, endpoint in enumerate(endpoints)]
    service = node.maps.service(served)
    node.maps.frontend(service, address, 80)
    assert node.run(names, address, 80, 60) == {"server0", "server1", "server2"}
    assert node.run(peer_name, address, 80) == (address, 80)
    assert node.maps.count("service_counters")[service] == (61, 0)


def test_an_ipv6_socket_reaches_ipv4_services(node: Node) -> None:
    """A mapped address is the same Service, and shows as one that is mapped."""
    node.maps.frontend(node.maps.service([node.serve_tcp("server", "10.1.1.1")]), CLUSTER, 80)
    assert node.run(peer_name, f"::ffff:{CLUSTER}", 80) == (f"::ffff:{CLUSTER}", 80)
    assert node.run(names, f"::ffff:{CLUSTER}", 80, 1) == {"server"}


def test_a_name_that_was_forgotten_shows_the_endpoint(node: Node) -> None:
    """getpeername() never guesses: without its entry the truth is the endpoint."""
    endpoint = node.serve_tcp("server", "10.1.1.1")
    node.maps.frontend(node.maps.service([endpoint]), CLUSTER, 80)

    def forgotten() -> tuple[str, int]:
        with socket.create_connection((CLUSTER, 80), timeout=5) as client:
            node.maps.forget_peer_names()
            return client.getpeername()[:2]

    assert node.run(forgotten) == endpoint


def test_an_origin_that_changed_hands_is_nobodys_name(node: Node) -> None:
    """A connection outlives its Service; what is stored under the origin's id later is not its name."""
    endpoint = node.serve_tcp("server", "10.1.1.1")
    service = node.maps.service([endpoint])
    origin = node.maps.frontend(service, CLUSTER, 80)

    def outlived() -> list[tuple[str, int]]:
        with socket.create_connection((CLUSTER, 80), timeout=5) as client:
            seen = [client.getpeername()[:2]]
            node.maps.withdraw(origin, CLUSTER, 80)
            seen.append(client.getpeername()[:2])
            node.maps.write_origin(origin, service, "10.96.0.99", 80)
            return [*seen, client.getpeername()[:2]]

    assert node.run(outlived) == [(CLUSTER, 80), endpoint, endpoint]


def test_a_socket_that_connects_anew_has_a_new_name(node: Node) -> None:
    """After AF_UNSPEC a socket may connect to something else; the old name is not for that."""
    endpoint = node.serve_tcp("server", "10.1.1.1")
    other = node.serve_tcp("other", "10.1.1.2")
    node.maps.frontend(node.maps.service([endpoint]), CLUSTER, 80)

    def again() -> tuple[str, int]:
        with socket.socket() as client:
            client.connect((CLUSTER, 80))
            disconnect(client)
            client.connect(other)
            return client.getpeername()

    assert node.run(again) == other


def disconnect(client: socket.socket) -> None:
    """Connect to AF_UNSPEC, which ends a connection and keeps the socket."""
    import ctypes  # noqa: PLC0415 -- the socket module has no way to say it

    assert ctypes.CDLL(None, use_errno=True).connect(client.fileno(), bytes(16), 16) == 0


def test_data_may_come_with_the_connection(node: Node) -> None:
    """sendto() with MSG_FASTOPEN connects, too."""
    node.maps.frontend(node.maps.service([node.serve_tcp("server", "10.1.1.1")]), CLUSTER, 80)

    def fast() -> tuple[tuple[str, int], bytes]:
        with socket.socket() as client:
            client.sendto(b"?\n", socket.MSG_FASTOPEN, (CLUSTER, 80))
            return client.getpeername(), client.recv(1000).split()[0]

    assert node.run(fast) == ((CLUSTER, 80), b"server")


@pytest.mark.parametrize("kind", [EXTERNAL_IP, LOAD_BALANCER, NODE_PORT])
def test_every_kind_of_frontend_is_served(node: Node, kind: int) -> None:
    """External addresses and NodePorts too; from this node externalTrafficPolicy Local makes no difference."""
    remote = node.serve_tcp("remote", "10.1.1.1")
    service = node.maps.service([remote], local=[], flags=EXTERNAL_LOCAL | HAS_ENDPOINTS)
    node.maps.frontend(service, "192.0.2.7", 30080, kind=kind)
    assert node.run(names, "192.0.2.7", 30080, 3) == {"remote"}


def test_internal_local_uses_this_nodes_endpoints(node: Node) -> None:
    """Of the ClusterIP; the service's external addresses are not concerned."""
    near, far = node.serve_tcp("near", "10.1.1.1"), node.serve_tcp("far", "10.1.1.2")
    service = node.maps.service([near, far], local=[near], flags=INTERNAL_LOCAL | HAS_ENDPOINTS)
    node.maps.frontend(service, CLUSTER, 80, kind=CLUSTER_IP)
    node.maps.frontend(service, "192.0.2.7", 80, kind=EXTERNAL_IP)
    assert node.run(names, CLUSTER, 80, 30) == {"near"}
    assert node.run(names, "192.0.2.7", 80, 30) == {"near", "far"}


def test_an_endpoint_change_holds_from_the_next_connection(node: Node) -> None:
    """New sets are used at once; connections that exist go on."""
    old, new = node.serve_tcp("old", "10.1.1.1"), node.serve_tcp("new", "10.1.1.2")
    service = node.maps.service([old])
    node.maps.frontend(service, CLUSTER, 80)

    def across() -> tuple[set[str], bytes]:
        with socket.create_connection((CLUSTER, 80), timeout=5) as client:
            client.recv(100)
            node.maps.publish(service, [new])
            later = names(CLUSTER, 80, 20)
            client.sendall(b"still there")
            return later, client.recv(100)

    assert node.run(across) == ({"new"}, b"still there")


def test_what_is_no_services_is_untouched(node: Node) -> None:
    """Pod addresses, and other ports of external addresses and nodes: they are whoever's listens there."""
    direct = node.serve_tcp("direct", "10.1.1.1")
    node.maps.frontend(node.maps.service([("10.1.1.9", 1)]), direct[0], 81, kind=EXTERNAL_IP)
    assert node.run(names, *direct, 1) == {"direct"}
    assert node.run(peer_name, *direct) == direct
    assert node.maps.count("service_counters") == {}
    assert node.maps.count("reason_counters") == {}


def test_excluded_addresses_are_untouched(node: Node) -> None:
    """An address that opted out, and a CIDR that did, inside the service CIDR."""
    for address in ("10.96.0.50", "10.96.1.50"):
        node.serve_tcp(address, address)
    node.maps.settings(service_cidrs=["10.96.0.0/16"], excluded_cidrs=["10.96.1.0/24"])
    node.maps.address("10.96.0.50", 8)
    assert node.run(names, "10.96.0.50", 8080, 1) == {"10.96.0.50"}
    assert node.run(names, "10.96.1.50", 8080, 1) == {"10.96.1.50"}


def test_localhost_has_node_ports_where_it_is_said(node: Node) -> None:
    """127.0.0.0/8 stands for 127.0.0.1 in the host's namespace, with the flag; a pod's loopback is its own."""
    node.maps.frontend(node.maps.service([node.serve_tcp("server", "10.1.1.1")]), "127.0.0.1", 30080, kind=NODE_PORT)
    host, pod = (node.run(netns_cookie, namespace=namespace) for namespace in (node.host, node.client))
    node.host.run("ip", "address", "add", "10.1.0.1/32", "dev", "lo")
    assert host != pod
    node.maps.settings(flags=LOCALHOST_NODE_PORTS, host_netns_cookie=host)
    for address in ("127.0.0.1", "127.3.2.1", "::ffff:127.0.0.1"):
        assert node.run(names, address, 30080, 1, namespace=node.host) == {"server"}
        assert node.run(connect_error, address, 30080) == 111
    node.maps.settings(host_netns_cookie=host)
    assert node.run(connect_error, "127.0.0.1", 30080, namespace=node.host) == 111


def netns_cookie() -> int:
    """Return the namespace's cookie."""
    from kubeproxy_ebpf.datapath.netns_cookie import host_netns_cookie  # noqa: PLC0415 -- in the child only

    return host_netns_cookie()


IPPROTO_MPTCP = 262


@pytest.mark.parametrize(("address", "endpoint"), [(CLUSTER, "10.1.1.1"), (CLUSTER_V6, "fd00:1::11")])
def test_multipath_tcp_is_tcp(node: Node, address: str, endpoint: str) -> None:
    """Its sockets reach TCP Services, and see them as their peers; also where the kernel asks for their subflows."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError:
        pytest.skip("kernel: no multipath TCP")
    node.maps.frontend(node.maps.service([node.serve_tcp("server", endpoint)]), address, 80)

    def multipath() -> tuple[str, tuple[str, int]]:
        with socket.socket(family_of(address), socket.SOCK_STREAM, IPPROTO_MPTCP) as client:
            client.settimeout(5)
            client.connect((address, 80))
            return client.recv(100).decode().split()[0], client.getpeername()[:2]

    assert node.run(multipath) == ("server", (address, 80))
