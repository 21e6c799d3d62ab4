# SPDX-License-Identifier: Apache-2.0
"""One Service with its slices, claims and this node's facts to its plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kubeproxy_ebpf.model.address import Family, family_of
from kubeproxy_ebpf.model.objects import Endpoint, EndpointSlice, Protocol, Service, ServicePort, TrafficPolicy
from kubeproxy_ebpf.model.problems import MOST_PROBLEMS, Problems
from kubeproxy_ebpf.model.settings import Settings
from kubeproxy_ebpf.plan.endpoints import choose, merge
from kubeproxy_ebpf.plan.frontends import Claim, Claims, families_of, is_excluded
from kubeproxy_ebpf.plan.ownership import FrontendOwnership, describe_losses
from kubeproxy_ebpf.plan.rules import Filled, cluster_ip_rules, external_rules, source_ranges
from kubeproxy_ebpf.plan.service_plan import Frontend, FrontendKey, ServicePlan, ServicePortKey, ServicePortPlan
from kubeproxy_ebpf.plan.this_node import ThisNode

MOST_ENDPOINTS = 100_000
"""Endpoints of one Service, counted once per service port. One with more is not served, so that the others are."""

_PortEndpoints = Mapping[tuple[str, Protocol], Sequence[tuple[int, Sequence[Endpoint]]]]


def plan_service(
    service: Service,
    slices: Iterable[EndpointSlice],
    *,
    claims: Claims,
    ownership: FrontendOwnership,
    node: ThisNode,
    settings: Settings,
) -> ServicePlan:
    """Plan a Service. ``slices`` are its own, in a fixed order; ``ownership`` knows its claims."""
    slices = tuple(slices)
    problems = Problems("Service", service.name)
    owned, losses = _owned(service, claims, ownership)
    for sentence in describe_losses(losses):
        problems.add(sentence)
    by_family = {family: _endpoints_by_port(slices, family) for family in families_of(service)}
    wanted = 0
    for index, family in owned:
        port = service.ports[index]
        for _, endpoints in by_family[family].get((port.name, port.protocol), ()):
            wanted += len(endpoints)
    if wanted > MOST_ENDPOINTS:
        problems.add(
            f"its ports have {wanted} endpoints altogether, of at most {MOST_ENDPOINTS}, so that it is not served; "
            "split it into several Services"
        )
        owned = {}
    return ServicePlan(
        service=service.name,
        ports=tuple(
            [
                _plan_port(
                    service,
                    service.ports[index],
                    family,
                    frontends=tuple(frontends),
                    endpoints=by_family[family],
                    node=node,
                    settings=settings,
                )
                for (index, family), frontends in owned.items()
            ]
        ),
        excluded_addresses=tuple([ip for ip in service.cluster_ips if is_excluded(service, ip, node, settings)]),
        problems=(*service.problems, *_problems_of(slices), *claims.problems, *problems.sentences()),
    )


def _problems_of(slices: Sequence[EndpointSlice]) -> tuple[str, ...]:
    """Return the problems of the first few slices that have any."""
    found: list[str] = []
    for one in slices:
        found += one.problems
    return tuple(found[: MOST_PROBLEMS + 1])


def _owned(
    service: Service, claims: Claims, ownership: FrontendOwnership
) -> tuple[dict[tuple[int, Family], list[Frontend]], list[tuple[FrontendKey, Claim]]]:
    """Return the frontends to serve by service port and family, and those that other Services own."""
    owned: dict[tuple[int, Family], list[Frontend]] = {}
    losses: list[tuple[FrontendKey, Claim]] = []
    for key, claim in claims.by_key.items():
        owner = ownership.owner(key)
        if owner.service != service.name:
            losses.append((key, owner))
        elif not claim.excluded:
            owned.setdefault((claim.port, family_of(key.address)), []).append(Frontend(key, claim.kind))
    return owned, losses


def _endpoints_by_port(slices: Sequence[EndpointSlice], family: Family) -> _PortEndpoints:
    """Return, for each port of the slices by name and protocol, its numbers with the endpoints that have them."""
    by_port: dict[tuple[str, Protocol], list[tuple[int, Sequence[Endpoint]]]] = {}
    for one in slices:
        if one.family is family:
            for name, protocol, number in one.ports:
                by_port.setdefault((name, protocol), []).append((number, one.endpoints))
    return by_port


def _plan_port(
    service: Service,
    port: ServicePort,
    family: Family,
    *,
    frontends: tuple[Frontend, ...],
    endpoints: _PortEndpoints,
    node: ThisNode,
    settings: Settings,
) -> ServicePortPlan:
    internal_local = service.internal_policy is TrafficPolicy.LOCAL
    externally_accessible = _externally_accessible(service, port, family)
    external_local = externally_accessible and service.external_policy is TrafficPolicy.LOCAL
    chosen = choose(
        merge(endpoints.get((port.name, port.protocol), ())),
        node_name=node.name,
        zone=node.zone,
        uses_cluster=externally_accessible or not internal_local,
        uses_local=internal_local or external_local,
    )
    filled = Filled(bool(chosen.cluster), bool(chosen.local), chosen.has_endpoints)
    return ServicePortPlan(
        key=ServicePortKey(service.name, port.name, port.protocol, family),
        frontends=frontends,
        cluster_set=chosen.cluster,
        local_set=chosen.local,
        cluster_rule=chosen.cluster_rule,
        local_rule=chosen.local_rule,
        lingering=chosen.lingering,
        has_endpoints=chosen.has_endpoints,
        internal_local=internal_local,
        external_local=external_local,
        affinity_seconds=service.affinity_seconds,
        source_ranges=source_ranges(service, family, node.primary(family)),
        cluster_ip_rules=cluster_ip_rules(
            filled,
            internal_local=internal_local,
            masquerade_all=settings.masquerade_all,
            detects_pods=node.detects_pods(family),
        ),
        external_rules=external_rules(filled, external_local=external_local),
    )


def _externally_accessible(service: Service, port: ServicePort, family: Family) -> bool:
    """Whether the service port has a NodePort, a VIP or an externalIP: only then external policies matter."""
    if port.node_port:
        return True
    return any(family_of(address) is family for address in (*service.load_balancer_ips, *service.external_ips))
