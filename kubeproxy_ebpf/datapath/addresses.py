# SPDX-License-Identifier: Apache-2.0
"""This node's addresses, from netlink: what the kernel says of its interfaces, and when that changes."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from kubeproxy_ebpf.datapath.netlink import RouteSocket
from kubeproxy_ebpf.model.address import Address, Family, family_of, parse_address

IPVS_DEVICE = "kube-ipvs0"
"""Where kube-proxy's IPVS mode binds Service addresses: these are no addresses of the node."""

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE (linux/rtnetlink.h)."""

_SCOPE_UNIVERSE = 0

SOCKET_FAMILIES = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_FAR_AWAY = {Family.IPV4: "198.51.100.1", Family.IPV6: "2001:db8::1"}
"""Documentation addresses (RFC 5737, RFC 3849): the route to them is the default route."""


class NodeAddresses(NamedTuple):
    """What is known at a moment."""

    interface_addresses: frozenset[Address]
    """Every address of every interface, loopback's too, but for kube-ipvs0's."""
    source_ipv4: Address | None
    """What the host's sockets have as source on the way out; None without an address of the family."""
    source_ipv6: Address | None


class AddressMonitor:
    """Watches the addresses of the network namespace that it is made in.

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

    def read(self) -> NodeAddresses:
        """Swallow the notifications and ask the kernel.

        Raises:
            OSError: the kernel does not answer.
        """
        self._drain()
        found = list(self._addresses())
        return NodeAddresses(
            frozenset(address for address, _ in found),
            self._source(Family.IPV4, found),
            self._source(Family.IPV6, found),
        )

    def close(self) -> None:
        """Stop watching."""
        self._kernel.close()
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while True:
                try:
                    self._events.recv(65536)
                except OSError as error:
                    # So many that the kernel dropped some: we look at everything anyway.
                    if error.errno != errno.ENOBUFS:
                        raise

    def _addresses(self) -> Iterator[tuple[Address, int]]:
        """Yield each address with its scope."""
        not_ours = {index for index, name in socket.if_nameindex() if name == IPVS_DEVICE}
        for message in self._kernel.addresses():
            # On a point-to-point link IFA_ADDRESS is the other end's.
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if text and message["index"] not in not_ours:
                yield parse_address(text), message["scope"]

    def _source(self, family: Family, found: list[tuple[Address, int]]) -> Address | None:
        text = self._preferred_source(family)
        if text:
            return parse_address(text)
        # Without a default route: any address that others could answer to.
        universal = [address for address, scope in found if scope == _SCOPE_UNIVERSE and family_of(address) is family]
        return universal[0] if universal else None

    def _preferred_source(self, family: Family) -> str | None:
        try:
            route = self._kernel.route(SOCKET_FAMILIES[family], _FAR_AWAY[family])
        except OSError:
            return None
        source: str | None = route.get_attr("RTA_PREFSRC")
        return source
