# SPDX-License-Identifier: Apache-2.0
"""A node's interfaces, addresses, routes, sources and cookie are what the kernel has, and changes are noticed."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath import netns_cookie
from kubeproxy_ebpf.datapath.network import IPVS_DEVICE, NetworkMonitor
from kubeproxy_ebpf.model.address import format_address
from kubeproxy_ebpf.model.network import NodeAddresses, NodeNetwork
from tests.kernel.namespaces import Namespace
from tests.kernel.processes import run_in
from tests.kernel.scratch import Starter


def read_network() -> NodeNetwork:
    """Return what this namespace has."""
    with closing(NetworkMonitor()) as monitor:
        return monitor.read()


def read_once() -> NodeAddresses:
    """Return this namespace's addresses."""
    return read_network().addresses


def texts(addresses: NodeAddresses) -> set[str]:
    """Return the addresses but for link-local ones, which differ from run to run."""
    return {text for text in map(format_address, addresses.interface_addresses) if not text.startswith("fe80:")}


def add_device(node: Namespace, name: str, *addresses: str) -> None:
    """Add a device with addresses."""
    node.run("ip", "link", "add", name, "type", "bridge")
    node.run("ip", "link", "set", name, "up")
    for address in addresses:
        node.run("ip", "address", "add", address, "dev", name, *(("nodad",) if ":" in address else ()))


def test_addresses_of_all_interfaces_but_ipvs(node_namespace: Namespace) -> None:
    """Primary, secondary and loopback addresses count; those that IPVS holds for Services do not."""
    add_device(node_namespace, "net0", "192.0.2.10/24", "192.0.2.11/24", "2001:db8::10/64")
    add_device(node_namespace, IPVS_DEVICE, "10.96.0.1/32", "fd00:10:96::1/128")
    assert texts(run_in(node_namespace, None, read_once)) == {
        "127.0.0.1",
        "::1",
        "192.0.2.10",
        "192.0.2.11",
        "2001:db8::10",
    }


def test_address_of_the_other_end_is_not_ours(node_namespace: Namespace) -> None:
    """On a point-to-point link the own address counts."""
    add_device(node_namespace, "ppp0")
    node_namespace.run("ip", "address", "add", "192.0.2.1", "peer", "192.0.2.2", "dev", "ppp0")
    assert "192.0.2.1" in texts(run_in(node_namespace, None, read_once))
    assert "192.0.2.2" not in texts(run_in(node_namespace, None, read_once))


def test_more_addresses_than_one_message_holds(node_namespace: Namespace, tmp_path: Path) -> None:
    """The kernel answers in as many pieces as it needs."""
    add_device(node_namespace, "net0")
    wanted = {f"192.0.2.{host}" for host in range(1, 255)} | {f"198.51.100.{host}" for host in range(1, 255)}
    wanted |= {f"203.0.113.{host}" for host in range(1, 255)}
    batch = tmp_path / "addresses"
    batch.write_text("".join(f"address add {address}/24 dev net0\n" for address in sorted(wanted)))
    node_namespace.run("ip", "-batch", str(batch))
    assert texts(run_in(node_namespace, None, read_once)) == {"127.0.0.1", "::1"} | wanted


def test_preferred_source_follows_the_default_route(node_namespace: Namespace) -> None:
    """The source is what the route says, not the first address; without any route the first global one."""
    add_device(node_namespace, "net0", "192.0.2.10/24", "192.0.2.11/24", "2001:db8::10/64")
    before = run_in(node_namespace, None, read_once)
    assert before.source_ipv4 is not None
    assert format_address(before.source_ipv4) == "192.0.2.10"
    node_namespace.run("ip", "route", "add", "default", "via", "192.0.2.254", "src", "192.0.2.11")
    after = run_in(node_namespace, None, read_once)
    assert after.source_ipv4 is not None
    assert after.source_ipv6 is not None
    assert format_address(after.source_ipv4) == "192.0.2.11"
    assert format_address(after.source_ipv6) == "2001:db8::10"


def test_family_without_addresses_has_no_source(node_namespace: Namespace) -> None:
    """Loopback's addresses are no sources for others."""
    addresses = run_in(node_namespace, None, read_once)
    assert (addresses.source_ipv4, addresses.source_ipv6) == (None, None)


