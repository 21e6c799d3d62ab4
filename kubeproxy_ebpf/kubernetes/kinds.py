# SPDX-License-Identifier: Apache-2.0
"""Which objects are watched, and which of them the server need not send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kubeproxy_ebpf.decode import decode_endpoint_slice, decode_service, decode_service_cidr
from kubeproxy_ebpf.model.objects import EndpointSlice, Ignored, Service, ServiceCIDR

_NOT_ANOTHER_PROXYS: Final = "!service.kubernetes.io/service-proxy-name"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedKind:
    """One kind of object, whatever the reflector needs to know of it."""

    kind: str
    path: str
    decode: Callable[[object], Service | EndpointSlice | ServiceCIDR | Ignored]
    """Raises :class:`~kubeproxy_ebpf.decode.ObjectError`."""
    label_selector: str = ""
    field_selector: str = ""
    """Left out where the server does not know the field."""
    is_optional: bool = False
    """Not every server has it, and not every role may see it: then there is none."""


SERVICES: Final = WatchedKind(
    kind="Service",
    path="/api/v1/services",
    decode=decode_service,
    label_selector=_NOT_ANOTHER_PROXYS,
    field_selector="spec.clusterIP!=None",
)
ENDPOINT_SLICES: Final = WatchedKind(
    kind="EndpointSlice",
    path="/apis/discovery.k8s.io/v1/endpointslices",
    decode=decode_endpoint_slice,
    label_selector=f"{_NOT_ANOTHER_PROXYS},!service.kubernetes.io/headless",
)
SERVICE_CIDRS: Final = WatchedKind(
    kind="ServiceCIDR",
    path="/apis/networking.k8s.io/v1/servicecidrs",
    decode=decode_service_cidr,
    is_optional=True,
)
KINDS: Final = (SERVICES, ENDPOINT_SLICES, SERVICE_CIDRS)
