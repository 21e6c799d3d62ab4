# SPDX-License-Identifier: Apache-2.0
"""Entries of the arrays that lead from a frontend to a backend."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, NamedTuple

from kubeproxy_ebpf.map_schema.words import Set, set_of, word_of_two
from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.plan.service_plan import SetRule, Source

SERVICE_INTERNAL_LOCAL: Final = 1
SERVICE_EXTERNAL_LOCAL: Final = 2
SERVICE_HAS_ENDPOINTS: Final = 4
SERVICE_SOURCE_RANGES: Final = 8
SERVICE_MASQUERADE_CLUSTER_IP: Final = 16
SERVICE_MASQUERADE_EXTERNAL: Final = 128
SERVICE_CLUSTER_RULE: Final = 1024
SERVICE_LOCAL_RULE: Final = 4096

SOURCES: Final = {Source.POD: 0, Source.NODE: 1, Source.OUTSIDE: 2}
"""enum source."""

BACKEND_ALLOCATED: Final = 1
BACKEND_IN_CLUSTER_SET: Final = 2
BACKEND_IN_LOCAL_SET: Final = 4
BACKEND_LOCAL: Final = 8

_ORIGIN = Struct("=20s4xII")
_SERVICE = Struct("=QQIIQ")
_SLOT = Struct("=I4x")
_BACKEND = Struct("=16sIIIH2s")
_BACKEND_STATE = Struct("=IH2s")

ORIGIN_SIZE: Final = _ORIGIN.size
SERVICE_SIZE: Final = _SERVICE.size
SLOT_SIZE: Final = _SLOT.size
BACKEND_SIZE: Final = _BACKEND.size

SERVICE_CLUSTER_SET_OFFSET: Final = 0
SERVICE_LOCAL_SET_OFFSET: Final = 8
SERVICE_RULES_OFFSET: Final = 16
BACKEND_STATE_OFFSET: Final = 24
_BACKEND_FLAGS_OFFSET: Final = 28
ORIGIN_OWNER_OFFSET: Final = 24

_ADDRESS_SIZE = 16


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


def pack_origin(entry: OriginEntry) -> bytes:
    """Pack an entry of ``origins``."""
    return _ORIGIN.pack(*entry)


def unpack_origin(data: bytes | memoryview) -> OriginEntry:
    """Unpack an entry of ``origins``."""
    return OriginEntry(*_ORIGIN.unpack(data))


def unpack_origins(data: bytes | memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Unpack consecutive entries of ``origins``: packed frontend key, service id, kind."""
    return _ORIGIN.iter_unpack(data)


def origin_owner_word(service: int, kind: int) -> int:
    """Return the word of an origin that may be published anew."""
    return word_of_two(service, kind)


def pack_service(entry: ServiceEntry) -> bytes:
    """Pack an entry of ``services``."""
    return _SERVICE.pack(entry.cluster_set.word, entry.local_set.word, entry.affinity_seconds, entry.flags, 0)


def unpack_service(data: bytes | memoryview) -> ServiceEntry:
    """Unpack an entry of ``services``."""
    cluster, local, affinity, flags, _ = _SERVICE.unpack(data)
    return ServiceEntry(set_of(cluster), set_of(local), affinity, flags)


def set_rules(flags: int) -> tuple[SetRule, SetRule]:
    """Return from the flags of a service why its cluster set and its local set are what they are."""
    cluster, local = (flags // unit % len(SetRule) for unit in (SERVICE_CLUSTER_RULE, SERVICE_LOCAL_RULE))
    return SetRule(cluster), SetRule(local)


def service_rules_word(affinity_seconds: int, flags: int) -> int:
    """Return the word {affinity_seconds, flags} of a service."""
    return word_of_two(affinity_seconds, flags)


def pack_slots(backends: Iterable[int]) -> bytes:
    """Pack consecutive entries of ``slots``."""
    return b"".join(map(_SLOT.pack, backends))


def unpack_slots(data: bytes | memoryview) -> list[int]:
    """Unpack consecutive entries of ``slots``."""
    return [backend for (backend,) in _SLOT.iter_unpack(data)]


def pack_endpoint(address: Address, port: int) -> bytes:
    """Return an endpoint as one key: address, then port."""
    return address + port.to_bytes(2, "big")


def unpack_endpoint(endpoint: bytes) -> tuple[Address, int]:
    """Return address and port of what :func:`pack_endpoint` packs."""
    return Address(endpoint[:_ADDRESS_SIZE]), int.from_bytes(endpoint[_ADDRESS_SIZE:], "big")


def pack_backend(entry: BackendEntry) -> bytes:
    """Pack an entry of ``backends``."""
    address, port, service, node, generation, flags = entry
    return _BACKEND.pack(address, service, node, generation, flags, port.to_bytes(2, "big"))


def pack_backends(
    endpoints: Iterable[bytes], service: int, generations: Iterable[int], flags: Iterable[int]
) -> list[bytes]:
    """Pack one entry of ``backends`` for each endpoint of a service: its nodes are not known."""
    pack, end = _BACKEND.pack, _ADDRESS_SIZE
    return [
        pack(endpoint[:end], service, 0, generation, flag, endpoint[end:])
        for endpoint, generation, flag in zip(endpoints, generations, flags, strict=True)
    ]


def unpack_backends(data: bytes | memoryview) -> Iterator[BackendEntry]:
    """Unpack consecutive entries of ``backends``."""
    for address, service, node, generation, flags, port in _BACKEND.iter_unpack(data):
        yield BackendEntry(Address(address), int.from_bytes(port, "big"), service, node, generation, flags)


def unpack_owners(data: bytes | memoryview) -> Iterator[tuple[bytes, int, int, int, int, bytes]]:
    """Unpack consecutive entries of ``backends`` at speed: address, service, node, generation, flags, packed port."""
    return _BACKEND.iter_unpack(data)


def backend_state_word(generation: int, flags: int, port: int) -> int:
    """Return the word {generation, flags, port} of a backend."""
    return int.from_bytes(_BACKEND_STATE.pack(generation, flags, port.to_bytes(2, "big")), sys.byteorder)


def backend_generations(data: bytes | memoryview) -> array[int]:
    """Return the generation of each of consecutive entries of ``backends``."""
    numbers = memoryview(data).cast("B").cast("I")
    return array("I", numbers[BACKEND_STATE_OFFSET // 4 :: BACKEND_SIZE // 4])


def backend_flags(data: bytes) -> list[int]:
    """Return the flags of each of consecutive entries of ``backends``."""
    return memoryview(data).cast("H")[_BACKEND_FLAGS_OFFSET // 2 :: BACKEND_SIZE // 2].tolist()
