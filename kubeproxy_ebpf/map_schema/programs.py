# SPDX-License-Identifier: Apache-2.0
"""What only the programs write, and people read: affinity, events, reasons."""

from __future__ import annotations

import sys
from struct import Struct
from typing import Final, NamedTuple

from kubeproxy_ebpf.model.address import MAPPED, Address

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
    "no_free_port",
    "no_device_address",
    "lost_fragment",
    "flows_full",
)
"""enum reason, by number."""

_AFFINITY_KEY = Struct("=I4x16s")
_AFFINITY_RECORD = Struct("=IIQ")
_EVENT = Struct("=QQQ16s16s16s2s2s2sBBB3xIII16s")
_COPY = Struct("=IHBx128s")


class AffinityEntry(NamedTuple):
    """One client's record. ``client`` is an address, or a network namespace cookie at sockets."""

    service: int
    client: Address | int
    backend: int
    generation: int
    last_connection: int
    """Nanoseconds since boot."""


class PacketCopy(NamedTuple):
    """The beginning of a packet, as it came to the program."""

    length: int
    """Of the whole packet, in bytes."""
    has_ethernet: bool
    data: bytes


class Event(NamedTuple):
    """One event of the ring buffer. ``time`` is in nanoseconds since boot.

    Of a packet, ``source`` and ``device`` (an interface index) are known; of a socket, its cookies and the command of
    its process. What is not known is zero.
    """

    time: int
    socket_cookie: int
    netns_cookie: int
    source: Address
    source_port: int
    destination: Address
    destination_port: int
    endpoint: Address
    endpoint_port: int
    protocol: int
    verdict: int
    reason: int
    service: int
    backend: int
    device: int
    command: str
    packet: PacketCopy | None = None
    """None: it is about a socket."""


def unpack_affinity(key: bytes, value: bytes) -> AffinityEntry:
    """Unpack a record of ``affinity``."""
    service, client = _AFFINITY_KEY.unpack(key)
    backend, generation, last = _AFFINITY_RECORD.unpack(value)
    is_address = client.startswith(MAPPED) or any(client[:8])
    who = Address(client) if is_address else int.from_bytes(client[8:], sys.byteorder)
    return AffinityEntry(service, who, backend, generation, last)


def unpack_event(data: bytes) -> Event:
    """Unpack an event."""
    decided, copied = data[: _EVENT.size], data[_EVENT.size :]
    time, socket, netns, *ends, protocol, verdict, reason, service, backend, device, command = _EVENT.unpack(decided)
    source, to, endpoint = map(Address, ends[:3])
    source_port, to_port, endpoint_port = (int.from_bytes(port, "big") for port in ends[3:])
    return Event(
        time,
        socket,
        netns,
        source,
        source_port,
        to,
        to_port,
        endpoint,
        endpoint_port,
        protocol,
        verdict,
        reason,
        service,
        backend,
        device,
        command.rstrip(b"\0").decode(errors="replace"),
        _packet_copy(copied) if copied else None,
    )


def _packet_copy(data: bytes) -> PacketCopy:
    length, size, network, packet = _COPY.unpack(data)
    return PacketCopy(length, bool(network), packet[:size])
