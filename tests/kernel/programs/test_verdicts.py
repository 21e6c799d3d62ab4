# SPDX-License-Identifier: Apache-2.0
"""Refusals: which error a socket gets for which reason, in both forms, and that each is counted."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest

from kubeproxy_ebpf.datapath.verdict_form import VerdictForm, probe_verdict_form
from tests.kernel.programs.conftest import Node
from tests.kernel.programs.service_maps import (
    EXTERNAL_IP,
    HAS_ENDPOINTS,
    INTERNAL_LOCAL,
    LOAD_BALANCER,
    NODE_PORT,
    SOURCE_RANGES,
    UDP,
)
from tests.kernel.programs.test_tcp import connect_error, netns_cookie
from tests.kernel.servers import family_of, tcp_ask

CLUSTER = "10.96.0.10"
NO_ENDPOINTS, NO_LOCAL_ENDPOINTS, SOURCE_NOT_ALLOWED, UNKNOWN_PORT, UNALLOCATED, LOOPBACK_SOURCE = range(1, 7)
FORMS = [form for form in VerdictForm if form <= probe_verdict_form()]
DROPPED = {VerdictForm.RETVAL: errno.ETIMEDOUT, VerdictForm.LOOPBACK: errno.EPERM}
DROPPED_HERE = DROPPED[probe_verdict_form()]
ADDRESSES = ["10.96.0.10", "::ffff:10.96.0.10", "fd00:96::10"]


def send_error(address: str, port: int) -> int:
    """Return the error number of a datagram sent without connect(), 0 if it went."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as client:
        try:
            client.sendto(b"?", (address, port))
        except OSError as error:
            return error.errno or -1
        return 0


def datagram_error(address: str, port: int) -> int:
    """Return the error number that a connected datagram socket meets, at the latest when it waits for an answer."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        try:
            client.connect((address, port))
            client.send(b"?")
            client.recv(1)
        except OSError as error:
            return error.errno or -1
        return 0


@pytest.fixture(params=FORMS, ids=lambda form: form.name.lower())
def form(request: pytest.FixtureRequest) -> VerdictForm:
    """Return each form of refusal that this kernel can do."""
    return VerdictForm(request.param)


@pytest.fixture
def refusing(form: VerdictForm, make_node: Callable[..., Node]) -> Node:
    """Return a node that refuses in that form."""
    return make_node(verdict_form=int(form))


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_service_without_endpoints_refuses(refusing: Node, address: str) -> None:
    """ECONNREFUSED at once for TCP and connected UDP, in every form; counted for the service and the reason."""
    service = refusing.maps.service()
    unmapped = address.removeprefix("::ffff:")
    refusing.maps.frontend(service, unmapped, 80)
    refusing.maps.frontend(service, unmapped, 53, UDP)
    assert refusing.run(connect_error, address, 80) == errno.ECONNREFUSED
    assert refusing.run(datagram_error, address, 53) == errno.ECONNREFUSED
    assert refusing.maps.count("service_counters") == {service: (0, 2)}
    assert refusing.maps.count("reason_counters") == {NO_ENDPOINTS: (2,)}


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_refused_datagram_says_so_where_the_kernel_can(refusing: Node, form: VerdictForm, address: str) -> None:
    """sendto() without connect(): the error, or a closed port, of which such a socket hears nothing."""
    refusing.maps.frontend(refusing.maps.service(), address.removeprefix("::ffff:"), 53, UDP)
    expected = errno.ECONNREFUSED if form is VerdictForm.RETVAL else 0
    assert refusing.run(send_error, address, 53) == expected
    assert refusing.maps.count("reason_counters") == {NO_ENDPOINTS: (1,)}


@pytest.mark.parametrize("kind", [EXTERNAL_IP, LOAD_BALANCER, NODE_PORT])
def test_external_frontends_without_endpoints_refuse(refusing: Node, kind: int) -> None:
    """As ClusterIPs do."""
    refusing.maps.frontend(refusing.maps.service(), "192.0.2.7", 30080, kind=kind)
    assert refusing.run(connect_error, "192.0.2.7", 30080) == errno.ECONNREFUSED


def test_policy_local_without_local_endpoints_drops(refusing: Node, form: VerdictForm) -> None:
    """Endpoints only elsewhere: nothing is sent, and the caller does not wait."""
    service = refusing.maps.service([("10.1.1.1", 80)], flags=INTERNAL_LOCAL | HAS_ENDPOINTS)
    refusing.maps.frontend(service, CLUSTER, 80)
    refusing.maps.frontend(service, CLUSTER, 53, UDP)
    assert refusing.run(connect_error, CLUSTER, 80) == DROPPED[form]
    assert refusing.run(send_error, CLUSTER, 53) == DROPPED[form]
    assert refusing.maps.count("reason_counters") == {NO_LOCAL_ENDPOINTS: (2,)}


@pytest.mark.parametrize("address", ["10.96.0.10", "fd00:96::10", "10.200.0.1"])
def test_an_unknown_port_of_a_cluster_ip_is_refused(refusing: Node, address: str) -> None:
    """Also of one outside the service CIDRs, and for the other protocol."""
    refusing.maps.frontend(refusing.maps.service([("10.1.1.1", 80)]), address, 80)
    assert refusing.run(connect_error, address, 81) == errno.ECONNREFUSED
    assert refusing.run(datagram_error, address, 80) == errno.ECONNREFUSED
    assert refusing.maps.count("reason_counters") == {UNKNOWN_PORT: (2,)}


@pytest.mark.parametrize("address", ["10.96.77.1", "::ffff:10.96.77.1", "fd00:96::77"])
def test_an_unallocated_service_address_drops(refusing: Node, form: VerdictForm, address: str) -> None:
    """In a service CIDR, nobody's."""
    assert refusing.run(connect_error, address, 80) == DROPPED[form]
    assert refusing.run(send_error, address, 80) == DROPPED[form]
    assert refusing.maps.count("reason_counters") == {UNALLOCATED: (2,)}


