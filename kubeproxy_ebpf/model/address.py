# SPDX-License-Identifier: Apache-2.0
"""Addresses and prefixes as sixteen bytes: IPv6, or IPv4 mapped into it.

One form for both families serves as dictionary key and as map key alike; it hashes and
compares at the speed of ``bytes``, which the bulk path of a hundred thousand endpoints needs.
"""

from __future__ import annotations

import enum
import ipaddress
from typing import NamedTuple, NewType

Address = NewType("Address", bytes)
"""Sixteen bytes in network order; IPv4 as ``::ffff:a.b.c.d`` (RFC 4291, 2.5.5.2)."""

MAPPED = bytes(10) + b"\xff\xff"
"""The first twelve bytes of every mapped IPv4 address."""
MAPPED_BITS = 96
"""Their length; an IPv4 prefix length counts from there."""

UNSPECIFIED_IPV4 = Address(MAPPED + bytes(4))
UNSPECIFIED_IPV6 = Address(bytes(16))
LOCALHOST_IPV4 = Address(MAPPED + b"\x7f\x00\x00\x01")


class Family(enum.IntEnum):
    """IP family, by its version number."""

    IPV4 = 4
    IPV6 = 6

    __hash__ = int.__hash__  # as its equality is int's; Enum's hashes the name, in Python


class Prefix(NamedTuple):
    """A CIDR. ``length`` counts within the sixteen bytes: an IPv4 /24 is 120."""

    network: Address
    length: int

    @property
    def family(self) -> Family:
        """The prefix's IP family."""
        return family_of(self.network) if self.length >= MAPPED_BITS else Family.IPV6

    def __contains__(self, address: object) -> bool:
        """Whether the address lies in the prefix. Families never match each other's."""
        if not isinstance(address, bytes):
            return False
        if self.family is not family_of(Address(address)):
            return False
        shift = 128 - self.length
        return int.from_bytes(address) >> shift == int.from_bytes(self.network) >> shift

    def __str__(self) -> str:
        """Return the usual text form, e.g. ``10.0.0.0/24``."""
        length = self.length - MAPPED_BITS if self.family is Family.IPV4 else self.length
        return f"{format_address(self.network)}/{length}"


def parse_address(text: str) -> Address:
    """Parse an address as strictly as :mod:`ipaddress`; a mapped IPv6 address becomes IPv4.

    Raises:
        ValueError: the text is no address, or carries an IPv6 scope.
    """
    parsed = ipaddress.ip_address(text)
    if isinstance(parsed, ipaddress.IPv4Address):
        return Address(MAPPED + parsed.packed)
    if parsed.scope_id is not None:
        msg = f"{text!r} carries a scope"
        raise ValueError(msg)
    return Address(parsed.packed)


def parse_prefix(text: str) -> Prefix:
    """Parse a CIDR; host bits are cut off, as Kubernetes does.

    Raises:
        ValueError: the text is no CIDR.
    """
    if "/" not in text:
        msg = f"{text!r} is not a CIDR"
        raise ValueError(msg)
    parsed = ipaddress.ip_network(text, strict=False)
    network = parse_address(str(parsed.network_address))
    mapped = isinstance(parsed, ipaddress.IPv4Network)
    return Prefix(network, parsed.prefixlen + (MAPPED_BITS if mapped else 0))


def family_of(address: Address) -> Family:
    """Return the family of an address."""
    return Family.IPV4 if address.startswith(MAPPED) else Family.IPV6


def format_address(address: Address) -> str:
    """Return the usual text form: ``10.0.0.1``, ``fd00::1``."""
    if address.startswith(MAPPED):
        return ".".join(map(str, address[12:]))
    return str(ipaddress.IPv6Address(bytes(address)))
