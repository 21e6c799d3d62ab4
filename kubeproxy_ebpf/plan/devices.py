# SPDX-License-Identifier: Apache-2.0
"""Which network devices carry packets between this node and others, and which address packets get that leave by one.

Two kinds lead to others: those by which a client reaches the node (they have an address of it, or a default route),
and those by which the node reaches other nodes' pods, as answers come back there: a route with a gateway, or to a
network over a device without Ethernet (tunnels, WireGuard). A pod's device has a route to its address and no more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from kubeproxy_ebpf.model.address import Address, Family, family_of
from kubeproxy_ebpf.model.network import Interface, NodeNetwork

_HOST_LENGTH = {Family.IPV4: 32, Family.IPV6: 128}


class Device(NamedTuple):
    """A network device that the packet programs belong on."""

    name: str
    has_ethernet: bool
    source_ipv4: Address | None
    """What packets that leave by it may have as their source; None: they cannot leave under this node's name."""
    source_ipv6: Address | None


def devices_to_others(
    network: NodeNetwork, node_addresses: Collection[Address], patterns: tuple[str, ...]
) -> Mapping[int, Device]:
    """Return the devices by interface index. ``patterns`` (``eth*``) go before what would be found out."""
    if patterns:
        chosen = {one.index for one in network.interfaces if matches(one, patterns)}
    else:
        chosen = set(_found_out(network, node_addresses))
    return {
        one.index: Device(
            one.name, one.has_ethernet, *(_source(one, family, network, node_addresses) for family in Family)
        )
        for one in network.interfaces
        if one.index in chosen and not one.is_loopback
    }


def matches(interface: Interface, patterns: tuple[str, ...]) -> bool:
    """Whether an interface is one that an operator named."""
    return not interface.is_loopback and any(fnmatchcase(interface.name, pattern) for pattern in patterns)


def _found_out(network: NodeNetwork, node_addresses: Collection[Address]) -> Iterator[int]:
    without_ethernet = {one.index for one in network.interfaces if not one.has_ethernet}
    for interface in network.interfaces:
        if any(one.address in node_addresses for one in interface.addresses):
            yield interface.index
    for route in network.routes:
        is_network = route.prefix_length < _HOST_LENGTH[route.family]
        if route.prefix_length == 0 or route.has_gateway or (is_network and route.interface in without_ethernet):
            yield route.interface


def _source(
    interface: Interface, family: Family, network: NodeNetwork, node_addresses: Collection[Address]
) -> Address | None:
    """Return the node's address if the device has it, else the device's first, else what sockets would have."""
    own = [one for one in interface.addresses if one.is_global and family_of(one.address) is family]
    ranked = sorted(own, key=lambda one: (one.address not in node_addresses, not one.is_preferred))
    return ranked[0].address if ranked else network.addresses.source(family)
