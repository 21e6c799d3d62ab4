# SPDX-License-Identifier: Apache-2.0
"""What the programs decided, in words. They have judged already; here everything only gets its name."""

from __future__ import annotations

from typing import NamedTuple

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.cli.inventory import KINDS, host_and_port, policy
from kubeproxy_ebpf.cli.trace_target import Client
from kubeproxy_ebpf.datapath.trace import Answer, Trace
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.map_schema import BackendEntry
from kubeproxy_ebpf.map_store import MapStore
from kubeproxy_ebpf.model.address import Family, family_of
from kubeproxy_ebpf.model.objects import Protocol
from kubeproxy_ebpf.plan.service_plan import FrontendKey, FrontendKind, SetRule, Source, Verdict

SOURCE_UNKNOWN = "source_unknown"
_SOURCE_NOT_ALLOWED = "source_not_allowed"
_NO_LOCAL_ENDPOINTS = "no_local_endpoints"

_REASONS = {
    "no_endpoints": "no endpoint is usable anywhere",
    _SOURCE_NOT_ALLOWED: "the client is outside loadBalancerSourceRanges",
    SOURCE_UNKNOWN: "loadBalancerSourceRanges ask for the client's address: add it to --from",
    "unknown_port": "the ClusterIP has no such port",
    "unallocated_address": "in serviceCIDRs, and no Service's",
    "loopback_source": "no endpoint can be reached from a loopback address",
    "missing_entry": "an entry that must be there is missing in the maps",
    "no_free_port": "no source port is left under which answers could be told apart",
    "no_device_address": "the device that the route chose has no address of the packet's family",
    "lost_fragment": "a later fragment whose first one was not seen",
    "flows_full": "the table of connections has no room for one more",
}
_MEMBERS = {
    SetRule.READY: "endpoints that are ready",
    SetRule.NODE_HINTS: "endpoints that are ready and hinted for this node",
    SetRule.ZONE_HINTS: "endpoints that are ready and hinted for this node's zone",
    SetRule.TERMINATING: "endpoints that serve while they terminate, as none is ready",
}


class EndpointRow(NamedTuple):
    """One endpoint that may be picked."""

    endpoint: str
    on_this_node: bool
    masquerade: bool
    """Whether the rules give packets to it an address of this node as their source."""


class Explanation(NamedTuple):
    """What becomes of a connection, and why."""

    source: str
    destination: str
    service: str
    """Namespace, name and port; empty: no Service's."""
    kind: str
    verdict: str
    """DNAT, REJECT, DROP, PASS; UNKNOWN if too little is known of the client."""
    reason: str
    """As ``dump counters`` names it; empty for DNAT and PASS."""
    because: str
    endpoints: tuple[EndpointRow, ...]
    affinity_seconds: int
    affinity_endpoint: str
    """Where session affinity sends this client now; empty: nowhere yet."""
    hooks: tuple[str, ...]
    """Which of them carry it out. Empty: none does, whatever the verdict; the connection passes untouched."""


class Names:
    """What the ids in an answer stand for, as the maps have it."""

    def __init__(self, maps: MapStore) -> None:
        """Use these maps, which stay the caller's; names are read once."""
        self._maps = maps
        self._names = dict(maps.entries(HashMap.SERVICE_NAMES))

    def service(self, number: int) -> str:
        """Return a service port's namespace, name and port; empty for none, the number if it has no name any more."""
        if not number:
            return ""
        value = self._names.get(map_schema.pack_u32(number))
        name = map_schema.unpack_name(value) if value else None
        if name is None:
            return str(number)
        return f"{name.service}:{name.port}" if name.port else str(name.service)

    def backend(self, number: int) -> BackendEntry:
        """Return a backend's entry."""
        size = map_schema.ENTRY_SIZES[ArrayMap.BACKENDS]
        data = self._maps.read(ArrayMap.BACKENDS, number * size, (number + 1) * size)
        return next(map_schema.unpack_backends(data))


def explain(
    key: FrontendKey, client: Client, trace: Trace, names: Names, *, has_packet_path: bool = False
) -> Explanation:
    """Put a trace into words. ``has_packet_path``: the packet programs are loaded."""
    answer = trace.answer
    reason = map_schema.REASONS[answer.reason] if answer.reason else ""
    if reason == _SOURCE_NOT_ALLOWED and client.address is None and client.source is not Source.NODE:
        reason = SOURCE_UNKNOWN
    return Explanation(
        source=str(client),
        destination=f"{host_and_port(key.address, key.port)}/{key.protocol.name}",
        service=names.service(answer.service),
        kind=KINDS[FrontendKind(answer.frontend_kind)] if answer.frontend_kind else "",
        verdict="UNKNOWN" if reason == SOURCE_UNKNOWN else answer.verdict.name,
        reason=reason,
        because=_because(answer, reason, client.source),
        endpoints=tuple(_endpoint(names, number, masquerade) for number, masquerade in trace.candidates.items()),
        affinity_seconds=answer.affinity_seconds,
        affinity_endpoint=_endpoint(names, answer.backend, masquerade=False).endpoint if answer.by_affinity else "",
        hooks=hooks(key, client.source, has_packet_path=has_packet_path),
    )


def hooks(key: FrontendKey, source: Source, *, has_packet_path: bool) -> tuple[str, ...]:
    """Return the hooks that see a connection."""
    if key.protocol is Protocol.SCTP:
        return ()
    if source is Source.OUTSIDE:
        return ("forward_ingress",) if has_packet_path else ()
    suffix = "4" if family_of(key.address) is Family.IPV4 else "6"
    names = ("connect", "sendmsg") if key.protocol is Protocol.UDP else ("connect",)
    return tuple(name + suffix for name in names)


def _because(answer: Answer, reason: str, source: Source) -> str:
    if reason == _NO_LOCAL_ENDPOINTS:
        return f"{_policy(answer, source)}, and no endpoint of this node is usable"
    if reason:
        return _REASONS.get(reason, reason)
    if answer.verdict is Verdict.DNAT:
        cluster, local = map_schema.set_rules(answer.service_flags)
        where = "this node's " if answer.is_local_set else ""
        return f"{_policy(answer, source)}: {where}{_MEMBERS[local if answer.is_local_set else cluster]}"
    if answer.address_kinds & map_schema.ADDRESS_EXCLUDED:
        return "the address is excluded"
    return "a Service's address, but not its port" if answer.address_kinds else "no Service's address, or excluded"


def _policy(answer: Answer, source: Source) -> str:
    if answer.frontend_kind == FrontendKind.CLUSTER_IP:
        return f"internalTrafficPolicy {policy(answer.service_flags & map_schema.SERVICE_INTERNAL_LOCAL)}"
    is_local = answer.service_flags & map_schema.SERVICE_EXTERNAL_LOCAL
    exempt = " (not for clients on this node)" if is_local and source is not Source.OUTSIDE else ""
    return f"externalTrafficPolicy {policy(is_local)}{exempt}"


def _endpoint(names: Names, number: int, masquerade: bool) -> EndpointRow:  # noqa: FBT001 -- a field's value
    entry = names.backend(number)
    on_this_node = bool(entry.flags & map_schema.BACKEND_LOCAL)
    return EndpointRow(host_and_port(entry.address, entry.port), on_this_node, masquerade)