def test_source_ranges_drop_other_sources(refusing: Node, form: VerdictForm) -> None:
    """The pod's own address counts, by its namespace; only load balancer addresses are guarded, endpoints or not."""
    server = refusing.serve_tcp("server", "10.1.1.1")
    service = refusing.maps.service([server], flags=SOURCE_RANGES | HAS_ENDPOINTS)
    empty = refusing.maps.service(flags=SOURCE_RANGES)
    refusing.maps.frontend(service, "192.0.2.7", 80, kind=LOAD_BALANCER)
    refusing.maps.frontend(empty, "192.0.2.8", 80, kind=LOAD_BALANCER)
    refusing.maps.frontend(service, "192.0.2.9", 80, kind=EXTERNAL_IP)
    refusing.maps.allow_source(service, "10.1.9.0/24")
    refusing.maps.allow_source(empty, "10.1.9.0/24")
    allowed = refusing.make_pod("allowed", "10.1.9.1")
    assert refusing.run(tcp_ask, "192.0.2.7", 80, namespace=allowed).startswith("server")
    assert refusing.run(connect_error, "192.0.2.8", 80, namespace=allowed) == errno.ECONNREFUSED
    assert refusing.run(connect_error, "192.0.2.7", 80) == DROPPED[form]
    assert refusing.run(connect_error, "192.0.2.8", 80) == DROPPED[form]
    assert refusing.run(connect_error, "192.0.2.9", 80) == 0
    assert refusing.maps.count("reason_counters") == {NO_ENDPOINTS: (1,), SOURCE_NOT_ALLOWED: (2,)}


def test_the_source_is_the_sockets_own(node: Node) -> None:
    """A bound address; else the first global one that is up, not deprecated, not a link's, not loopback's."""
    for vip, endpoint in (("192.0.2.7", "10.1.1.1"), ("2001:db8::7", "fd00:1::11")):
        service = node.maps.service([node.serve_tcp(vip, endpoint)], flags=SOURCE_RANGES | HAS_ENDPOINTS)
        node.maps.frontend(service, vip, 80, kind=LOAD_BALANCER)
        for cidr in ("10.1.9.0/24", "fd00:9::/64"):
            node.maps.allow_source(service, cidr)
    pod = node.make_pod("pod", "10.1.8.1", "10.1.9.1", "fd00:8::1", "fd00:9::1")
    for vip, other, good in (("192.0.2.7", "10.1.8.1", "10.1.9.1"), ("2001:db8::7", "fd00:8::1", "fd00:9::1")):
        assert node.run(connect_error, vip, 80, good, namespace=pod) == 0
        assert node.run(connect_error, vip, 80, other, namespace=pod) == DROPPED_HERE
    # IPv4 addresses are asked in the order of addition, IPv6 ones in the reverse.
    pod.run("ip", "address", "delete", "10.1.8.1/32", "dev", "eth0")
    pod.run("ip", "address", "change", "fd00:8::1/128", "dev", "eth0", "preferred_lft", "0")
    assert node.run(connect_error, "192.0.2.7", 80, namespace=pod) == 0
    assert node.run(connect_error, "::ffff:192.0.2.7", 80, namespace=pod) == 0
    assert node.run(connect_error, "2001:db8::7", 80, namespace=pod) == 0
    pod.run("ip", "address", "change", "fd00:9::1/128", "dev", "eth0", "preferred_lft", "0")
    assert node.run(connect_error, "2001:db8::7", 80, namespace=pod) == DROPPED_HERE


