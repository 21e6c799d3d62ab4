# SPDX-License-Identifier: Apache-2.0
"""This node's interfaces, addresses and routes, from netlink: what the kernel says, and when that changes."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from struct import Struct
from typing import Final

from kubeproxy_ebpf.datapath.netlink import Entry, RouteSocket, attributes_of
from kubeproxy_ebpf.model.address import MAPPED, Address, Family, family_of, parse_address
from kubeproxy_ebpf.model.network import Interface, InterfaceAddress, NodeAddresses, NodeNetwork, Route

IPVS_DEVICE: Final = "kube-ipvs0"
"""Where kube-proxy's IPVS mode binds Service addresses: these are no addresses of the node."""
SOCKET_FAMILIES: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}

_FAMILIES: dict[int, Family] = {socket.AF_INET: Family.IPV4, socket.AF_INET6: Family.IPV6}
_FAR_AWAY = {Family.IPV4: "198.51.100.1", Family.IPV6: "2001:db8::1"}
"""Documentation addresses (RFC 5737, RFC 3849): the route to them is the default route."""

_GROUPS = 0x1 | 0x8 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, TC, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE (linux/rtnetlink.h)."""

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
_GET_LINK, _GET_ADDRESS, _GET_ROUTE = 18, 22, 26
_LINK = Struct("=BxHiII")
"""struct ifinfomsg: family, link layer's type, index, flags, mask of changes."""
_LINK_NAME = 3
_ETHERNET, _LOOPBACK = 1, 0x8
"""ARPHRD_ETHER, IFF_LOOPBACK."""
_ADDRESS = Struct("=BBBBI")
"""struct ifaddrmsg: family, prefix length, flags, scope, index."""
_PEER, _LOCAL, _FLAGS = 1, 2, 8
_NOT_PREFERRED = 0x01 | 0x08 | 0x20 | 0x40
"""IFA_F_SECONDARY (of IPv6: TEMPORARY), DADFAILED, DEPRECATED, TENTATIVE."""
_UNIVERSE = 0
_ROUTE = Struct("=BBBBBBBBI")
"""struct rtmsg: family, lengths of destination and source, TOS, table, protocol, scope, type, flags."""
_DEVICE, _GATEWAY, _WAYS, _VIA = 4, 5, 9, 18
_UNICAST, _LOCAL_TABLE = 1, 255
_WAY = Struct("=HBBi")
"""struct rtnexthop: length, flags, weight, interface index."""
_NUMBER = Struct("=I")


class NetworkMonitor:
    """Watches the network namespace that it is made in.

    Poll it for reading, or just call :meth:`read`; no message is interpreted, each only says: look again.
    """

    def __init__(self) -> None:
        """Subscribe to changes, so that none after the first :meth:`read` is missed.

        Raises:
            OSError: netlink is refused.
        """
        self._events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._events.bind((0, _GROUPS))
        self._kernel = RouteSocket()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when something may have changed."""
        return self._events.fileno()

    def drain(self) -> None:
        """Swallow the notifications."""
        with suppress(BlockingIOError):
            while True:
                try:
                    self._events.recv(65536)
                except OSError as error:
                    # So many that the kernel dropped some: we look at everything anyway.
                    if error.errno != errno.ENOBUFS:
                        raise

    def read(self) -> NodeNetwork:
        """Swallow the notifications and ask the kernel.

        Raises:
            OSError: the kernel does not answer.
        """
        self.drain()
        found: dict[int, list[InterfaceAddress]] = {}
        for index, address in map(_address, self._kernel.listing(_GET_ADDRESS, _ADDRESS)):
            found.setdefault(index, []).append(address)
        links = (_interface(link, found) for link in self._kernel.listing(_GET_LINK, _LINK))
        interfaces = tuple(interface for interface in links if interface.name != IPVS_DEVICE)
        addresses = [address for interface in interfaces for address in interface.addresses]
        return NodeNetwork(
            NodeAddresses(
                frozenset(one.address for one in addresses),
                self._source(Family.IPV4, addresses),
                self._source(Family.IPV6, addresses),
            ),
            interfaces,
            tuple(way for route in self._kernel.listing(_GET_ROUTE, _ROUTE) for way in _ways(route)),
        )

    def close(self) -> None:
        """Stop watching."""
        self._kernel.close()
        self._events.close()

    def _source(self, family: Family, addresses: Iterable[InterfaceAddress]) -> Address | None:
        text = self._preferred_source(family)
        if text:
            return parse_address(text)
        # Without a default route: any address that others could answer to.
        return next((one.address for one in addresses if one.is_global and family_of(one.address) is family), None)

    def _preferred_source(self, family: Family) -> str | None:
        try:
            route = self._kernel.route(SOCKET_FAMILIES[family], _FAR_AWAY[family])
        except OSError:
            return None
        source: str | None = route.get_attr("RTA_PREFSRC")
        return source


def _interface(link: Entry, addresses: dict[int, list[InterfaceAddress]]) -> Interface:
    _, layer, index, flags, _ = link.fields
    name = link.attributes[_LINK_NAME].rstrip(b"\0").decode(errors="surrogateescape")
    return Interface(index, name, layer == _ETHERNET, bool(flags & _LOOPBACK), tuple(addresses.get(index, ())))


def _address(entry: Entry) -> tuple[int, InterfaceAddress]:
    """Return an address and the index of its interface."""
    _, _, flags, scope, index = entry.fields
    if _FLAGS in entry.attributes:  # all of them; the field has room for the first eight
        (flags,) = _NUMBER.unpack(entry.attributes[_FLAGS])
    # On a point-to-point link the other attribute is the other end's.
    own = entry.attributes.get(_LOCAL) or entry.attributes[_PEER]
    address = Address(MAPPED + own if len(own) == 4 else own)  # noqa: PLR2004 - bytes of an IPv4 address
    return index, InterfaceAddress(address, scope == _UNIVERSE, not flags & _NOT_PREFERRED)


def _ways(route: Entry) -> Iterator[Route]:
    """Yield each way that packets to others may take by a route."""
    family, length, _, _, table, _, _, kind, _ = route.fields
    if kind != _UNICAST or table == _LOCAL_TABLE or family not in _FAMILIES:
        return
    ways = route.attributes.get(_WAYS, b"")
    start = 0
    while start + _WAY.size <= len(ways):
        size, _, _, index = _WAY.unpack_from(ways, start)
        yield Route(
            index, _FAMILIES[family], length, _has_gateway(attributes_of(ways[: start + size], start + _WAY.size))
        )
        start += max(size, _WAY.size)
    if _DEVICE in route.attributes:
        (index,) = _NUMBER.unpack(route.attributes[_DEVICE])
        yield Route(index, _FAMILIES[family], length, _has_gateway(route.attributes))


def _has_gateway(attributes: dict[int, bytes]) -> bool:
    return _GATEWAY in attributes or _VIA in attributes
