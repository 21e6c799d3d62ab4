# SPDX-License-Identifier: Apache-2.0
"""What a source and the node's interfaces say, to the state that is planned from and the node's settings."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.map_schema import MAX_CIDRS, SettingsEntry
from kubeproxy_ebpf.model.address import Address, Prefix
from kubeproxy_ebpf.model.network import NodeAddresses
from kubeproxy_ebpf.model.objects import Node, ObjectName, ServiceCIDR
from kubeproxy_ebpf.model.settings import NodeState, Settings
from kubeproxy_ebpf.plan.cluster import ClusterState
from kubeproxy_ebpf.source import Update

_log = structlog.get_logger(__name__)


class Observer:
    """Keeps what is known of this node and of the cluster's ranges; the rest it hands to the cluster state."""

    def __init__(self, settings: Settings, node_name: str, addresses: NodeAddresses) -> None:
        """Start with nothing but what the node says itself."""
        self._settings = settings
        self._node_name = node_name
        self._addresses = addresses
        self._node: Node | None = None
        self._service_cidrs: dict[ObjectName, ServiceCIDR] = {}
        self._had_too_many = False
        self.cluster = ClusterState(settings, self._node_state())

    def observe(self, updates: Iterable[Update]) -> None:
        """Take over what changed."""
        for (kind, name), newest, uid in updates:
            if kind == "Node":
                if name.name == self._node_name:
                    self._node = newest if isinstance(newest, Node) else None
                    self.cluster.set_node(self._node_state())
            elif kind == "ServiceCIDR":
                self._set_service_cidr(name, newest if isinstance(newest, ServiceCIDR) else None, uid)
            elif newest is not None and not isinstance(newest, Node | ServiceCIDR):
                self.cluster.observe(newest)
            elif kind == "Service":
                self.cluster.delete_service(name, uid)
            else:
                self.cluster.delete_endpoint_slice(name, uid)

    def set_addresses(self, addresses: NodeAddresses) -> None:
        """Take over the addresses of the node's interfaces."""
        if addresses == self._addresses:
            return
        self._addresses = addresses
        _log.info("node_addresses_changed", addresses=len(addresses.interface_addresses))
        self.cluster.set_node(self._node_state())

    def node_addresses(self) -> frozenset[Address]:
        """Return the addresses by which others know this node."""
        return frozenset(self._node_state().node.addresses)

    def settings_entry(self, netns_cookie: int) -> SettingsEntry:
        """Return what belongs into the map ``settings`` now."""
        settings = self._settings
        return SettingsEntry(
            flags=map_schema.SETTINGS_LOCALHOST_NODE_PORTS if settings.has_localhost_node_ports else 0,
            service_cidrs=settings.service_cidrs or self._cluster_service_cidrs(),
            excluded_cidrs=settings.exclude_cidrs,
            host_netns_cookie=netns_cookie,
            host_source_ipv4=self._addresses.source_ipv4,
            host_source_ipv6=self._addresses.source_ipv6,
        )

    def _set_service_cidr(self, name: ObjectName, newest: ServiceCIDR | None, uid: str) -> None:
        if newest is not None:
            self._service_cidrs[name] = newest
            return
        old = self._service_cidrs.get(name)
        if old is not None and (not uid or uid == old.uid):
            del self._service_cidrs[name]

    def _cluster_service_cidrs(self) -> tuple[Prefix, ...]:
        """Return the ranges that ServiceCIDR objects name, as many as the programs compare."""
        found = sorted({cidr for one in self._service_cidrs.values() for cidr in one.cidrs})
        if (len(found) > MAX_CIDRS) != self._had_too_many:
            self._had_too_many = not self._had_too_many
            if self._had_too_many:
                left_out = [str(cidr) for cidr in found[MAX_CIDRS:]]
                remedy = f"unallocated addresses in them are not dropped; name {MAX_CIDRS} wider ones in serviceCIDRs"
                _log.error("service_cidrs_too_many", most=MAX_CIDRS, left_out=left_out, reason=remedy)
        return tuple(found[:MAX_CIDRS])

    def _node_state(self) -> NodeState:
        """Return this node's state. Without a Node object its primary addresses are those its sockets prefer."""
        node = self._node or Node(name=self._node_name, addresses=_sources(self._addresses))
        return NodeState(node=node, interface_addresses=self._addresses.interface_addresses)


def _sources(addresses: NodeAddresses) -> tuple[Address, ...]:
    return tuple(source for source in (addresses.source_ipv4, addresses.source_ipv6) if source is not None)
