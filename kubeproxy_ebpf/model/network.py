# SPDX-License-Identifier: Apache-2.0
"""This node's interfaces, addresses and routes at a moment, as far as they decide about packets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from kubeproxy_ebpf.model.address import Address, Family


class InterfaceAddress(NamedTuple):
    """An address of an interface."""

    address: Address
    is_global: bool
    """Others can answer to it: its scope is the universe."""
    is_preferred: bool
    """New connections may come from it: it is neither deprecated, tentative nor temporary, nor a further one of its
    subnet."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface."""

    index: int
    name: str
    has_ethernet: bool
    """Its packets have an Ethernet header; else they begin with IP's."""
    is_loopback: bool
    addresses: tuple[InterfaceAddress, ...] = ()


class Route(NamedTuple):
    """One way of a route, to others than this node itself."""

    interface: int
    family: Family
    prefix_length: int
    """Of the destinations, as the family counts: 0 for a default route."""
    has_gateway: bool


class NodeAddresses(NamedTuple):
    """What Services and sockets have to know."""

    interface_addresses: frozenset[Address]
    """Every address of every interface, loopback's too, but for kube-ipvs0's."""
    source_ipv4: Address | None
    """What the host's sockets have as source on the way out; None without an address of the family."""
    source_ipv6: Address | None

    def source(self, family: Family) -> Address | None:
        """Return what the host's sockets have as source on the way out."""
        return self.source_ipv4 if family is Family.IPV4 else self.source_ipv6


class NodeNetwork(NamedTuple):
    """All of it."""

    addresses: NodeAddresses
    interfaces: tuple[Interface, ...]
    routes: tuple[Route, ...]
