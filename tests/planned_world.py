# SPDX-License-Identifier: Apache-2.0
"""What plans make of connections, by the rules of the plan alone, compared with what the table of cases says."""

from __future__ import annotations

from collections.abc import Collection

from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.model.settings import NodeState, Settings
from kubeproxy_ebpf.plan.service_plan import (
    EndpointSet,
    FrontendKey,
    FrontendKind,
    PlannedEndpoint,
    ServicePlan,
    ServicePortPlan,
    Verdict,
)
from tests.behaviour import Flow


class PlannedWorld:
    """The plans of all Services, and what they make of a connection."""

    def __init__(self, plans: Collection[ServicePlan], settings: Settings, node: NodeState) -> None:
        """Index the plans; no two Services may own one frontend."""
        self.settings = settings
        self.own_addresses = node.interface_addresses
        self.excluded = {address for plan in plans for address in plan.excluded_addresses}
        self.frontends: dict[FrontendKey, tuple[FrontendKind, ServicePortPlan]] = {}
        for plan in plans:
            for port in plan.ports:
                for key, kind in port.frontends:
                    assert key not in self.frontends, f"{key} has two owners"
                    self.frontends[key] = kind, port
        self.cluster_ips = {key.address for key, (kind, _) in self.frontends.items() if kind is FrontendKind.CLUSTER_IP}

    def verdict(self, flow: Flow) -> tuple[Verdict, tuple[PlannedEndpoint, ...], bool]:
        """Return the verdict, the endpoints that may be picked, and whether all are masqueraded."""
        address = flow.destination.address
        if address in self.excluded or any(address in prefix for prefix in self.settings.exclude_cidrs):
            return Verdict.PASS, (), False
        found = self.frontends.get(flow.destination)
        if found is None:
            if address in self.cluster_ips:
                return Verdict.REJECT, (), False
            unallocated = any(address in prefix for prefix in self.settings.service_cidrs)
            return Verdict.DROP if unallocated else Verdict.PASS, (), False
        kind, port = found
        if kind is FrontendKind.LOAD_BALANCER and not _is_allowed(flow.source_address, port):
            return Verdict.DROP, (), False
        rules = port.cluster_ip_rules if kind is FrontendKind.CLUSTER_IP else port.external_rules
        rule = rules[flow.source]
        if rule.verdict is not Verdict.DNAT:
            return rule.verdict, (), False
        return (
            rule.verdict,
            port.cluster_set if rule.endpoints is EndpointSet.CLUSTER else port.local_set,
            rule.masquerade,
        )

    def masqueraded(self, flow: Flow, endpoints: tuple[PlannedEndpoint, ...], *, by_rule: bool) -> set[Address]:
        """Return the endpoints whose connections are masqueraded: hairpins too, but nothing that stays on the node."""
        return {
            endpoint.address
            for endpoint in endpoints
            if (by_rule or endpoint.address == flow.source_address) and endpoint.address not in self.own_addresses
        }


def _is_allowed(source: Address, port: ServicePortPlan) -> bool:
    return port.source_ranges is None or any(source in prefix for prefix in port.source_ranges)


def check_flow(world: PlannedWorld, flow: Flow) -> None:
    """Check what becomes of a connection, masquerade and all."""
    verdict, endpoints, by_rule = world.verdict(flow)
    assert verdict is flow.verdict, flow.text
    assert tuple((endpoint.address, endpoint.port) for endpoint in endpoints) == flow.endpoints, flow.text
    if flow.masquerade is not None:
        everyone = {endpoint.address for endpoint in endpoints}
        expected = everyone if flow.masquerade is True else flow.masquerade or set()
        assert world.masqueraded(flow, endpoints, by_rule=by_rule) == expected, flow.text
    if flow.affinity is not None:
        assert world.frontends[flow.destination][1].affinity_seconds == flow.affinity, flow.text
    if flow.service_port is not None:
        assert str(world.frontends[flow.destination][1].key) == flow.service_port, flow.text


def check_sentences(given: list[str], expected: tuple[str, ...]) -> None:
    """Each expected part stands in a sentence of its own, and no sentence is unexpected."""
    for part in expected:
        assert any(part in sentence for sentence in given), f"nobody says {part!r}: {given}"
    unexpected = [sentence for sentence in given if not any(part in sentence for part in expected)]
    assert not unexpected
