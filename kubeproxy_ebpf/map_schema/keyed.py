# SPDX-License-Identifier: Apache-2.0
"""Keys and values of the maps that are written by key."""

from __future__ import annotations

from struct import Struct
from typing import Final

from kubeproxy_ebpf.model.address import Address, Family, Prefix
from kubeproxy_ebpf.model.objects import ObjectName, Protocol
from kubeproxy_ebpf.plan.service_plan import FrontendKey, ServicePortKey

ADDRESS_CLUSTER_IP: Final = 1
ADDRESS_EXTERNAL: Final = 2
ADDRESS_NODE: Final = 4
ADDRESS_EXCLUDED: Final = 8

LONGEST_NAME: Final = 64
"""Bytes that service_names has for each name."""

_FRONTEND_KEY = Struct("16s2sBx")
_NAME = Struct(f"{LONGEST_NAME}s{LONGEST_NAME}s{LONGEST_NAME}sBB6x")
_SOURCE_RANGE = Struct("=II16s")
_SERVICE_BITS = 32

_PROTOCOLS = {int(protocol): protocol for protocol in Protocol}
_FAMILIES = {int(family): family for family in Family}


class NameTooLongError(Exception):
    """A name that does not fit its field."""


def pack_frontend_key(key: FrontendKey) -> bytes:
    """Pack the key of ``frontends``."""
    address, port, protocol = key
    return _FRONTEND_KEY.pack(address, port.to_bytes(2, "big"), protocol)


def unpack_frontend_key(data: bytes) -> FrontendKey | None:
    """Unpack a key of ``frontends``; None: no protocol that a Service has, or padding that is not zero."""
    address, port, protocol = _FRONTEND_KEY.unpack(data)
    if protocol not in _PROTOCOLS or data[-1]:
        return None
    return FrontendKey(Address(address), int.from_bytes(port, "big"), _PROTOCOLS[protocol])


def pack_name(key: ServicePortKey) -> bytes:
    """Pack a value of ``service_names``.

    Raises:
        NameTooLongError: a name has more than 64 bytes.
    """
    (namespace, name), port, protocol, family = key
    parts = namespace.encode(), name.encode(), port.encode()
    if max(map(len, parts)) > LONGEST_NAME:
        msg = f"{key}: a name has more than {LONGEST_NAME} bytes; choose a shorter one"
        raise NameTooLongError(msg)
    return _NAME.pack(*parts, family, protocol)


def unpack_name(data: bytes) -> ServicePortKey | None:
    """Unpack a value of ``service_names``; None: damaged, so not what packing gives."""
    *parts, family, protocol = _NAME.unpack(data)
    try:
        namespace, name, port = [part.rstrip(b"\0").decode() for part in parts]
        key = ServicePortKey(ObjectName(namespace, name), port, _PROTOCOLS[protocol], _FAMILIES[family])
    except (UnicodeDecodeError, KeyError):
        return None
    is_clean = name and "\0" not in namespace + name + port and not any(data[-6:])
    return key if is_clean else None


def pack_source_range(service: int, prefix: Prefix) -> bytes:
    """Pack a key of ``source_ranges``."""
    return _SOURCE_RANGE.pack(_SERVICE_BITS + prefix.length, service, prefix.network)


def unpack_source_range(data: bytes) -> tuple[int, Prefix]:
    """Unpack a key of ``source_ranges``: the service id and the prefix."""
    length, service, network = _SOURCE_RANGE.unpack(data)
    return service, Prefix(Address(network), length - _SERVICE_BITS)
