# SPDX-License-Identifier: Apache-2.0
"""A raw Service to the model."""

from __future__ import annotations

import sys

from kubeproxy_ebpf.decode import addresses, fields
from kubeproxy_ebpf.decode.errors import FieldError, show
from kubeproxy_ebpf.decode.fields import HIGHEST_PORT, LONGEST_LABEL, Raw
from kubeproxy_ebpf.decode.identity import Identity, read_object
from kubeproxy_ebpf.model.address import Address, Family, Prefix, family_of
from kubeproxy_ebpf.model.objects import Ignored, Service, ServicePort, TrafficPolicy

LABEL_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
ANNOTATION_EXCLUDE = "kubeproxy-ebpf.io/exclude"

MOST_PORTS = 10_000
MOST_ADDRESSES = 1_000
"""External IPs of a Service, and its load balancer's addresses."""
MOST_SOURCE_RANGES = 10_000
DEFAULT_AFFINITY_SECONDS = 10_800
LONGEST_AFFINITY_SECONDS = 86_400


def decode_service(raw: object) -> Service | Ignored:
    """Read a Service.

    Raises:
        ObjectError: the object is malformed as a whole.
    """
    return read_object("Service", "v1", raw, _read, namespaced=True)


def _read(body: Raw, identity: Identity) -> Service | Ignored:
    if len(identity.name.name) > LONGEST_LABEL:
        raise FieldError("metadata.name", "is too long", f"write at most {LONGEST_LABEL} characters")
    spec = fields.mapping(body, "spec")
    with fields.Inside("spec"):
        reason = _reason_to_ignore(identity, spec)
    if reason:
        return Ignored(kind="Service", name=identity.name, reason=reason, uid=identity.uid)
    with fields.Inside("status"):
        load_balancer = fields.mapping(fields.mapping(body, "status"), "loadBalancer")
    return _service(identity, spec, load_balancer)


def _reason_to_ignore(identity: Identity, spec: Raw) -> str:
    if LABEL_PROXY_NAME in identity.labels:
        return f"is another proxy's (label {LABEL_PROXY_NAME})"
    if fields.text(spec, "type") == "ExternalName":
        return "is of type ExternalName"
    cluster_ip = fields.text(spec, "clusterIP")
    if cluster_ip == "None":
        return "is headless"
    return "" if cluster_ip else "has no ClusterIP"


def _service(identity: Identity, spec: Raw, load_balancer: Raw) -> Service:
    external_ips = identity.usable("spec.externalIPs", spec, MOST_ADDRESSES, addresses.parse_frontend)
    vips = identity.usable("status.loadBalancer.ingress", load_balancer, MOST_ADDRESSES, _load_balancer_ip)
    cluster_ips = _cluster_ips(identity, spec)
    ports = _ports(identity, spec)
    with fields.Inside("spec"):
        kind = fields.text(spec, "type", "ClusterIP")
        internal_policy = _policy(identity, spec, "internalTrafficPolicy")
        external_policy = _policy(identity, spec, "externalTrafficPolicy")
        if kind not in {"NodePort", "LoadBalancer"} and not external_ips:
            external_policy = TrafficPolicy.CLUSTER
        health_check_node_port = 0
        if kind == "LoadBalancer" and external_policy is TrafficPolicy.LOCAL:
            health_check_node_port = fields.integer(spec, "healthCheckNodePort", 0, HIGHEST_PORT, 0)
        affinity_seconds = _affinity_seconds(identity, spec)
        source_ranges = _source_ranges(spec)
    with fields.Inside("metadata"):
        created = sys.intern(fields.text(identity.metadata, "creationTimestamp"))
    excluded = _excluded(identity)
    return Service(
        name=identity.name,
        uid=identity.uid,
        created=created,
        cluster_ips=cluster_ips,
        external_ips=tuple(dict.fromkeys(external_ips)),
        load_balancer_ips=tuple(dict.fromkeys(vips)),
        ports=ports,
        source_ranges=source_ranges,
        internal_policy=internal_policy,
        external_policy=external_policy,
        affinity_seconds=affinity_seconds,
        health_check_node_port=health_check_node_port,
        excluded=excluded,
        problems=identity.problems.sentences(),
    )


