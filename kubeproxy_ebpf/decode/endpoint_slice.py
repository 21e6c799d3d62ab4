# SPDX-License-Identifier: Apache-2.0
"""A raw EndpointSlice to the model."""

from __future__ import annotations

import functools
import sys

from kubeproxy_ebpf.decode import addresses, fields
from kubeproxy_ebpf.decode.errors import FieldError, show
from kubeproxy_ebpf.decode.fields import HIGHEST_PORT, LONGEST_LABEL, Raw
from kubeproxy_ebpf.decode.identity import Identity, read_object
from kubeproxy_ebpf.model.address import Family
from kubeproxy_ebpf.model.objects import Endpoint, EndpointPort, EndpointSlice, Ignored, ObjectName

LABEL_SERVICE_NAME = "kubernetes.io/service-name"
LABEL_HEADLESS = "service.kubernetes.io/headless"
ANNOTATION_CHANGED_AT = "endpoints.kubernetes.io/last-change-trigger-time"

MOST_ENDPOINTS = 10_000
MOST_PORTS = 10_000
MOST_ADDRESSES = 100
"""Addresses of one endpoint; only the first is used."""
MOST_HINTS = 100

_FAMILIES = {"IPv4": Family.IPV4, "IPv6": Family.IPV6}


def decode_endpoint_slice(raw: object) -> EndpointSlice | Ignored:
    """Read an EndpointSlice.

    Raises:
        ObjectError: the object is malformed as a whole.
    """
    return read_object("EndpointSlice", "discovery.k8s.io/v1", raw, _read, namespaced=True)


def _read(body: Raw, identity: Identity) -> EndpointSlice | Ignored:
    with fields.Inside("metadata.labels"):
        service = fields.text(identity.labels, LABEL_SERVICE_NAME, longest=LONGEST_LABEL)
    address_type = fields.text(body, "addressType")
    if not address_type:
        raise FieldError("addressType", "is missing", "write IPv4 or IPv6")
    family = _FAMILIES.get(address_type)
    reason = ""
    if LABEL_HEADLESS in identity.labels:
        reason = f"belongs to a headless Service (label {LABEL_HEADLESS})"
    elif not service:
        reason = f"belongs to no Service (label {LABEL_SERVICE_NAME})"
    elif family is None:
        reason = f"has addresses of type {show(address_type)}"
    if reason or family is None:
        return Ignored(kind="EndpointSlice", name=identity.name, reason=reason, uid=identity.uid)
    return _endpoint_slice(identity, body, ObjectName(identity.name.namespace, sys.intern(service)), family)


def _endpoint_slice(identity: Identity, body: Raw, service: ObjectName, family: Family) -> EndpointSlice:
    ports = identity.usable("ports", body, MOST_PORTS, _port)
    endpoints = identity.usable("endpoints", body, MOST_ENDPOINTS, functools.partial(_endpoint, family=family))
    with fields.Inside("metadata.annotations"):
        changed_at = fields.text(identity.annotations, ANNOTATION_CHANGED_AT)
    return EndpointSlice(
        name=identity.name,
        service=service,
        family=family,
        uid=identity.uid,
        ports=tuple(dict.fromkeys(ports)),
        endpoints=tuple(endpoints),
        changed_at=changed_at,
        problems=identity.problems.sentences(),
    )


def _port(value: object) -> EndpointPort | None:
    """Return a port, or nothing for "all ports" (no number), which no proxy serves."""
    raw = fields.as_mapping(value)
    number = fields.integer(raw, "port", 0, HIGHEST_PORT, 0)
    if not number:
        return None
    if raw.get("name") is None:
        raise FieldError("name", "is missing, so that no port of the Service matches", 'write "" for an unnamed port')
    return EndpointPort(fields.port_name(raw), fields.protocol(raw), number)


def _endpoint(value: object, family: Family) -> Endpoint:
    return _usual_endpoint(value, family) or careful_endpoint(value, family)


def _usual_endpoint(value: object, family: Family) -> Endpoint | None:
    """Read an endpoint written as Kubernetes' own controller writes it, at a third of the price; None: any other."""
    if not isinstance(value, dict) or family is not Family.IPV4 or "hints" in value:
        return None
    texts, conditions, node_name = value.get("addresses"), value.get("conditions"), value.get("nodeName")
    if not (isinstance(texts, list) and len(texts) == 1 and isinstance(conditions, dict)):
        return None
    condition = conditions.get
    ready, serving, terminating = condition("ready", True), condition("serving", True), condition("terminating", False)  # noqa: FBT003 - dict.get
    if not (isinstance(ready, bool) and isinstance(serving, bool) and isinstance(terminating, bool)):
        return None
    address = addresses.usual_ipv4(texts[0])
    if address is None or not isinstance(node_name, str) or not fields.is_subdomain(node_name):
        return None
    return Endpoint(address, ready, serving, terminating, sys.intern(node_name))


def careful_endpoint(value: object, family: Family) -> Endpoint:
    """Read any endpoint.

    Raises:
        FieldError: it cannot be used.
    """
    raw = fields.as_mapping(value)
    texts = fields.sequence(raw, "addresses", MOST_ADDRESSES)
    if not texts:
        raise FieldError("addresses", "is empty", "write the endpoint's address")
    try:
        address = addresses.parse_endpoint(texts[0], family)
    except FieldError as error:
        raise error.below("addresses[0]") from None
    conditions = fields.mapping(raw, "conditions")
    try:
        ready = fields.boolean(conditions, "ready", default=True)
        serving = fields.boolean(conditions, "serving", default=True)
        terminating = fields.boolean(conditions, "terminating", default=False)
    except FieldError as error:
        raise error.below("conditions") from None
    node_name = fields.subdomain(raw, "nodeName") if raw.get("nodeName") else ""
    if raw.get("hints") is None:
        return Endpoint(address, ready, serving, terminating, node_name)
    with fields.Inside("hints"):
        hints = fields.mapping(raw, "hints")
        return Endpoint(
            address, ready, serving, terminating, node_name, _hints(hints, "forNodes"), _hints(hints, "forZones")
        )


def _hints(hints: Raw, key: str) -> tuple[str, ...]:
    names = []
    for index, value in enumerate(fields.sequence(hints, key, MOST_HINTS)):
        with fields.Inside(f"{key}[{index}]"):
            name = fields.text(fields.as_mapping(value), "name")
        if name:
            names.append(sys.intern(name))
    return tuple(names)
