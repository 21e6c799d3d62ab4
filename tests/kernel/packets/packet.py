# SPDX-License-Identifier: Apache-2.0
"""Packets by scapy, which knows every header and computes every checksum by itself."""

from __future__ import annotations

import logging
from typing import Any

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)  # it says much about interfaces that nobody uses

from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402 - after what makes it quiet
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6  # noqa: E402
from scapy.layers.l2 import Ether  # noqa: E402
from scapy.packet import Packet, Raw  # noqa: E402

UNSPEC, SHOT = -1, 2
"""What tc makes of a packet: goes on, or is gone."""
MACS: dict[str, Any] = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
Endpoint = tuple[str, int]

__all__ = ["ICMP", "IP", "SHOT", "TCP", "UDP", "UNSPEC", "Endpoint", "Ether", "IPv6", "Packet", "Raw"]


def network(source: str, destination: str, **fields: Any) -> Packet:
    """Return Ethernet and IP headers of the addresses' family."""
    header: type[Packet] = IPv6 if ":" in source else IP
    return Ether(**MACS) / header(src=source, dst=destination, **fields)


def tcp(source: Endpoint, destination: Endpoint, flags: str = "S", payload: bytes = b"") -> Packet:
    """Return a TCP segment."""
    header = TCP(sport=source[1], dport=destination[1], flags=flags, seq=1000, ack=2000 if "A" in flags else 0)
    return network(source[0], destination[0]) / header / Raw(payload)


def udp(source: Endpoint, destination: Endpoint, payload: bytes = b"?") -> Packet:
    """Return a datagram."""
    return network(source[0], destination[0]) / UDP(sport=source[1], dport=destination[1]) / Raw(payload)


def parsed(data: bytes) -> Packet:
    """Return bytes as a packet."""
    return Ether(data)


def with_right_checksums(data: bytes) -> bytes:
    """Return a packet with all of its checksums computed anew; a UDP checksum that was left out stays so."""
    packet = Ether(data)
    for layer in (IP, TCP, UDP, ICMP):
        if layer in packet and not (layer is UDP and packet[UDP].chksum == 0):
            del packet[layer].chksum
    for error in (ICMPv6DestUnreach, ICMPv6PacketTooBig):
        if error in packet:
            del packet[error].cksum
    return bytes(packet)


def error_about(quoted: bytes, source: str, destination: str, *, too_big: bool = False) -> Packet:
    """Return an ICMP error that quotes an IP packet: its port is closed, or it is too big for the next link."""
    error: Packet
    if ":" in source:
        error = ICMPv6PacketTooBig(mtu=1280) if too_big else ICMPv6DestUnreach(code=4)
    else:
        error = ICMP(type=3, code=4, nexthopmtu=1280) if too_big else ICMP(type=3, code=3)
    return network(source, destination) / error / Raw(quoted)


def ip_bytes(packet: Packet) -> bytes:
    """Return a packet without its Ethernet header."""
    return bytes(packet)[len(Ether()) :]


def quotation(packet: Packet) -> bytes:
    """Return what an ICMP error quotes."""
    header = 20 if IP in packet else 40
    return ip_bytes(packet)[header + 8 :]


def addresses(packet: Packet) -> tuple[str, str]:
    """Return a packet's source and destination address."""
    header = packet[IPv6] if IPv6 in packet else packet[IP]
    return header.src, header.dst


def ends(packet: Packet) -> tuple[Endpoint, Endpoint]:
    """Return a packet's source and destination."""
    header = packet[IPv6] if IPv6 in packet else packet[IP]
    ports = packet[TCP] if TCP in packet else packet[UDP]
    return (header.src, ports.sport), (header.dst, ports.dport)
