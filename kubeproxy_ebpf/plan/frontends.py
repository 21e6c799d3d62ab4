# SPDX-License-Identifier: Apache-2.0
"""A Service to the frontends it claims on this node: ClusterIPs, externalIPs, VIPs, NodePorts on node addresses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from kubeproxy_ebpf.model.address import Address, Family, family_of, format_address
from kubeproxy_ebpf.model.objects import ObjectName, Service, ServicePort
from kubeproxy_ebpf.model.problems import Problems
from kubeproxy_ebpf.model.settings import Settings
from kubeproxy_ebpf.plan.service_plan import FrontendKey, FrontendKind
from kubeproxy_ebpf.plan.this_node import ThisNode

MOST_FRONTENDS = 100_000
"""Frontends of one Service on one node. One that asks for more gets none, so that the others keep theirs."""

_PRECEDENCE = {
    FrontendKind.CLUSTER_IP: 0,
    FrontendKind.LOAD_BALANCER: 1,  # before externalIPs, as its source ranges must hold where a Service has both
    FrontendKind.EXTERNAL_IP: 2,
    FrontendKind.NODE_PORT: 3,
}


class Claim(NamedTuple):
    """What a Service says of a frontend it wants. Of several claims to one frontend the least one wins."""

    precedence: int
    created: str
    service: ObjectName
    port: int
    """Index of the service port in ``Service.ports``."""
    kind: FrontendKind
    excluded: bool
    """Claimed, so that no other Service gets it, but not served."""


@dataclass(frozen=True, slots=True)
class Claims:
    """All frontends that a Service claims, and what is wrong with them."""

    by_key: dict[FrontendKey, Claim]
    problems: tuple[str, ...] = ()


def families_of(service: Service) -> tuple[Family, ...]:
    """Return the families that a Service has a ClusterIP of: those in which it exists at all."""
    return tuple(dict.fromkeys(map(family_of, service.cluster_ips)))


def is_excluded(service: Service, cluster_ip: Address, node: ThisNode, settings: Settings) -> bool:
    """Whether a ClusterIP is left alone: opted out, or bound to an interface of this node by somebody else."""
    if service.excluded or cluster_ip in node.interface_addresses:
        return True
    return any(cluster_ip in prefix for prefix in settings.exclude_cidrs)


def claims_of(service: Service, node: ThisNode, settings: Settings) -> Claims:
    """Work out the frontends that a Service claims, in a fixed order."""
    targets = _targets(service, node, settings)
    node_addresses = _node_addresses(service, node, settings)
    wanted = len(service.ports) * (len(targets) + len(node_addresses))
    problems = Problems("Service", service.name)
    if wanted > MOST_FRONTENDS:
        problems.add(
            f"its ports and addresses make up to {wanted} frontends, of at most {MOST_FRONTENDS}, so that none is "
            "served; split it into several Services"
        )
        return Claims({}, problems.sentences())
    by_key: dict[FrontendKey, Claim] = {}
    for index, port in enumerate(service.ports):
        for key, claim in _claims_of_port(service, index, port, targets, node_addresses):
            other = by_key.setdefault(key, claim)
            if other is claim:
                continue
            if other.port != index:
                problems.add(_sentence_on_sibling(service, key, claim, other))
            by_key[key] = min(claim, other)
    if any(port.node_port for port in service.ports) and not node_addresses and not service.excluded:
        problems.add(
            "its NodePorts answer nowhere on this node, as no address of its interfaces is selected; check "
            "nodePortAddresses and the Node's addresses"
        )
    return Claims(by_key, problems.sentences())


def _targets(service: Service, node: ThisNode, settings: Settings) -> list[tuple[FrontendKind, Address, bool]]:
    """Return the addresses, besides the node's own, on which all ports of the Service answer, with whether excluded."""
    targets = [(FrontendKind.CLUSTER_IP, ip, is_excluded(service, ip, node, settings)) for ip in service.cluster_ips]
    if service.excluded:
        return targets
    families = families_of(service)
    for kind, addresses in (
        (FrontendKind.LOAD_BALANCER, service.load_balancer_ips),
        (FrontendKind.EXTERNAL_IP, service.external_ips),
    ):
        targets += [
            (kind, address, False)
            for address in addresses
            if family_of(address) in families and not any(address in prefix for prefix in settings.exclude_cidrs)
        ]
    return targets


def _node_addresses(service: Service, node: ThisNode, settings: Settings) -> list[Address]:
    if service.excluded or not any(port.node_port for port in service.ports):
        return []
    return [
        address
        for family in families_of(service)
        for address in node.node_ports(family)
        if not any(address in prefix for prefix in settings.exclude_cidrs)
    ]


def _claims_of_port(
    service: Service,
    index: int,
    port: ServicePort,
    targets: list[tuple[FrontendKind, Address, bool]],
    node_addresses: list[Address],
) -> Iterator[tuple[FrontendKey, Claim]]:
    for kind, address, excluded in targets:
        claim = Claim(_PRECEDENCE[kind], service.created, service.name, index, kind, excluded)
        yield FrontendKey(address, port.port, port.protocol), claim
    if port.node_port:
        kind = FrontendKind.NODE_PORT
        claim = Claim(_PRECEDENCE[kind], service.created, service.name, index, kind, excluded=False)
        for address in node_addresses:
            yield FrontendKey(address, port.node_port, port.protocol), claim


def _sentence_on_sibling(service: Service, key: FrontendKey, claim: Claim, other: Claim) -> str:
    winner, loser = (service.ports[one.port].name for one in sorted((claim, other)))
    return (
        f"its ports {winner!r} and {loser!r} both ask for {describe(key)}, which {winner!r} gets; give them "
        "different numbers"
    )


def describe(key: FrontendKey) -> str:
    """Return a frontend as text, e.g. ``192.0.2.10 port 80/TCP``."""
    return f"{format_address(key.address)} port {key.port}/{key.protocol.name}"
