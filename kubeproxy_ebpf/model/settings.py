# SPDX-License-Identifier: Apache-2.0
"""What the operator of a node decides, as the brain needs it. Filled by :mod:`kubeproxy_ebpf.config`."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from kubeproxy_ebpf.model.address import Address, Prefix
from kubeproxy_ebpf.model.objects import Node


class NodePortKeyword(enum.Enum):
    """Words of nodePortAddresses that stand for addresses."""

    PRIMARY = "primary"
    LOCALHOST = "localhost"
    ALL = "all"


class LocalDetection(enum.Enum):
    """How a packet's source is recognised as a pod of this node (kube-proxy's detectLocalMode)."""

    NONE = ""
    CLUSTER_CIDR = "ClusterCIDR"
    NODE_CIDR = "NodeCIDR"
    BRIDGE_INTERFACE = "BridgeInterface"
    INTERFACE_NAME_PREFIX = "InterfaceNamePrefix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The part of the configuration that decides about packets."""

    node_port_addresses: tuple[Prefix | NodePortKeyword, ...] = (NodePortKeyword.PRIMARY,)
    localhost_node_ports: bool = False
    """IPv4 only: NodePorts answer on 127.0.0.0/8."""
    exclude_cidrs: tuple[Prefix, ...] = ()
    service_cidrs: tuple[Prefix, ...] = ()
    masquerade_all: bool = False
    local_detection: LocalDetection = LocalDetection.NONE
    cluster_cidrs: tuple[Prefix, ...] = ()
    bridge_interface: str = ""
    interface_name_prefix: str = ""
    bind_address: Address | None = None
    """Overrides the node's primary address of its family, as kube-proxy's bindAddress does."""

    @property
    def has_localhost_node_ports(self) -> bool:
        """Whether NodePorts answer on loopback, by either key."""
        return self.localhost_node_ports or NodePortKeyword.LOCALHOST in self.node_port_addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What is known of this node at a moment: its Node object and its interfaces' addresses."""

    node: Node
    interface_addresses: frozenset[Address] = field(default_factory=frozenset)
    """Every address of type local on this node, but for those that another proxy binds for Services (kube-ipvs0)."""
