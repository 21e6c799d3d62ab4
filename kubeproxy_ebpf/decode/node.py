# SPDX-License-Identifier: Apache-2.0
"""A raw Node to the model."""

from __future__ import annotations

from kubeproxy_ebpf.decode import addresses, fields
from kubeproxy_ebpf.decode.fields import Raw
from kubeproxy_ebpf.decode.identity import Identity, read_object
from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.model.objects import Node

LABEL_ZONE = "topology.kubernetes.io/zone"
TAINT_BEING_DELETED = "ToBeDeletedByClusterAutoscaler"

MOST_ADDRESSES = 1_000
MOST_TAINTS = 1_000

_ADDRESS_TYPES = ("InternalIP", "ExternalIP")


def decode_node(raw: object) -> Node:
    """Read a Node.

    Raises:
        ObjectError: the object is malformed as a whole.
    """
    return read_object("Node", "v1", raw, _read, namespaced=False)


def _read(body: Raw, identity: Identity) -> Node:
    spec = fields.mapping(body, "spec")
    status = fields.mapping(body, "status")
    with fields.Inside("metadata.labels"):
        zone = fields.text(identity.labels, LABEL_ZONE)
    found = identity.usable("status.addresses", status, MOST_ADDRESSES, _address)
    cidrs = spec if spec.get("podCIDRs") else {"podCIDRs": [spec["podCIDR"]] if spec.get("podCIDR") else []}
    pod_cidrs = identity.usable("spec.podCIDRs", cidrs, MOST_ADDRESSES, addresses.parse_cidr)
    return Node(
        name=identity.name.name,
        addresses=tuple(address for wanted in _ADDRESS_TYPES for kind, address in found if kind == wanted),
        zone=zone,
        pod_cidrs=tuple(pod_cidrs),
        being_deleted=identity.metadata.get("deletionTimestamp") is not None or _has_taint(spec),
        problems=identity.problems.sentences(),
    )


def _address(value: object) -> tuple[str, Address] | None:
    raw = fields.as_mapping(value)
    kind = fields.text(raw, "type")
    if kind not in _ADDRESS_TYPES:
        return None
    with fields.Inside("address"):
        return kind, addresses.parse(raw.get("address"))


def _has_taint(spec: Raw) -> bool:
    with fields.Inside("spec"):
        taints = fields.sequence(spec, "taints", MOST_TAINTS)
    return any(isinstance(taint, dict) and taint.get("key") == TAINT_BEING_DELETED for taint in taints)
