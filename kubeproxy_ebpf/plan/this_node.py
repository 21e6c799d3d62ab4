# SPDX-License-Identifier: Apache-2.0
"""This node's state and settings to the few facts that planning asks for again and again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kubeproxy_ebpf.model.address import (
    LOCALHOST_IPV4,
    MAPPED_BITS,
    UNSPECIFIED_IPV4,
    UNSPECIFIED_IPV6,
    Address,
    Family,
    Prefix,
    family_of,
    parse_prefix,
)
from kubeproxy_ebpf.model.settings import LocalDetection, NodePortKeyword, NodeState, Settings

_LOOPBACK = (parse_prefix("127.0.0.0/8"), parse_prefix("::1/128"))
_LINK_LOCAL_IPV6 = parse_prefix("fe80::/10")


@dataclass(frozen=True, slots=True)
class ThisNode:
    """What planning knows of this node. Two that are equal lead to the same plans."""

    name: str
    zone: str
    """Empty: the node has no zone label, so that zone hints do not count."""
    primary_ipv4: Address | None
    primary_ipv6: Address | None
    node_ports_ipv4: tuple[Address, ...]
    """Where NodePorts answer, sorted."""
    node_ports_ipv6: tuple[Address, ...]
    detects_pods_ipv4: bool
    """A way to tell this node's pods from other sources is configured (kube-proxy's local detector)."""
    detects_pods_ipv6: bool
    interface_addresses: frozenset[Address]

    def primary(self, family: Family) -> Address | None:
        """Return the node's primary address of a family."""
        return self.primary_ipv4 if family is Family.IPV4 else self.primary_ipv6

    def node_ports(self, family: Family) -> tuple[Address, ...]:
        """Return the addresses of a family on which NodePorts answer."""
        return self.node_ports_ipv4 if family is Family.IPV4 else self.node_ports_ipv6

    def detects_pods(self, family: Family) -> bool:
        """Whether pods are told from other sources when it comes to masquerading."""
        return self.detects_pods_ipv4 if family is Family.IPV4 else self.detects_pods_ipv6


def this_node(state: NodeState, settings: Settings) -> ThisNode:
    """Work out the facts."""
    ipv4, ipv6 = (_primary(state, settings, family) for family in (Family.IPV4, Family.IPV6))
    return ThisNode(
        name=state.node.name,
        zone=state.node.zone,
        primary_ipv4=ipv4,
        primary_ipv6=ipv6,
        node_ports_ipv4=_node_port_addresses(state, settings, Family.IPV4, ipv4),
        node_ports_ipv6=_node_port_addresses(state, settings, Family.IPV6, ipv6),
        detects_pods_ipv4=_detects_pods(state, settings, Family.IPV4),
        detects_pods_ipv6=_detects_pods(state, settings, Family.IPV6),
        interface_addresses=state.interface_addresses,
    )


def _primary(state: NodeState, settings: Settings, family: Family) -> Address | None:
    bound = settings.bind_address
    if bound and bound not in {UNSPECIFIED_IPV4, UNSPECIFIED_IPV6} and family_of(bound) is family:
        return bound
    return next((address for address in state.node.addresses if family_of(address) is family), None)


def _node_port_addresses(
    state: NodeState, settings: Settings, family: Family, primary: Address | None
) -> tuple[Address, ...]:
    """Select among the addresses of this node's interfaces, as nodePortAddresses says.

    A list without anything for a family opens that family on all addresses, as it does for kube-proxy.
    """
    wanted = settings.node_port_addresses or (NodePortKeyword.PRIMARY,)
    keywords = {entry for entry in wanted if isinstance(entry, NodePortKeyword)}
    prefixes = [entry for entry in wanted if isinstance(entry, Prefix) and entry.family is family]
    candidates = {address for address in state.interface_addresses if family_of(address) is family}
    candidates = {address for address in candidates if not _in_any(address, _LOOPBACK)}
    zero_length = MAPPED_BITS if family is Family.IPV4 else 0
    everything = NodePortKeyword.ALL in keywords or any(prefix.length == zero_length for prefix in prefixes)
    if everything or not (keywords or prefixes):
        # A link-local address is the same on many interfaces and needs a scope: no client's idea of this node.
        selected = {address for address in candidates if address not in _LINK_LOCAL_IPV6}
    else:
        selected = {address for address in candidates if _in_any(address, prefixes)}
    if NodePortKeyword.PRIMARY in keywords and primary in candidates:
        selected.add(primary)
    if family is Family.IPV4 and _on_localhost(settings, keywords, prefixes):
        selected.add(LOCALHOST_IPV4)
    return tuple(sorted(selected))


def _on_localhost(settings: Settings, keywords: set[NodePortKeyword], prefixes: list[Prefix]) -> bool:
    """Whether NodePorts answer on 127.0.0.1: a list of CIDRs without it has the last word, as for kube-proxy."""
    if NodePortKeyword.LOCALHOST in keywords:
        return True
    return settings.localhost_node_ports and (not prefixes or _in_any(LOCALHOST_IPV4, prefixes))


def _in_any(address: Address, prefixes: Iterable[Prefix]) -> bool:
    return any(address in prefix for prefix in prefixes)


def _detects_pods(state: NodeState, settings: Settings, family: Family) -> bool:
    match settings.local_detection:
        case LocalDetection.CLUSTER_CIDR:
            return any(prefix.family is family for prefix in settings.cluster_cidrs)
        case LocalDetection.NODE_CIDR:
            return any(prefix.family is family for prefix in state.node.pod_cidrs)
        case LocalDetection.BRIDGE_INTERFACE:
            return bool(settings.bridge_interface)
        case LocalDetection.INTERFACE_NAME_PREFIX:
            return bool(settings.interface_name_prefix)
        case LocalDetection.NONE:
            return False
