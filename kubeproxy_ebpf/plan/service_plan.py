# SPDX-License-Identifier: Apache-2.0
"""The result of planning: for each service port and family its frontends, endpoint sets and rules."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kubeproxy_ebpf.model.address import Address, Family, Prefix
from kubeproxy_ebpf.model.objects import ObjectName, Protocol


class ServicePortKey(NamedTuple):
    """Names one service port of one family: what has a service id, sets and affinity of its own."""

    service: ObjectName
    port: str
    protocol: Protocol
    family: Family

    def __str__(self) -> str:
        """Return e.g. ``default/dns:tcp/TCP/IPv4``."""
        port = f":{self.port}" if self.port else ""
        return f"{self.service}{port}/{self.protocol.name}/IPv{self.family}"


class FrontendKind(enum.IntEnum):
    """What a frontend is; the values are those of ``enum frontend_kind`` in map_types.h."""

    CLUSTER_IP = 1
    EXTERNAL_IP = 2
    LOAD_BALANCER = 3
    NODE_PORT = 4


class FrontendKey(NamedTuple):
    """What a client addresses. One service port owns it."""

    address: Address
    port: int
    protocol: Protocol


class Frontend(NamedTuple):
    """A frontend and what it is."""

    key: FrontendKey
    kind: FrontendKind


class PlannedEndpoint(NamedTuple):
    """An endpoint of a service port. ``local``: it runs on this node."""

    address: Address
    port: int
    local: bool
    node_name: str


class Source(enum.Enum):
    """Where a connection comes from, seen from this node."""

    __hash__ = object.__hash__  # members are one of a kind; Enum's hashes the name, in Python

    POD = "pod"
    NODE = "node"
    OUTSIDE = "outside"


class Verdict(enum.Enum):
    """What becomes of a new connection; the values are those of ``enum verdict`` in map_types.h."""

    PASS = 0
    DNAT = 1
    REJECT = 2
    DROP = 3


class EndpointSet(enum.Enum):
    """Which of a service port's two sets a rule picks from."""

    CLUSTER = "cluster"
    LOCAL = "local"


class SetRule(enum.IntEnum):
    """Which endpoints a set has; the values are those of ``enum set_rule`` in map_types.h."""

    READY = 0
    NODE_HINTS = 1
    ZONE_HINTS = 2
    TERMINATING = 3
    """None is ready: those that are serving while they terminate."""


class Rule(NamedTuple):
    """What a frontend does with a connection from one kind of source."""

    verdict: Verdict
    endpoints: EndpointSet
    masquerade: bool
    """Besides hairpin connections, which are always masqueraded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePortPlan:
    """All that this node must do for one service port of one family."""

    key: ServicePortKey
    frontends: tuple[Frontend, ...]
    cluster_set: tuple[PlannedEndpoint, ...]
    """Sorted by address and port, without duplicates."""
    local_set: tuple[PlannedEndpoint, ...]
    """Empty as well when no policy asks for it."""
    cluster_rule: SetRule = SetRule.READY
    local_rule: SetRule = SetRule.READY
    lingering: tuple[PlannedEndpoint, ...]
    """In neither set, but still serving: UDP flows and affinity records that name them stay valid."""
    has_endpoints: bool
    """Some endpoint is usable somewhere: an empty set means DROP, not REJECT."""
    internal_local: bool
    external_local: bool
    affinity_seconds: int
    source_ranges: tuple[Prefix, ...] | None
    """Guards load balancer VIPs only. None: open. The node's implicit allowances are in it."""
    cluster_ip_rules: Mapping[Source, Rule]
    external_rules: Mapping[Source, Rule]
    """For NodePorts, externalIPs and VIPs (source ranges come before these)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePlan:
    """The plan of one Service."""

    service: ObjectName
    ports: tuple[ServicePortPlan, ...] = ()
    excluded_addresses: tuple[Address, ...] = ()
    """ClusterIPs that are opted out: neither translated nor dropped."""
    problems: tuple[str, ...] = ()
    """One sentence each on what of this Service cannot be served, and the remedy."""
