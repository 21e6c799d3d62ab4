# SPDX-License-Identifier: Apache-2.0
"""The structs of bpf_src/map_types.h as Python values, and back. The one place that knows byte order.

Ports are in network order in maps and ordinary integers here; addresses are sixteen bytes on both sides. A test
compares every size and offset with the header.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

from kubeproxy_ebpf.layout.changes import ArrayMap
from kubeproxy_ebpf.model.address import MAPPED, Address, Family, Prefix
from kubeproxy_ebpf.model.objects import ObjectName, Protocol
from kubeproxy_ebpf.plan.service_plan import FrontendKey, ServicePortKey

LAYOUT_VERSION: Final = 1
MAX_CIDRS: Final = 8

ADDRESS_CLUSTER_IP: Final = 1
ADDRESS_EXTERNAL: Final = 2
ADDRESS_NODE: Final = 4
ADDRESS_EXCLUDED: Final = 8

SERVICE_INTERNAL_LOCAL: Final = 1
SERVICE_EXTERNAL_LOCAL: Final = 2
SERVICE_HAS_ENDPOINTS: Final = 4
SERVICE_SOURCE_RANGES: Final = 8

BACKEND_ALLOCATED: Final = 1
BACKEND_IN_CLUSTER_SET: Final = 2
BACKEND_IN_LOCAL_SET: Final = 4
BACKEND_LOCAL: Final = 8

SETTINGS_LOCALHOST_NODE_PORTS: Final = 1
SETTINGS_LISTENING: Final = 2

REASONS: Final = (
    "none",
    "no_endpoints",
    "no_local_endpoints",
    "source_not_allowed",
    "unknown_port",
    "unallocated_address",
    "loopback_source",
    "socket_origins_full",
    "missing_entry",
)
"""enum reason, by number."""

_FRONTEND_KEY = Struct("16s2sBx")
_ORIGIN = Struct("=20s4xII")
_SERVICE = Struct("=QQIIQ")
_SLOT = Struct("=I4x")
_BACKEND = Struct("=16sIIIH2s")
_NAME = Struct("64s64s64sBB6x")
_SOURCE_RANGE = Struct("=II16s")
_AFFINITY_KEY = Struct("=I4x16s")
_AFFINITY_RECORD = Struct("=IIQ")
_SETTINGS_HEAD = Struct("=I4xIIQ16s16s")
_PREFIX = Struct("16s16s")
_EVENT = Struct("=QQQ16s16s2s2sBBBxII16s")
_U32 = Struct("=I")

_PROTOCOLS = {int(protocol): protocol for protocol in Protocol}
_FAMILIES = {int(family): family for family in Family}

ENTRY_SIZES: Final = {
    ArrayMap.SERVICES: _SERVICE.size,
    ArrayMap.SLOTS: _SLOT.size,
    ArrayMap.BACKENDS: _BACKEND.size,
    ArrayMap.ORIGINS: _ORIGIN.size,
    ArrayMap.SETTINGS: _SETTINGS_HEAD.size + 2 * MAX_CIDRS * _PREFIX.size,
}
"""Bytes of one entry of each array."""

SERVICE_CLUSTER_SET_OFFSET: Final = 0
SERVICE_LOCAL_SET_OFFSET: Final = 8
SERVICE_RULES_OFFSET: Final = 16
BACKEND_STATE_OFFSET: Final = 24
ORIGIN_OWNER_OFFSET: Final = 24
SETTINGS_FLAGS_OFFSET: Final = 0
SETTINGS_COUNTS_OFFSET: Final = 8
SETTINGS_NETNS_COOKIE_OFFSET: Final = 16
SETTINGS_SOURCES_OFFSET: Final = 24
SETTINGS_PREFIXES_OFFSET: Final = _SETTINGS_HEAD.size


class Set(NamedTuple):
    """A range of slots; ``length`` 0: no endpoints."""

    base: int
    length: int

    @property
    def word(self) -> int:
        """The set as the programs read it."""
        return self.base << 32 | self.length


EMPTY_SET: Final = Set(0, 0)


class ServiceEntry(NamedTuple):
    """One entry of ``services``."""

    cluster_set: Set
    local_set: Set
    affinity_seconds: int
    flags: int


class BackendEntry(NamedTuple):
    """One entry of ``backends``."""

    address: Address
    port: int
    service: int
    node: int
    generation: int
    flags: int


class OriginEntry(NamedTuple):
    """One entry of ``origins``; ``key`` as packed bytes."""

    key: bytes
    service: int
    kind: int


class AffinityEntry(NamedTuple):
    """One client's record. ``client`` is an address, or a network namespace cookie at sockets."""

    service: int
    client: Address | int
    backend: int
    generation: int
    last_connection: int
    """Nanoseconds since boot."""


