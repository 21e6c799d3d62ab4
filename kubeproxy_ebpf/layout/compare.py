# SPDX-License-Identifier: Apache-2.0
"""What a service port's plan wants against what the maps hold for it: how many entries it takes, and which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.addresses import Kind
from kubeproxy_ebpf.layout.states import Owner, PlacedSet, PortState
from kubeproxy_ebpf.plan.service_plan import (
    FrontendKind,
    PlannedEndpoint,
    Rule,
    ServicePlan,
    ServicePortPlan,
    Source,
)

ADDRESS_KINDS = {
    FrontendKind.CLUSTER_IP: schema.ADDRESS_CLUSTER_IP,
    FrontendKind.EXTERNAL_IP: schema.ADDRESS_EXTERNAL,
    FrontendKind.LOAD_BALANCER: schema.ADDRESS_EXTERNAL,
    FrontendKind.NODE_PORT: schema.ADDRESS_NODE,
}

_IN_CLUSTER_SET = schema.BACKEND_ALLOCATED | schema.BACKEND_IN_CLUSTER_SET
_IN_LOCAL_SET = schema.BACKEND_ALLOCATED | schema.BACKEND_IN_LOCAL_SET
_IN_A_SET = schema.BACKEND_IN_CLUSTER_SET | schema.BACKEND_IN_LOCAL_SET
_DAMAGED = -1


class KnownBackend(NamedTuple):
    """A backend that the maps hold."""

    position: int
    """Among the service port's backends."""
    flags: int
    """``_DAMAGED`` if the entry needs more than new flags."""


class PortDiff(NamedTuple):
    """One service port. Endpoints are packed as :func:`map_schema.pack_endpoint` does."""

    plan: ServicePortPlan
    old: PortState | None
    name: bytes
    """Packed; empty if the port has its name already."""
    frontends: dict[bytes, FrontendKind]
    flags: dict[bytes, int]
    """The flags of every endpoint that is wanted."""
    known: dict[bytes, KnownBackend]
    """The backends that are there; what is not in ``flags`` goes."""
    surplus: tuple[int, ...]
    """Positions of entries for an endpoint that has another one."""
    cluster: list[bytes] | None
    """The members of the set that must be written; None: it stays."""
    local: list[bytes] | None

    @property
    def new_backends(self) -> int:
        """How many endpoints have no backend yet."""
        return sum(endpoint not in self.known for endpoint in self.flags) if self.known else len(self.flags)

    @property
    def new_ranges(self) -> list[int]:
        """How long the ranges are that the sets need."""
        return [len(members) for members in (self.cluster, self.local) if members]


def compare(old: PortState | None, plan: ServicePortPlan) -> PortDiff:
    """Compare.

    Raises:
        NameTooLongError: the service port is new, and a name does not fit.
    """
    cluster, local, flags = _endpoints(plan)
    known, surplus = _known(old) if old else ({}, ())
    return PortDiff(
        plan=plan,
        old=old,
        name=schema.pack_name(plan.key) if old is None else b"",
        frontends={schema.pack_frontend_key(key): kind for key, kind in plan.frontends},
        flags=flags,
        known=known,
        surplus=surplus,
        cluster=_members_to_write(old.cluster, cluster, old, known) if old else cluster,
        local=_members_to_write(old.local, local, old, known) if old else local,
    )


def is_there(diff: PortDiff, old: PortState, owners: Mapping[bytes, Owner]) -> bool:
    """Whether the maps say all that a plan wants, and nothing else. Of one with source ranges nobody knows."""
    if (
        diff.surplus
        or diff.cluster is not None
        or diff.local is not None
        or len(diff.known) != len(diff.flags)
        or diff.plan.source_ranges
        or old.source_ranges
        or (old.affinity_seconds, old.flags) != (diff.plan.affinity_seconds, service_flags(diff.plan))
        or diff.frontends.keys() != set(old.frontends)
    ):
        return False
    service, flags = old.service, diff.flags
    for key, kind in diff.frontends.items():
        owner = owners.get(key)
        if owner is None or owner.service != service or owner.kind != kind:
            return False
    return all(flags.get(endpoint) == known.flags for endpoint, known in diff.known.items())


