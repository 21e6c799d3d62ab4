# SPDX-License-Identifier: Apache-2.0
"""Traffic policies and the state of the sets to rules: what becomes of a connection from where."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from kubeproxy_ebpf.model.address import MAPPED_BITS, Address, Family, Prefix, family_of
from kubeproxy_ebpf.model.objects import Service
from kubeproxy_ebpf.plan.service_plan import EndpointSet, Rule, Source, Verdict

_HOST_LENGTH = 128


class Filled(NamedTuple):
    """Which sets of a service port have endpoints."""

    cluster: bool
    local: bool
    anywhere: bool
    """Some endpoint is usable somewhere in the cluster, whichever sets it is in."""


@functools.cache
def cluster_ip_rules(
    filled: Filled, *, internal_local: bool, masquerade_all: bool, detects_pods: bool
) -> Mapping[Source, Rule]:
    """Return the rules of a ClusterIP: internalTrafficPolicy decides, wherever the connection comes from."""
    endpoints = EndpointSet.LOCAL if internal_local else EndpointSet.CLUSTER
    return MappingProxyType(
        {
            source: _rule(filled, endpoints, masquerade=masquerade_all or (detects_pods and source is not Source.POD))
            for source in Source
        }
    )


@functools.cache
def external_rules(filled: Filled, *, external_local: bool) -> Mapping[Source, Rule]:
    """Return the rules of NodePorts, externalIPs and VIPs.

    Under externalTrafficPolicy Local this node's pods and processes keep the cluster set: they need
    not be told from each other by their addresses, as outside clients need for theirs to be preserved.
    """
    if not external_local:
        return MappingProxyType({source: _rule(filled, EndpointSet.CLUSTER, masquerade=True) for source in Source})
    return MappingProxyType(
        {
            Source.POD: _rule(filled, EndpointSet.CLUSTER, masquerade=False),
            Source.NODE: _rule(filled, EndpointSet.CLUSTER, masquerade=True),
            Source.OUTSIDE: _rule(filled, EndpointSet.LOCAL, masquerade=False),
        }
    )


def _rule(filled: Filled, endpoints: EndpointSet, *, masquerade: bool) -> Rule:
    if filled.cluster if endpoints is EndpointSet.CLUSTER else filled.local:
        return Rule(Verdict.DNAT, endpoints, masquerade)
    return Rule(Verdict.DROP if filled.anywhere else Verdict.REJECT, endpoints, masquerade)


def source_ranges(service: Service, family: Family, primary: Address | None) -> tuple[Prefix, ...] | None:
    """Return who may connect to the VIPs of a family, None for everybody.

    A family without ranges is open. Where this node is allowed, so are the VIPs as sources: a VIP that is
    bound on this node is what its own processes come from.
    """
    if not service.source_ranges:
        return None
    ranges = [prefix for prefix in service.source_ranges if prefix.family is family]
    vips = [address for address in service.load_balancer_ips if family_of(address) is family]
    everybody = MAPPED_BITS if family is Family.IPV4 else 0
    if not ranges or not vips or any(prefix.length == everybody for prefix in ranges):
        return None
    if primary is not None and any(primary in prefix for prefix in ranges):
        ranges += [Prefix(vip, _HOST_LENGTH) for vip in vips]
    return tuple(dict.fromkeys(ranges))