class SettingsEntry(NamedTuple):
    """The one entry of ``settings``."""

    flags: int = 0
    service_cidrs: tuple[Prefix, ...] = ()
    excluded_cidrs: tuple[Prefix, ...] = ()
    host_netns_cookie: int = 0
    host_source_ipv4: Address | None = None
    host_source_ipv6: Address | None = None


class Event(NamedTuple):
    """One event of the ring buffer. ``time`` is in nanoseconds since boot."""

    time: int
    socket_cookie: int
    netns_cookie: int
    destination: Address
    destination_port: int
    endpoint: Address
    endpoint_port: int
    protocol: int
    verdict: int
    reason: int
    service: int
    backend: int
    command: str


class NameTooLongError(Exception):
    """A name that does not fit its field."""


def _port(port: int) -> bytes:
    return port.to_bytes(2, "big")


def _rules_word(affinity_seconds: int, flags: int) -> int:
    return int.from_bytes(_U32.pack(affinity_seconds) + _U32.pack(flags), sys.byteorder)


def pack_frontend_key(key: FrontendKey) -> bytes:
    """Pack the key of ``frontends``."""
    return _FRONTEND_KEY.pack(key.address, key.port.to_bytes(2, "big"), key.protocol)


def unpack_frontend_key(data: bytes) -> FrontendKey | None:
    """Unpack a key of ``frontends``; None: no protocol that a Service has, or padding that is not zero."""
    address, port, protocol = _FRONTEND_KEY.unpack(data)
    if protocol not in _PROTOCOLS or data[-1]:
        return None
    return FrontendKey(Address(address), int.from_bytes(port, "big"), _PROTOCOLS[protocol])


def pack_u32(value: int) -> bytes:
    """Pack an id, kind bits, or the key of an array."""
    return _U32.pack(value)


def unpack_u32(data: bytes) -> int:
    """Unpack what :func:`pack_u32` packs."""
    value: int = _U32.unpack(data)[0]
    return value


def pack_origin(entry: OriginEntry) -> bytes:
    """Pack an entry of ``origins``."""
    return _ORIGIN.pack(entry.key, entry.service, entry.kind)


def unpack_origin(data: bytes | memoryview) -> OriginEntry:
    """Unpack an entry of ``origins``."""
    return OriginEntry(*_ORIGIN.unpack(data))


def origin_owner_word(service: int, kind: int) -> int:
    """Return the word of an origin that may be published anew."""
    return _rules_word(service, kind)


def pack_service(entry: ServiceEntry) -> bytes:
    """Pack an entry of ``services``."""
    return _SERVICE.pack(entry.cluster_set.word, entry.local_set.word, entry.affinity_seconds, entry.flags, 0)


def unpack_service(data: bytes | memoryview) -> ServiceEntry:
    """Unpack an entry of ``services``."""
    cluster, local, affinity, flags, _ = _SERVICE.unpack(data)
    return ServiceEntry(Set(cluster >> 32, cluster & 0xFFFFFFFF), Set(local >> 32, local & 0xFFFFFFFF), affinity, flags)


def service_rules_word(affinity_seconds: int, flags: int) -> int:
    """Return the word {affinity_seconds, flags} of a service."""
    return _rules_word(affinity_seconds, flags)


def pack_slots(backends: tuple[int, ...]) -> bytes:
    """Pack consecutive entries of ``slots``."""
    return b"".join(map(_SLOT.pack, backends))


def unpack_slots(data: bytes | memoryview) -> list[int]:
    """Unpack consecutive entries of ``slots``."""
    return [backend for (backend,) in _SLOT.iter_unpack(data)]


def pack_backend(entry: BackendEntry) -> bytes:
    """Pack an entry of ``backends``."""
    address, port, service, node, generation, flags = entry
    return _BACKEND.pack(address, service, node, generation, flags, port.to_bytes(2, "big"))


