# SPDX-License-Identifier: Apache-2.0
"""What the maps hold for one service port, and what its plan says they should."""

from __future__ import annotations

from dataclasses import dataclass, field

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.map_schema import EMPTY_SET, Set
from kubeproxy_ebpf.model.address import Address, Prefix
from kubeproxy_ebpf.plan.service_plan import Frontend, FrontendKey, FrontendKind, ServicePortKey, ServicePortPlan

EndpointKey = tuple[Address, int]

ADDRESS_KINDS = {
    FrontendKind.CLUSTER_IP: schema.ADDRESS_CLUSTER_IP,
    FrontendKind.EXTERNAL_IP: schema.ADDRESS_EXTERNAL,
    FrontendKind.LOAD_BALANCER: schema.ADDRESS_EXTERNAL,
    FrontendKind.NODE_PORT: schema.ADDRESS_NODE,
}


@dataclass(slots=True)
class PlacedSet:
    """A set where it stands in ``slots``."""

    place: Set = EMPTY_SET
    backends: tuple[int, ...] = ()


@dataclass(slots=True)
class PortEntries:
    """What is in the maps for one service port."""

    key: ServicePortKey
    service: int
    """Its service id."""
    named: bool = False
    cluster: PlacedSet = field(default_factory=PlacedSet)
    local: PlacedSet = field(default_factory=PlacedSet)
    affinity_seconds: int = 0
    flags: int = 0
    backends: dict[EndpointKey, int] = field(default_factory=dict)
    """Backend ids."""
    origins: dict[FrontendKey, tuple[int, FrontendKind]] = field(default_factory=dict)
    """Origin ids; every frontend here is in the map."""
    source_ranges: frozenset[Prefix] = frozenset()


def service_flags(plan: ServicePortPlan) -> int:
    """Return the service's flags."""
    return (
        plan.internal_local * schema.SERVICE_INTERNAL_LOCAL
        | plan.external_local * schema.SERVICE_EXTERNAL_LOCAL
        | plan.has_endpoints * schema.SERVICE_HAS_ENDPOINTS
        | (plan.source_ranges is not None) * schema.SERVICE_SOURCE_RANGES
    )


def backend_flags(plan: ServicePortPlan) -> dict[EndpointKey, int]:
    """Return the flags of every backend that a service port needs."""
    flags: dict[EndpointKey, int] = {}
    for endpoints, membership in (
        (plan.cluster_set, schema.BACKEND_ALLOCATED | schema.BACKEND_IN_CLUSTER_SET),
        (plan.local_set, schema.BACKEND_ALLOCATED | schema.BACKEND_IN_LOCAL_SET),
        (plan.lingering, schema.BACKEND_ALLOCATED),
    ):
        for address, port, local, _ in endpoints:
            known = flags.get((address, port), schema.BACKEND_LOCAL if local else 0)
            flags[address, port] = known | membership
    return flags


def address_kind(frontend: Frontend) -> int:
    """Return the kind bit that a frontend gives its address."""
    return ADDRESS_KINDS[frontend.kind]