def test_interfaces_tell_their_link_layer_and_addresses(node_namespace: Namespace) -> None:
    """Ethernet or none; loopback; which addresses new connections come from."""
    add_device(node_namespace, "net0", "192.0.2.10/24", "192.0.2.11/24", "2001:db8::10/64")
    node_namespace.run("ip", "address", "add", "2001:db8::11/64", "dev", "net0", "preferred_lft", "0")
    node_namespace.run("ip", "tuntap", "add", "tunnel0", "mode", "tun")
    interfaces = {one.name: one for one in run_in(node_namespace, None, read_network).interfaces}
    assert {name: one.has_ethernet for name, one in interfaces.items() if name in {"net0", "tunnel0"}} == {
        "net0": True,
        "tunnel0": False,
    }
    assert [name for name, one in interfaces.items() if one.is_loopback] == ["lo"]
    found = {format_address(one.address): one for one in interfaces["net0"].addresses}
    preferred = {address: one.is_preferred for address, one in found.items() if one.is_global}
    expected = {"192.0.2.10": True, "192.0.2.11": False, "2001:db8::10": True, "2001:db8::11": False}
    assert preferred == expected


ROUTES = {
    "198.51.100.0/24 via 192.0.2.1": [("net0", 24, True)],
    "198.51.100.5 dev net1": [("net1", 32, False)],
    "default via 192.0.2.1": [("net0", 0, True)],
    "default nexthop via 192.0.2.1 nexthop via 192.0.3.1": [("net0", 0, True), ("net1", 0, True)],
    "198.51.100.0/25 nexthop dev net1 nexthop via 192.0.2.1": [("net1", 25, False), ("net0", 25, True)],
    "198.51.100.0/24 via 192.0.2.1 table 77": [("net0", 24, True)],
    "198.51.100.0/24 via inet6 fe80::1 dev net1": [("net1", 24, True)],
    "2001:db8:1::/64 via 2001:db8::1": [("net0", 64, True)],
    "2001:db8:1::/64 nexthop via 2001:db8::1 nexthop via fe80::1 dev net1": [("net0", 64, True), ("net1", 64, True)],
    "unreachable 198.51.100.0/24": [],
    "local 198.51.100.0/24 dev lo": [],
}


@pytest.mark.parametrize("route", ROUTES)
def test_routes_tell_their_ways(node_namespace: Namespace, route: str) -> None:
    """Each way of each route that leads to others, with its gateway."""
    add_device(node_namespace, "net0", "192.0.2.10/24", "2001:db8::10/64")
    add_device(node_namespace, "net1", "192.0.3.10/24")
    before = run_in(node_namespace, None, read_network)
    names = {one.index: one.name for one in before.interfaces}
    node_namespace.run("ip", "route", "add", *route.split())
    added = [one for one in run_in(node_namespace, None, read_network).routes if one not in before.routes]
    assert [(names[one.interface], one.prefix_length, one.has_gateway) for one in added] == ROUTES[route]


def watch() -> Iterator[set[str]]:
    """Yield the addresses, and again whenever they changed."""
    with closing(NetworkMonitor()) as monitor:
        known = texts(monitor.read().addresses)
        yield known
        while True:
            select.select([monitor], [], [])
            now = texts(monitor.read().addresses)
            if now != known:
                known = now
                yield known


def test_changes_are_noticed(node_namespace: Namespace, background: Starter) -> None:
    """An address that comes and one that goes wake the watcher."""
    watcher = background(node_namespace, None, watch)
    assert watcher.ready == {"127.0.0.1", "::1"}
    node_namespace.run("ip", "address", "add", "127.0.0.2/32", "dev", "lo")
    assert watcher.next() == {"127.0.0.1", "127.0.0.2", "::1"}
    node_namespace.run("ip", "address", "del", "127.0.0.2/32", "dev", "lo")
    assert watcher.next() == {"127.0.0.1", "::1"}


def test_cookie_is_the_same_by_option_and_by_program(node_namespace: Namespace, scratch_cgroup: Path) -> None:
    """Where the socket option is missing a program tells the same; each namespace has its own."""

    def by_program() -> int:
        return netns_cookie.cookie_by_program(netns_cookie.own_cgroup())

    assert run_in(None, scratch_cgroup, netns_cookie.own_cgroup) == scratch_cgroup
    asked = run_in(node_namespace, None, netns_cookie.host_netns_cookie)
    assert asked == run_in(node_namespace, scratch_cgroup, by_program)
    assert asked != run_in(None, scratch_cgroup, by_program)