def unpack_backends(data: bytes | memoryview) -> Iterator[BackendEntry]:
    """Unpack consecutive entries of ``backends``."""
    for address, service, node, generation, flags, port in _BACKEND.iter_unpack(data):
        yield BackendEntry(Address(address), int.from_bytes(port, "big"), service, node, generation, flags)


def backend_state_word(generation: int, flags: int, port: int) -> int:
    """Return the word {generation, flags, port} of a backend."""
    return int.from_bytes(Struct("=IH2s").pack(generation, flags, _port(port)), sys.byteorder)


def pack_name(key: ServicePortKey) -> bytes:
    """Pack a value of ``service_names``.

    Raises:
        NameTooLongError: a name has more than 64 bytes.
    """
    parts = [part.encode() for part in (*key.service, key.port)]
    if any(len(part) > 64 for part in parts):  # noqa: PLR2004 - the fields' size
        msg = f"{key}: a name has more than 64 bytes; choose a shorter one"
        raise NameTooLongError(msg)
    return _NAME.pack(*parts, key.family, key.protocol)


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
    return _SOURCE_RANGE.pack(32 + prefix.length, service, prefix.network)


def unpack_source_range(data: bytes) -> tuple[int, Prefix]:
    """Unpack a key of ``source_ranges``: the service id and the prefix."""
    length, service, network = _SOURCE_RANGE.unpack(data)
    return service, Prefix(Address(network), length - 32)


def unpack_affinity(key: bytes, value: bytes) -> AffinityEntry:
    """Unpack a record of ``affinity``."""
    service, client = _AFFINITY_KEY.unpack(key)
    backend, generation, last = _AFFINITY_RECORD.unpack(value)
    is_address = client.startswith(MAPPED) or any(client[:8])
    who = Address(client) if is_address else int.from_bytes(client[8:], sys.byteorder)
    return AffinityEntry(service, who, backend, generation, last)


def pack_sources(ipv4: Address | None, ipv6: Address | None) -> bytes:
    """Pack the host's source addresses, as they stand in ``settings``."""
    return (ipv4 or bytes(16)) + (ipv6 or bytes(16))


def pack_prefixes(prefixes: tuple[Prefix, ...]) -> bytes:
    """Pack one of the prefix lists of ``settings``."""
    packed = [
        _PREFIX.pack(prefix.network, (((1 << prefix.length) - 1) << (128 - prefix.length)).to_bytes(16, "big"))
        for prefix in prefixes
    ]
    return b"".join(packed).ljust(MAX_CIDRS * _PREFIX.size, b"\0")


def prefix_counts_word(service_cidrs: int, excluded_cidrs: int) -> int:
    """Return the word {service_cidr_count, excluded_cidr_count}."""
    return _rules_word(service_cidrs, excluded_cidrs)


def settings_flags_word(flags: int) -> int:
    """Return the word {flags, pad}."""
    return _rules_word(flags, 0)


def word_of(data: bytes) -> int:
    """Return eight packed bytes as the word to publish."""
    return int.from_bytes(data, sys.byteorder)


def unpack_settings(data: bytes | memoryview) -> SettingsEntry:
    """Unpack the entry of ``settings``."""
    flags, service_count, excluded_count, cookie, ipv4, ipv6 = _SETTINGS_HEAD.unpack_from(data)
    prefixes = [
        Prefix(Address(network), int.from_bytes(mask, "big").bit_count())
        for network, mask in _PREFIX.iter_unpack(bytes(data[SETTINGS_PREFIXES_OFFSET:]))
    ]
    return SettingsEntry(
        flags,
        tuple(prefixes[: min(service_count, MAX_CIDRS)]),
        tuple(prefixes[MAX_CIDRS : MAX_CIDRS + min(excluded_count, MAX_CIDRS)]),
        cookie,
        Address(ipv4) if any(ipv4) else None,
        Address(ipv6) if any(ipv6) else None,
    )


def unpack_event(data: bytes) -> Event:
    """Unpack an event."""
    time, socket, netns, to, endpoint, to_port, endpoint_port, *rest, command = _EVENT.unpack(data)
    protocol, verdict, reason, service, backend = rest
    return Event(
        time,
        socket,
        netns,
        Address(to),
        int.from_bytes(to_port, "big"),
        Address(endpoint),
        int.from_bytes(endpoint_port, "big"),
        protocol,
        verdict,
        reason,
        service,
        backend,
        command.rstrip(b"\0").decode(errors="replace"),
    )
