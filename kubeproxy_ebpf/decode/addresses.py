# SPDX-License-Identifier: Apache-2.0
"""Address and CIDR texts of raw objects to :mod:`kubeproxy_ebpf.model.address`, with what each kind must not be.

Leading zeros of an IPv4 address are decimal, as Kubernetes has always read them.
"""

from __future__ import annotations

import ipaddress

from kubeproxy_ebpf.decode.errors import FieldError, show
from kubeproxy_ebpf.model.address import (
    MAPPED,
    UNSPECIFIED_IPV4,
    UNSPECIFIED_IPV6,
    Address,
    Family,
    Prefix,
    family_of,
    parse_prefix,
)

_LONGEST_ADDRESS = 64
_LONGEST_PREFIX = 80
_LOOPBACK_BYTE = 127
_MULTICAST_BYTES = range(224, 240)
_MULTICAST_BYTE_IPV6 = 0xFF
_OCTETS = {str(number): bytes((number,)) for number in range(256)}
_USUAL_BEGINNINGS = {str(number): MAPPED + bytes((number,)) for number in range(1, 224) if number not in {127, 169}}
"""The beginnings of which no special address has one, by the first number."""
_SPECIAL = {
    UNSPECIFIED_IPV4: "the unspecified",
    UNSPECIFIED_IPV6: "the unspecified",
    Address(MAPPED + b"\xff\xff\xff\xff"): "the broadcast",
    Address(bytes(15) + b"\x01"): "a loopback",
}


def parse(value: object) -> Address:
    """Parse an address.

    Raises:
        FieldError: it is no text, no address, or an IPv4 address mapped into IPv6; the field's path is empty.
    """
    if not isinstance(value, str) or len(value) > _LONGEST_ADDRESS:
        raise FieldError("", f"is {show(value)}", "write an IP address as a text")
    if ":" not in value:
        return _parse_ipv4(value)
    try:
        address = Address(ipaddress.IPv6Address(value).packed)
    except ValueError:
        raise _not_an_address(value) from None
    if "%" in value:
        raise FieldError("", f"is {show(value)}", "write the address without a scope")
    if address.startswith(MAPPED):
        raise FieldError("", f"is {show(value)}, IPv4 mapped into IPv6", "write the IPv4 address itself")
    return address


def usual_ipv4(value: object) -> Address | None:
    """Return a global IPv4 address, written as usual; None: whatever else it is, read it with care."""
    try:
        first, second, third, fourth = value.split(".")  # type: ignore[attr-defined]  # or it is no text
        return Address(_USUAL_BEGINNINGS[first] + _OCTETS[second] + _OCTETS[third] + _OCTETS[fourth])
    except (AttributeError, ValueError, KeyError, TypeError):
        return None


def _parse_ipv4(value: str) -> Address:
    parts = value.split(".")
    if len(parts) != 4 or not value.isascii() or not all(map(str.isdigit, parts)):  # noqa: PLR2004  (a.b.c.d)
        raise _not_an_address(value)
    try:
        return Address(MAPPED + bytes(map(int, parts)))
    except ValueError:
        raise _not_an_address(value) from None


def _not_an_address(value: str) -> FieldError:
    return FieldError("", f"is {show(value)}", "write an IP address such as 10.0.0.1 or fd00::1")


def parse_endpoint(value: object, family: Family) -> Address:
    """Parse an endpoint's address: of its slice's family, and one that a packet can be sent to.

    Raises:
        FieldError: as :func:`parse`, or it is of another family, or a special address.
    """
    address = parse(value)
    if family_of(address) is not family:
        raise FieldError(
            "", f"is {show(value)}, which is not IPv{family}", "move it to a slice of its own address type"
        )
    special = _special(address) or _link_local(address)
    if special:
        raise FieldError("", f"is {show(value)}, {special} address", "write the address of a pod or host")
    return address


def parse_frontend(value: object) -> Address:
    """Parse an address that clients are to connect to.

    Raises:
        FieldError: as :func:`parse`, or it is unspecified, loopback or multicast.
    """
    usual = usual_ipv4(value)
    if usual is not None:
        return usual
    address = parse(value)
    special = _special(address)
    if special:
        raise FieldError("", f"is {show(value)}, {special} address", "write an address that clients can reach")
    return address


def _special(address: Address) -> str:
    """Return what an address is that stands for no single other host, with its article, or nothing."""
    if address.startswith(MAPPED):
        first = address[12]
        if first == _LOOPBACK_BYTE:
            return "a loopback"
        if first in _MULTICAST_BYTES:
            return "a multicast"
        return _SPECIAL.get(address, "")
    return "a multicast" if address[0] == _MULTICAST_BYTE_IPV6 else _SPECIAL.get(address, "")


def _link_local(address: Address) -> str:
    if address.startswith(MAPPED):
        return "a link-local" if address[12:14] == b"\xa9\xfe" else ""
    return "a link-local" if address[0] == 0xFE and address[1] & 0xC0 == 0x80 else ""  # noqa: PLR2004  (fe80::/10)


def parse_cidr(value: object) -> Prefix:
    """Parse a CIDR, blanks around it and host bits in it aside.

    Raises:
        FieldError: it is no text or no CIDR; the field's path is empty.
    """
    remedy = "write a CIDR such as 10.0.0.0/8 or fd00::/64"
    if not isinstance(value, str) or len(value) > _LONGEST_PREFIX:
        raise FieldError("", f"is {show(value)}", remedy)
    address, slash, length = value.strip().partition("/")
    if not slash or not (length.isascii() and length.isdigit()):
        raise FieldError("", f"is {show(value)}", remedy)
    try:
        if ":" not in address:
            address = str(ipaddress.IPv4Address(_parse_ipv4(address)[12:]))
        prefix = parse_prefix(f"{address}/{length}")
    except (FieldError, ValueError):
        raise FieldError("", f"is {show(value)}", remedy) from None
    if ":" in address and prefix.family is Family.IPV4:
        raise FieldError("", f"is {show(value)}, IPv4 mapped into IPv6", "write the IPv4 CIDR itself")
    return prefix
