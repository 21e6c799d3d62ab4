# SPDX-License-Identifier: Apache-2.0
"""The endpoints of a service port to its two sets, by readiness, hints and the terminating fallback.

The cluster set serves policy Cluster, and this node's own pods and processes under externalTrafficPolicy Local.
The local set serves policy Local. Either falls back to terminating endpoints by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.model.objects import Endpoint
from kubeproxy_ebpf.plan.service_plan import PlannedEndpoint, SetRule

Candidates = Mapping[tuple[Address, int], Endpoint]
"""The endpoints of a service port, one per address and port."""

_Candidate = tuple[PlannedEndpoint, Endpoint]


class EndpointChoice(NamedTuple):
    """The sets of a service port; all sorted by address and port."""

    cluster: tuple[PlannedEndpoint, ...]
    local: tuple[PlannedEndpoint, ...]
    lingering: tuple[PlannedEndpoint, ...]
    """In neither set, but still serving."""
    has_endpoints: bool
    """Some endpoint is usable somewhere in the cluster."""
    cluster_rule: SetRule = SetRule.READY
    local_rule: SetRule = SetRule.READY


NO_ENDPOINTS = EndpointChoice((), (), (), has_endpoints=False)


def merge(parts: Iterable[tuple[int, Sequence[Endpoint]]]) -> Candidates:
    """Merge endpoints of several slices, given with their port, in a fixed order of the slices.

    Of two with the same address and port the one that is not terminating wins, then the ready one, then the first.
    """
    candidates: dict[tuple[Address, int], Endpoint] = {}
    for port, endpoints in parts:
        for endpoint in endpoints:
            key = (endpoint.address, port)
            other = candidates.setdefault(key, endpoint)
            if other is not endpoint and _rank(endpoint) < _rank(other):
                candidates[key] = endpoint
    return candidates


def _rank(endpoint: Endpoint) -> tuple[bool, bool, bool]:
    return endpoint.terminating, not endpoint.ready, not endpoint.serving


def choose(
    candidates: Candidates, *, node_name: str, zone: str, uses_cluster: bool, uses_local: bool
) -> EndpointChoice:
    """Choose the sets, as kube-proxy's CategorizeEndpoints does; a set that no policy uses stays empty."""
    if not candidates:
        return NO_ENDPOINTS
    everyone = [
        (PlannedEndpoint(address, port, endpoint.node_name == node_name, endpoint.node_name), endpoint)
        for address, port in sorted(candidates)
        for endpoint in (candidates[address, port],)
    ]
    ready = [candidate for candidate in everyone if candidate[1].ready]
    fallback = [] if len(ready) == len(everyone) else [one for one in everyone if one[1].serving and one[1].terminating]
    cluster: list[PlannedEndpoint] = []
    cluster_rule = local_rule = SetRule.READY
    if uses_cluster:
        cluster_rule, near = _near(ready, node_name, zone) if ready else (_fallback_rule(fallback), fallback)
        cluster = [planned for planned, _ in near]
    local: list[PlannedEndpoint] = []
    if uses_local:
        local = [planned for planned, _ in ready if planned.local]
        if not local:
            local = [planned for planned, _ in fallback if planned.local]
            local_rule = _fallback_rule(local)
    return EndpointChoice(
        tuple(cluster),
        tuple(local),
        _lingering(everyone, cluster, local, active=bool(ready)),
        has_endpoints=bool(ready or fallback),
        cluster_rule=cluster_rule,
        local_rule=local_rule,
    )


def _fallback_rule(fallback: Sequence[object]) -> SetRule:
    return SetRule.TERMINATING if fallback else SetRule.READY


def _near(ready: list[_Candidate], node_name: str, zone: str) -> tuple[SetRule, list[_Candidate]]:
    """Filter ready endpoints by hints: those for this node, else those for its zone, else all.

    Hints of a kind count only if every ready endpoint has some, and one of them is meant for here.
    """
    if all(endpoint.node_hints for _, endpoint in ready):
        here = [candidate for candidate in ready if node_name in candidate[1].node_hints]
        if here:
            return SetRule.NODE_HINTS, here
    if zone and all(endpoint.zone_hints for _, endpoint in ready):
        here = [candidate for candidate in ready if zone in candidate[1].zone_hints]
        if here:
            return SetRule.ZONE_HINTS, here
    return SetRule.READY, ready


def _lingering(
    everyone: list[_Candidate], cluster: list[PlannedEndpoint], local: list[PlannedEndpoint], *, active: bool
) -> tuple[PlannedEndpoint, ...]:
    """Return the serving endpoints in no set; terminating ones only while no active one could take over."""
    if len(cluster) == len(everyone):
        return ()
    chosen = {*cluster, *local}
    return tuple(
        planned
        for planned, endpoint in everyone
        if endpoint.serving and planned not in chosen and not (active and endpoint.terminating and not endpoint.ready)
    )