def service_flags(plan: ServicePortPlan) -> int:
    """Return the service's flags."""
    return (
        plan.internal_local * schema.SERVICE_INTERNAL_LOCAL
        | plan.external_local * schema.SERVICE_EXTERNAL_LOCAL
        | plan.has_endpoints * schema.SERVICE_HAS_ENDPOINTS
        | (plan.source_ranges is not None) * schema.SERVICE_SOURCE_RANGES
        | _masquerade_bits(plan.cluster_ip_rules) * schema.SERVICE_MASQUERADE_CLUSTER_IP
        | _masquerade_bits(plan.external_rules) * schema.SERVICE_MASQUERADE_EXTERNAL
        | plan.cluster_rule * schema.SERVICE_CLUSTER_RULE
        | plan.local_rule * schema.SERVICE_LOCAL_RULE
    )


def _masquerade_bits(rules: Mapping[Source, Rule]) -> int:
    """Return a bit for each source whose connections are masqueraded."""
    bits = 0
    for source, rule in rules.items():
        if rule.masquerade:
            bits |= 1 << schema.SOURCES[source]
    return bits


def kinds_of(plan: ServicePlan) -> tuple[Kind, ...]:
    """Return the kind bits that a Service gives addresses."""
    kinds = {(key.address, ADDRESS_KINDS[kind]) for port in plan.ports for key, kind in port.frontends}
    kinds.update((address, schema.ADDRESS_EXCLUDED) for address in plan.excluded_addresses)
    return tuple(sorted(kinds))


def _endpoints(plan: ServicePortPlan) -> tuple[list[bytes], list[bytes], dict[bytes, int]]:
    """Return the members of both sets, and the flags of every endpoint."""
    flags: dict[bytes, int] = {}
    cluster = _collect(plan.cluster_set, _IN_CLUSTER_SET, flags)
    local = _collect(plan.local_set, _IN_LOCAL_SET, flags)
    _collect(plan.lingering, schema.BACKEND_ALLOCATED, flags)
    return cluster, local, flags


def _collect(endpoints: tuple[PlannedEndpoint, ...], membership: int, flags: dict[bytes, int]) -> list[bytes]:
    if not endpoints:
        return []
    pack, known = schema.pack_endpoint, flags.get
    members = []
    for address, port, local, _ in endpoints:
        endpoint = pack(address, port)
        members.append(endpoint)
        flags[endpoint] = known(endpoint, schema.BACKEND_LOCAL if local else 0) | membership
    return members


def _known(old: PortState) -> tuple[dict[bytes, KnownBackend], tuple[int, ...]]:
    """Return the backends by endpoint. Of two for one endpoint, as a crash can leave them, one in a set wins."""
    known: dict[bytes, KnownBackend] = {}
    surplus = []
    for position, (address, service, node, _, flags, port) in enumerate(schema.unpack_owners(old.entries)):
        endpoint = address + port
        backend = KnownBackend(position, _DAMAGED if node or service != old.service else flags)
        other = known.get(endpoint)
        if other is None:
            known[endpoint] = backend
        elif flags & _IN_A_SET and not other.flags & _IN_A_SET:
            surplus.append(other.position)
            known[endpoint] = backend
        else:
            surplus.append(position)
    return known, tuple(surplus)


def _members_to_write(
    placed: PlacedSet, members: list[bytes], old: PortState, known: dict[bytes, KnownBackend]
) -> list[bytes] | None:
    """Return the members if the set is another one than that in the maps, in whatever order."""
    if not members:
        return members if placed.place.word else None
    if len(members) != len(placed.backends):
        return members
    ids = []
    for endpoint in members:
        backend = known.get(endpoint)
        if backend is None:
            return members
        ids.append(old.backends[backend.position])
    return None if sorted(ids) == sorted(placed.backends) else members