def test_the_socket_keeps_the_namespace_it_was_made_in(node: Node) -> None:
    """A task may move on, and hand sockets over; what counts is where the socket is."""
    service = node.maps.service([node.serve_tcp("server", "10.1.1.1")], flags=SOURCE_RANGES | HAS_ENDPOINTS)
    node.maps.frontend(service, "192.0.2.7", 80, kind=LOAD_BALANCER)
    node.maps.allow_source(service, "10.1.0.2/32")
    elsewhere = node.make_pod("elsewhere", "10.1.9.1")

    def moved() -> int:
        with socket.socket() as client:
            elsewhere.enter()
            return client.connect_ex(("192.0.2.7", 80))

    assert node.run(moved) == 0
    assert node.run(connect_error, "192.0.2.7", 80, namespace=elsewhere) == DROPPED_HERE


def test_the_hosts_source_is_the_published_one(node: Node) -> None:
    """The host's namespace has many addresses; which one is preferred, user space knows."""
    service = node.maps.service([node.serve_tcp("server", "10.1.1.1")], flags=SOURCE_RANGES | HAS_ENDPOINTS)
    node.maps.frontend(service, "192.0.2.7", 80, kind=LOAD_BALANCER)
    node.maps.allow_source(service, "10.1.7.0/24")
    for address in ("10.1.7.1", "10.1.6.1"):
        node.host.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    cookie = node.run(netns_cookie, namespace=node.host)
    node.maps.settings(host_netns_cookie=cookie, host_sources=("10.1.7.1", "::"))
    assert node.run(connect_error, "192.0.2.7", 80, namespace=node.host) == 0
    assert node.run(connect_error, "192.0.2.7", 80) == DROPPED_HERE
    node.maps.settings(host_netns_cookie=cookie, host_sources=("10.1.6.1", "::"))
    assert node.run(connect_error, "192.0.2.7", 80, namespace=node.host) == DROPPED_HERE


@pytest.mark.parametrize(("vip", "loopback"), [("10.96.0.10", "127.0.0.1"), ("fd00:96::10", "::1")])
def test_a_socket_bound_to_loopback_reaches_only_loopback(refusing: Node, vip: str, loopback: str) -> None:
    """A pod's endpoint would be EINVAL: it is a refusal with a reason, unless some endpoint can be reached."""
    away = ("10.1.1.1", 80) if vip == CLUSTER else ("fd00:1::11", 80)
    service = refusing.maps.service([away])
    refusing.maps.frontend(service, vip, 80)
    assert refusing.run(connect_error, vip, 80, loopback) == errno.ECONNREFUSED
    assert refusing.maps.count("reason_counters") == {LOOPBACK_SOURCE: (1,)}

    def served() -> set[int]:
        with socket.create_server((loopback, 8080), family=family_of(loopback)) as _server:
            return {connect_error(vip, 80, loopback) for _ in range(20)}

    refusing.maps.publish(service, [away, (loopback, 8080)])
    assert refusing.run(served) == {0}


def test_loopback_reaches_the_nodes_own_addresses(node: Node) -> None:
    """From the host's namespace, a hostNetwork endpoint on this node; no other namespace's loopback does."""
    node.host.run("ip", "address", "add", "10.1.7.1/32", "dev", "lo")
    node.maps.frontend(node.maps.service([("10.1.7.1", 8080), ("10.1.1.1", 80)]), CLUSTER, 80)
    cookie = node.run(netns_cookie, namespace=node.host)
    node.maps.settings(host_netns_cookie=cookie, host_sources=("10.1.7.1", "::"))

    def served() -> set[int]:
        with socket.create_server(("10.1.7.1", 8080)) as _server:
            return {connect_error(CLUSTER, 80, "127.0.0.1") for _ in range(20)}

    assert node.run(served, namespace=node.host) == {0}
    assert node.run(connect_error, CLUSTER, 80, "127.0.0.1") == errno.ECONNREFUSED
