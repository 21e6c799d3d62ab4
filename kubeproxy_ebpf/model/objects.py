# SPDX-License-Identifier: Apache-2.0
"""Service, EndpointSlice, Node and ServiceCIDR, reduced to what decides about packets.

Made by :mod:`kubeproxy_ebpf.decode`, the only reader of raw objects. Everything here is
immutable, normalised (defaults filled in, families told apart by address) and already within bounds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from kubeproxy_ebpf.model.address import Address, Family, Prefix


class ObjectName(NamedTuple):
    """Namespace and name of a Kubernetes object; the namespace is empty for cluster-scoped ones."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """Return ``namespace/name``."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Protocol(enum.IntEnum):
    """Transport protocol, by its IP protocol number (RFC 5237 registry)."""

    TCP = 6
    UDP = 17
    SCTP = 132

    __hash__ = int.__hash__  # as its equality is int's; Enum's hashes the name, in Python


class TrafficPolicy(enum.Enum):
    """internalTrafficPolicy or externalTrafficPolicy."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """One port of a Service. ``node_port`` is 0 without one."""

    name: str
    protocol: Protocol
    port: int
    node_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A Service that a proxy serves: it has a ClusterIP and is not ExternalName."""

    name: ObjectName
    uid: str = ""
    created: str = ""
    """creationTimestamp as written (RFC 3339, so it sorts); settles who owns a frontend that two Services claim."""
    cluster_ips: tuple[Address, ...] = ()
    external_ips: tuple[Address, ...] = ()
    load_balancer_ips: tuple[Address, ...] = ()
    """VIPs of status.loadBalancer.ingress with ipMode VIP (or none)."""
    ports: tuple[ServicePort, ...] = ()
    source_ranges: tuple[Prefix, ...] = ()
    internal_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    external_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    affinity_seconds: int = 0
    health_check_node_port: int = 0
    excluded: bool = False
    """Opted out by annotation: its addresses are left alone."""
    problems: tuple[str, ...] = ()
    """One sentence each on what of the object was not usable and is left out, and the remedy."""


class EndpointPort(NamedTuple):
    """One port of an EndpointSlice; matched to a ServicePort by name and protocol."""

    name: str
    protocol: Protocol
    port: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of a slice, conditions with their defaults filled in."""

    address: Address
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node_name: str = ""
    """Empty: unknown, which counts as remote."""
    node_hints: tuple[str, ...] = ()
    zone_hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSlice:
    """An EndpointSlice of address type IPv4 or IPv6 that belongs to a Service."""

    name: ObjectName
    service: ObjectName
    family: Family
    uid: str = ""
    ports: tuple[EndpointPort, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    changed_at: str = ""
    """Annotation endpoints.kubernetes.io/last-change-trigger-time, as written."""
    problems: tuple[str, ...] = ()
    """One sentence each on what of the object was not usable and is left out, and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """This node's own Node object."""

    name: str
    addresses: tuple[Address, ...] = ()
    """Its InternalIPs then ExternalIPs; the first of a family is the primary one."""
    zone: str = ""
    pod_cidrs: tuple[Prefix, ...] = ()
    being_deleted: bool = False
    """deletionTimestamp is set, or the cluster autoscaler's deletion taint."""
    problems: tuple[str, ...] = ()
    """One sentence each on what of the object was not usable and is left out, and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCIDR:
    """Ranges of ClusterIPs: one prefix, or one of each family."""

    name: ObjectName
    cidrs: tuple[Prefix, ...] = ()
    uid: str = ""
    problems: tuple[str, ...] = ()
    """One sentence each on what of the object was not usable and is left out, and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """A well-formed object that is none of this proxy's business, e.g. a headless Service."""

    kind: str
    name: ObjectName
    reason: str
    """Half a sentence that says why, with the object as its subject: ``has no ClusterIP``."""
    uid: str = ""


KubernetesObject = Service | EndpointSlice | Node | ServiceCIDR | Ignored
"""Whatever a decoder gives."""
