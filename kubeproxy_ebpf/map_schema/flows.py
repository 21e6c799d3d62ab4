# SPDX-License-Identifier: Apache-2.0
"""What the packet programs remember of connections, and what they are told of network devices."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from kubeproxy_ebpf.model.address import UNSPECIFIED_IPV6, Address

FLOW_INGRESS: Final = 1
FLOW_EGRESS: Final = 2

FLOW_REQUEST: Final = 1
FLOW_FIN: Final = 4
FLOW_RST: Final = 8
FLOW_SWEPT: Final = 16
FLOW_MASQUERADED: Final = 32
FLOW_REFUSED: Final = 64
FLOW_RETIRED: Final = 128
FLOW_UNASSURED: Final = 256
FLOW_UNCONFIRMED: Final = 512

_FLOW_KEY = Struct("16s16s2s2sBB2x")
_FLOW = Struct("=16s16s2s2sIIIII")
_DEVICE_KEY = Struct("=I")
_SWEEP_STATE = Struct("=QQI4x")
SWEEP_STATE_KEY: Final = bytes(4)
"""The only key of ``sweep_state``."""
SWEEP_STATE_BYTES: Final = _SWEEP_STATE.size
_FLOW_ROOM = Struct("=q")
FLOW_ROOM_SHARE: Final = 64
"""Entries that a processor takes of it at once."""
FLOW_ROOM_KEY: Final = bytes(4)
"""The only key of ``flow_room``."""


class FlowKey(NamedTuple):
    """A packet's tuple as it comes to a hook."""

    source: Address
    source_port: int
    destination: Address
    destination_port: int
    protocol: int
    hook: int


class Flow(NamedTuple):
    """What becomes of it. ``seen``: jiffies without their lowest eight bits; ``state``: bits of ``FLOW_``."""

    source: Address
    source_port: int
    destination: Address
    destination_port: int
    backend: int
    generation: int
    service: int
    seen: int
    state: int


class SweepState(NamedTuple):
    """What a sweep has seen, in entries."""

    standing: int
    """Whose time is not over."""
    kept: int
    """These, and those that a later sweep will delete."""


def unpack_flow_key(data: bytes) -> FlowKey:
    """Unpack a key of ``flows`` or ``opening_flows``."""
    source, destination, source_port, destination_port, protocol, hook = _FLOW_KEY.unpack(data)
    return FlowKey(
        Address(source),
        int.from_bytes(source_port, "big"),
        Address(destination),
        int.from_bytes(destination_port, "big"),
        protocol,
        hook,
    )


def pack_flow_key(key: FlowKey) -> bytes:
    """Pack a key of ``flows`` or ``opening_flows``."""
    ports = (key.source_port.to_bytes(2, "big"), key.destination_port.to_bytes(2, "big"))
    return _FLOW_KEY.pack(key.source, key.destination, *ports, key.protocol, key.hook)


def unpack_flow(data: bytes) -> Flow:
    """Unpack a value of ``flows`` or ``opening_flows``."""
    source, destination, source_port, destination_port, *rest = _FLOW.unpack(data)
    return Flow(
        Address(source),
        int.from_bytes(source_port, "big"),
        Address(destination),
        int.from_bytes(destination_port, "big"),
        *rest,
    )


def pack_device_key(index: int) -> bytes:
    """Pack a key of ``devices``."""
    return _DEVICE_KEY.pack(index)


def pack_device(source_ipv4: Address | None, source_ipv6: Address | None) -> bytes:
    """Pack a value of ``devices``: what packets that leave by it may have as their source."""
    return (source_ipv4 or UNSPECIFIED_IPV6) + (source_ipv6 or UNSPECIFIED_IPV6)


def pack_sweep_state(*, is_crowded: bool) -> bytes:
    """Pack the value of ``sweep_state`` as a sweep is to find it."""
    return _SWEEP_STATE.pack(0, 0, is_crowded)


def unpack_sweep_state(data: bytes) -> SweepState:
    """Unpack the value of ``sweep_state``."""
    return SweepState(*_SWEEP_STATE.unpack(data)[:2])


def pack_flow_room(entries: int) -> bytes:
    """Pack the value of ``flow_room``: how many entries unconfirmed connections may take."""
    return _FLOW_ROOM.pack(entries)
