# SPDX-License-Identifier: Apache-2.0
"""Packets by scapy, which computes every checksum by itself, between the ends that the benchmark knows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from bench import fleet, world

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)  # it says much about interfaces that nobody uses

from scapy.layers.inet import IP, TCP  # noqa: E402 - after what makes it quiet
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.l2 import Ether  # noqa: E402

End = tuple[str, int]
"""An address and a port."""
_MACS: dict[str, Any] = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}


@dataclass(frozen=True, slots=True)
class Family:
    """Who connects to whom."""

    name: str
    client: End
    frontend: End
    endpoint: End


FAMILIES = (
    Family(
        "IPv4",
        ("10.200.0.1", 1024),
        (fleet.cluster_ip(0), fleet.SERVICE_PORT),
        (fleet.endpoint(0, 0), world.PORT),
    ),
    Family("IPv6", ("fd00:200::1", 1024), ("fd00:96::1", fleet.SERVICE_PORT), ("fd00:128::1", world.PORT)),
)
NOBODY = {FAMILIES[0]: ("203.0.113.1", 80), FAMILIES[1]: ("2001:db8::1", 80)}
"""No Service's address of each family."""


def segment(source: End, destination: End, flags: str) -> bytes:
    """Return a TCP segment without data."""
    network = IPv6 if ":" in source[0] else IP
    header = TCP(sport=source[1], dport=destination[1], flags=flags, seq=1000, ack=2000 if "A" in flags else 0)
    return bytes(Ether(**_MACS) / network(src=source[0], dst=destination[0]) / header)
