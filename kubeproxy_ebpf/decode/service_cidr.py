# SPDX-License-Identifier: Apache-2.0
"""A raw ServiceCIDR to the model."""

from __future__ import annotations

from kubeproxy_ebpf.decode import addresses, fields
from kubeproxy_ebpf.decode.fields import Raw
from kubeproxy_ebpf.decode.identity import Identity, read_object
from kubeproxy_ebpf.model.objects import ServiceCIDR

MOST_CIDRS = 2
"""One of each family, as the API server allows."""


def decode_service_cidr(raw: object) -> ServiceCIDR:
    """Read a ServiceCIDR.

    Raises:
        ObjectError: the object is malformed as a whole.
    """
    return read_object("ServiceCIDR", "networking.k8s.io/v1", raw, _read, namespaced=False)


def _read(body: Raw, identity: Identity) -> ServiceCIDR:
    spec = fields.mapping(body, "spec")
    cidrs = identity.usable("spec.cidrs", spec, MOST_CIDRS, addresses.parse_cidr)
    return ServiceCIDR(name=identity.name, cidrs=tuple(cidrs), uid=identity.uid, problems=identity.problems.sentences())
