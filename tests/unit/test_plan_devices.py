# SPDX-License-Identifier: Apache-2.0
"""Which devices the packet programs belong on, on nodes as common CNIs leave them, and under which address."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kubeproxy_ebpf.model.address import Family, family_of, format_address, parse_address
from kubeproxy_ebpf.model.network import Interface, InterfaceAddress, NodeAddresses, NodeNetwork, Route
from kubeproxy_ebpf.plan.devices import devices_to_others

NODE = "192.0.2.10"
NODE_IPV6 = "2001:db8::10"
LOOPBACK = "lo 127.0.0.1 ::1"


def interface(index: int, description: str) -> Interface:
    """Return an interface: ``eth0 192.0.2.10``; one whose name ends in ``!`` has no Ethernet header."""
    name, *addresses = description.split()
    own = tuple(
        InterfaceAddress(parse_address(text), is_global=text[:4] not in {"fe80", "127."}, is_preferred=True)
        for text in addresses
    )
    return Interface(index, name.rstrip("!"), not name.endswith("!"), name == "lo", own)


def network(interfaces: Sequence[str], routes: Sequence[str] = ()) -> NodeNetwork:
    """Return a network; routes are ``0.0.0.0/0 via eth0`` or, without a gateway, ``10.1.0.5/32 dev veth1``."""
    found = tuple(interface(index, text) for index, text in enumerate(interfaces, 1))
    index_of = {one.name: one.index for one in found}
    ways = []
    for route in routes:
        prefix, kind, name = route.split()
        family = Family.IPV6 if ":" in prefix else Family.IPV4
        ways.append(Route(index_of[name], family, int(prefix.partition("/")[2]), kind == "via"))
    everything = frozenset(address.address for one in found for address in one.addresses)
    sources = {family_of(parse_address(text)): parse_address(text) for text in (NODE, NODE_IPV6)}
    return NodeNetwork(NodeAddresses(everything, sources[Family.IPV4], sources[Family.IPV6]), found, tuple(ways))


UPLINK = f"eth0 {NODE} {NODE_IPV6}"
CASES: dict[str, tuple[Sequence[str], Sequence[str], set[str]]] = {
    "flannel with VXLAN": (
        [LOOPBACK, UPLINK, "flannel.1 10.244.1.0", "cni0 10.244.1.1", "veth1"],
        ["0.0.0.0/0 via eth0", "10.244.0.0/24 via flannel.1", "10.244.1.0/24 dev cni0", "192.0.2.0/24 dev eth0"],
        {"eth0", "flannel.1"},
    ),
    "flannel with WireGuard": (
        [LOOPBACK, UPLINK, "flannel-wg! 10.244.1.0", "cni0 10.244.1.1", "veth1"],
        ["0.0.0.0/0 via eth0", "10.244.0.0/16 dev flannel-wg", "10.244.1.0/24 dev cni0"],
        {"eth0", "flannel-wg"},
    ),
    "Calico with IPIP": (
        [LOOPBACK, UPLINK, "tunl0! 10.1.7.1", "cali1 fe80::1", "cali2 fe80::1"],
        ["0.0.0.0/0 via eth0", "10.1.8.0/26 via tunl0", "10.1.7.2/32 dev cali1", "fd00::2/128 dev cali2"],
        {"eth0", "tunl0"},
    ),
    "host gateways": (
        [LOOPBACK, UPLINK, "cni0 10.244.1.1"],
        ["10.244.0.0/24 via eth0", "10.244.1.0/24 dev cni0"],
        {"eth0"},
    ),
    "a second device with routes of its own": (
        [LOOPBACK, UPLINK, "eth1 198.51.100.10", "eni1"],
        ["0.0.0.0/0 via eth0", "0.0.0.0/0 via eth1", "10.1.7.2/32 dev eni1"],
        {"eth0", "eth1"},
    ),
    "the node's address on a bridge": (
        [LOOPBACK, "eth0", f"br0 {NODE}", "docker0 172.17.0.1"],
        ["0.0.0.0/0 via br0", "172.17.0.0/16 dev docker0"],
        {"br0"},
    ),
    "the node's address on loopback": (
        [f"lo 127.0.0.1 {NODE}", "eth0 198.51.100.1", "eth1 198.51.101.1"],
        ["0.0.0.0/0 via eth0", "0.0.0.0/0 via eth1"],
        {"eth0", "eth1"},
    ),
    "the node's address on a device without a default route": (
        [LOOPBACK, "eth0 198.51.100.1", f"eth1 {NODE}"],
        ["0.0.0.0/0 via eth0", "192.0.2.0/24 dev eth1"],
        {"eth0", "eth1"},
    ),
    "a modem": ([LOOPBACK, f"ppp0! {NODE}"], ["0.0.0.0/0 dev ppp0"], {"ppp0"}),
    "IPv6 alone": ([LOOPBACK, f"eth0 {NODE_IPV6}", "veth1"], ["::/0 via eth0", "fd00::2/128 dev veth1"], {"eth0"}),
    "nothing that leads anywhere": ([LOOPBACK, "docker0 172.17.0.1"], ["172.17.0.0/16 dev docker0"], set()),
}


@pytest.mark.parametrize(("interfaces", "routes", "expected"), CASES.values(), ids=CASES.keys())
def test_devices_that_lead_to_others_are_found(
    interfaces: Sequence[str], routes: Sequence[str], expected: set[str]
) -> None:
    """Where clients and other nodes come in, and never a pod's own."""
    devices = devices_to_others(network(interfaces, routes), {parse_address(NODE), parse_address(NODE_IPV6)}, ())
    assert {device.name for device in devices.values()} == expected


def test_patterns_go_before_what_is_found_out() -> None:
    """Exactly the devices that match one of them; loopback never."""
    node = network([LOOPBACK, UPLINK, "eth1", "wg0!", "veth1"], ["0.0.0.0/0 via eth0"])
    found = devices_to_others(node, (), ("eth1", "wg*", "l*"))
    assert {device.name: device.has_ethernet for device in found.values()} == {"eth1": True, "wg0": False}


def source(description: str) -> tuple[str, str]:
    """Return the addresses that packets get which leave by a device."""
    (device,) = devices_to_others(network([LOOPBACK, description]), {parse_address(NODE)}, ("*",)).values()
    assert device.source_ipv4
    assert device.source_ipv6
    return format_address(device.source_ipv4), format_address(device.source_ipv6)


def test_the_nodes_address_is_the_source_where_the_device_has_it() -> None:
    """Before others of the device."""
    assert source(f"eth0 198.51.100.1 {NODE} fd00::1") == (NODE, "fd00::1")


def test_a_device_without_the_nodes_address_has_its_own() -> None:
    """As the stack would choose; without any of a family the one that the host's sockets have."""
    assert source("flannel.1 10.244.1.0 fe80::5") == ("10.244.1.0", NODE_IPV6)


def test_addresses_for_new_connections_go_first() -> None:
    """One that is deprecated or a further one of its subnet is used if there is no other."""
    kept = InterfaceAddress(parse_address("198.51.100.2"), is_global=True, is_preferred=True)
    old = InterfaceAddress(parse_address("198.51.100.1"), is_global=True, is_preferred=False)
    for addresses, expected in (((old, kept), kept), ((old,), old)):
        one = Interface(1, "eth0", has_ethernet=True, is_loopback=False, addresses=addresses)
        node = NodeNetwork(NodeAddresses(frozenset(), None, None), (one,), ())
        device = devices_to_others(node, (), ("*",))[1]
        assert (device.source_ipv4, device.source_ipv6) == (expected.address, None)