def _load_balancer_ip(value: object) -> Address | None:
    """Return the VIP of a load balancer's ingress, or nothing where the load balancer is a host name or a proxy."""
    ingress = fields.as_mapping(value)
    if fields.text(ingress, "ipMode", "VIP") != "VIP" or not fields.text(ingress, "ip"):
        return None
    with fields.Inside("ip"):
        return addresses.parse_frontend(ingress["ip"])


def _cluster_ips(identity: Identity, spec: Raw) -> tuple[Address, ...]:
    """Return one ClusterIP for each family that the Service has."""
    several = spec if spec.get("clusterIPs") else {"clusterIPs": [spec["clusterIP"]]}
    by_family: dict[Family, Address] = {}

    def read(value: object) -> None:
        address = addresses.parse_frontend(value)
        if by_family.setdefault(family_of(address), address) != address:
            raise FieldError("", f"is {show(value)}, a second address of its family", "write one ClusterIP per family")

    identity.usable("spec.clusterIPs", several, MOST_ADDRESSES, read)
    if not by_family:
        raise FieldError("spec.clusterIPs", "has no usable address", "write the IP address of the Service")
    return tuple(by_family.values())


def _ports(identity: Identity, spec: Raw) -> tuple[ServicePort, ...]:
    ports: dict[tuple[str, int], ServicePort] = {}

    def read(value: object) -> None:
        port = _port(value)
        if ports.setdefault((port.name, port.protocol), port) is not port:
            raise FieldError("name", f"is {show(port.name)} again", "give each port a name of its own")

    identity.usable("spec.ports", spec, MOST_PORTS, read)
    return tuple(ports.values())


def _port(value: object) -> ServicePort:
    raw = fields.as_mapping(value)
    return ServicePort(
        name=fields.port_name(raw),
        protocol=fields.protocol(raw),
        port=fields.port_number(raw, "port"),
        node_port=fields.integer(raw, "nodePort", 0, HIGHEST_PORT, 0),
    )


def _source_ranges(spec: Raw) -> tuple[Prefix, ...]:
    """Return the ranges; one that cannot be read refuses the Service, as leaving it out might open what it guards."""
    if spec.get("loadBalancerSourceRanges") is None:
        return ()
    ranges: dict[Prefix, None] = {}
    for index, value in enumerate(fields.sequence(spec, "loadBalancerSourceRanges", MOST_SOURCE_RANGES)):
        with fields.Inside(f"loadBalancerSourceRanges[{index}]"):
            ranges[addresses.parse_cidr(value)] = None
    return tuple(ranges)


def _policy(identity: Identity, spec: Raw, key: str) -> TrafficPolicy:
    """Return a traffic policy; whatever is not Local is Cluster, as for kube-proxy."""
    value = fields.text(spec, key) or "Cluster"
    if value == "Local":
        return TrafficPolicy.LOCAL
    if value != "Cluster":
        error = FieldError(key, f"is {show(value)} and counts as Cluster", "write Cluster or Local")
        identity.problem("spec", error)
    return TrafficPolicy.CLUSTER


def _affinity_seconds(identity: Identity, spec: Raw) -> int:
    """Return how long a client keeps its endpoint, 0 without session affinity."""
    affinity = fields.text(spec, "sessionAffinity") or "None"
    if affinity != "ClientIP":
        if affinity != "None":
            error = FieldError("sessionAffinity", f"is {show(affinity)} and counts as None", "write None or ClientIP")
            identity.problem("spec", error)
        return 0
    with fields.Inside("sessionAffinityConfig"):
        client_ip = fields.mapping(fields.mapping(spec, "sessionAffinityConfig"), "clientIP")
    try:
        return fields.integer(client_ip, "timeoutSeconds", 1, LONGEST_AFFINITY_SECONDS, DEFAULT_AFFINITY_SECONDS)
    except FieldError as error:
        identity.problem("spec.sessionAffinityConfig.clientIP", error)
        return DEFAULT_AFFINITY_SECONDS


def _excluded(identity: Identity) -> bool:
    """Whether the Service opted out."""
    value = identity.annotations.get(ANNOTATION_EXCLUDE)
    if value is not None and value not in ("true", "false"):
        error = FieldError(ANNOTATION_EXCLUDE, f"is {show(value)} and has no effect", 'write "true" or "false"')
        identity.problem("metadata.annotations", error)
    return value == "true"
