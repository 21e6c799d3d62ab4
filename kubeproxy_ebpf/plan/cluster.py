# SPDX-License-Identifier: Apache-2.0
"""The newest objects to the plans of the Services that they touch.

Level-based: whoever watches the objects hands over the newest of each; whoever applies plans takes the names
of the Services that may have changed and asks for the plan of each. Work is proportional to what changed.
"""

from __future__ import annotations

from collections.abc import Iterable

from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.model.objects import EndpointSlice, Ignored, ObjectName, Service
from kubeproxy_ebpf.model.settings import NodeState, Settings
from kubeproxy_ebpf.plan.frontends import Claims, claims_of
from kubeproxy_ebpf.plan.ownership import FrontendOwnership
from kubeproxy_ebpf.plan.planner import plan_service
from kubeproxy_ebpf.plan.service_plan import ServicePlan
from kubeproxy_ebpf.plan.this_node import ThisNode, this_node

_NO_CLAIMS = Claims({})


class ClusterState:
    """What Kubernetes says at this moment, as far as this node is concerned. Not safe for threads."""

    def __init__(self, settings: Settings, node: NodeState) -> None:
        """Start without Services."""
        self._settings = settings
        self._node_state = node
        self._node = this_node(node, settings)
        self._services: dict[ObjectName, Service] = {}
        self._claims: dict[ObjectName, Claims] = {}
        self._ownership = FrontendOwnership()
        self._by_cluster_ip: dict[Address, tuple[ObjectName, ...]] = {}
        self._slices: dict[ObjectName, EndpointSlice] = {}
        self._slices_of: dict[ObjectName, dict[ObjectName, EndpointSlice]] = {}
        self._dirty: dict[ObjectName, None] = {}

    @property
    def services(self) -> Iterable[ObjectName]:
        """The names of all Services there are."""
        return self._services.keys()

    @property
    def endpoint_slices(self) -> Iterable[ObjectName]:
        """The names of all EndpointSlices there are."""
        return self._slices.keys()

    def service(self, name: ObjectName) -> Service | None:
        """Return the newest state of a Service."""
        return self._services.get(name)

    def observe(self, newest: Service | EndpointSlice | Ignored) -> None:
        """Take over the newest state of an object, as the decoder gives it."""
        match newest:
            case Service():
                self.set_service(newest)
            case EndpointSlice():
                self.set_endpoint_slice(newest)
            case Ignored(kind="EndpointSlice"):
                self.delete_endpoint_slice(newest.name)
            case Ignored():
                self.delete_service(newest.name)

    def set_service(self, service: Service) -> None:
        """Add or replace a Service."""
        old = self._services.get(service.name)
        if old == service:
            return
        self._services[service.name] = service
        self._index_cluster_ips(service.name, old.cluster_ips if old else (), service.cluster_ips)
        self._dirty[service.name] = None
        self._claim(service)

    def delete_service(self, name: ObjectName, uid: str = "") -> None:
        """Remove a Service. With a uid only if it is still that one, and not another one of the same name."""
        old = self._services.get(name)
        if old is None or _is_another(old.uid, uid):
            return
        del self._services[name]
        self._index_cluster_ips(name, old.cluster_ips, ())
        self._dirty[name] = None
        self._touch(self._ownership.replace(self._claims.pop(name).by_key, {}))

    def set_endpoint_slice(self, newest: EndpointSlice) -> None:
        """Add or replace an EndpointSlice; its Service may come later, or have changed."""
        old = self._slices.get(newest.name)
        self._slices[newest.name] = newest
        if old is not None and old.service != newest.service:
            self._forget_slice(old)
            old = None
        self._slices_of.setdefault(newest.service, {})[newest.name] = newest
        if old is None or _differ(old, newest):
            self._touch((newest.service,))

    def delete_endpoint_slice(self, name: ObjectName, uid: str = "") -> None:
        """Remove an EndpointSlice. With a uid only if it is still that one."""
        old = self._slices.get(name)
        if old is None or _is_another(old.uid, uid):
            return
        del self._slices[name]
        self._forget_slice(old)

    def set_node(self, state: NodeState) -> None:
        """Take over what is known of this node now."""
        self._node_state = state
        self._renew_node()

    def set_settings(self, settings: Settings) -> None:
        """Take over new settings. They touch every Service."""
        if settings == self._settings:
            return
        self._settings = settings
        self._node = this_node(self._node_state, settings)
        for service in self._services.values():
            self._dirty[service.name] = None
            self._claim(service)

    def take_dirty(self) -> tuple[ObjectName, ...]:
        """Return the Services whose plan may have changed since the last call, in the order of the changes."""
        dirty = tuple(self._dirty)
        self._dirty = {}
        return dirty

    def plan(self, name: ObjectName) -> ServicePlan | None:
        """Plan a Service; None if there is none of that name (any more)."""
        service = self._services.get(name)
        if service is None:
            return None
        by_name = self._slices_of.get(name, {})
        slices = [by_name[key] for key in sorted(by_name)] if len(by_name) > 1 else by_name.values()
        return plan_service(
            service,
            slices,
            claims=self._claims[name],
            ownership=self._ownership,
            node=self._node,
            settings=self._settings,
        )

    def _claim(self, service: Service) -> None:
        """Replace a Service's claims; it and whoever claims the same may gain or lose frontends."""
        old = self._claims.get(service.name, _NO_CLAIMS)
        new = claims_of(service, self._node, self._settings)
        self._claims[service.name] = new
        self._touch(self._ownership.replace(old.by_key, new.by_key))

    def _touch(self, names: Iterable[ObjectName]) -> None:
        for name in names:
            if name in self._services:
                self._dirty[name] = None

    def _forget_slice(self, old: EndpointSlice) -> None:
        of_service = self._slices_of[old.service]
        del of_service[old.name]
        if not of_service:
            del self._slices_of[old.service]
        self._touch((old.service,))

    def _index_cluster_ips(self, name: ObjectName, old: tuple[Address, ...], new: tuple[Address, ...]) -> None:
        for address in set(old) - set(new):
            rest = tuple(other for other in self._by_cluster_ip[address] if other != name)
            if rest:
                self._by_cluster_ip[address] = rest
            else:
                del self._by_cluster_ip[address]
        for address in set(new) - set(old):
            self._by_cluster_ip[address] = (*self._by_cluster_ip.get(address, ()), name)

    def _renew_node(self) -> None:
        """Work out the node's facts anew, and touch the Services that a difference matters to."""
        old, self._node = self._node, this_node(self._node_state, self._settings)
        if old == self._node:
            return
        for name in self._affected_by(old, self._node):
            self._dirty[name] = None
            self._claim(self._services[name])

    def _affected_by(self, old: ThisNode, new: ThisNode) -> set[ObjectName]:
        affected = {
            name
            for address in old.interface_addresses ^ new.interface_addresses
            for name in self._by_cluster_ip.get(address, ())
        }
        if old.name != new.name or _detection(old) != _detection(new):
            return set(self._services)
        if old.zone != new.zone:
            affected |= {name for name in self._services if self._has_zone_hints(name)}
        if (old.primary_ipv4, old.primary_ipv6) != (new.primary_ipv4, new.primary_ipv6):
            affected |= {name for name, service in self._services.items() if service.source_ranges}
        if (old.node_ports_ipv4, old.node_ports_ipv6) != (new.node_ports_ipv4, new.node_ports_ipv6):
            affected |= {
                name for name, service in self._services.items() if any(port.node_port for port in service.ports)
            }
        return affected

    def _has_zone_hints(self, name: ObjectName) -> bool:
        slices = self._slices_of.get(name, {}).values()
        return any(endpoint.zone_hints for one in slices for endpoint in one.endpoints)


def _is_another(known: str, uid: str) -> bool:
    """Whether two uids, either of which may be unknown (empty), tell two objects of one name apart."""
    return bool(known and uid) and known != uid


def _differ(old: EndpointSlice, new: EndpointSlice) -> bool:
    """Whether a difference between two states of a slice can change a plan."""
    return (old.endpoints, old.ports, old.family, old.problems) != (
        new.endpoints,
        new.ports,
        new.family,
        new.problems,
    )


def _detection(node: ThisNode) -> tuple[bool, bool]:
    return node.detects_pods_ipv4, node.detects_pods_ipv6
