# SPDX-License-Identifier: Apache-2.0
"""Asks the kernel for interfaces, addresses and routes, and changes filters at devices, over a socket of our own.

A node has as many interfaces and routes as pods, and each pod that comes or goes has them listed again: a listing is
read here, in microseconds an entry. The question for a route is pyroute2's message. Its sockets come with an event
loop and its package with a data base: 15 MB of memory and half a second of each start.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from struct import Struct
from typing import Any, NamedTuple

from kubeproxy_ebpf.lean_import import submodules_only

with submodules_only("pyroute2"):
    from pyroute2.netlink.rtnl.rtmsg import rtmsg  # type: ignore[import-untyped]

# linux/netlink.h, linux/rtnetlink.h
_REQUEST = 0x1
_ACKNOWLEDGE = 0x4
_DUMP = 0x300
_DUMP_INTERRUPTED = 0x10
_ERROR, _DONE = 2, 3
_GET_ROUTE = 26
_ATTRIBUTE_KIND = 0x3FFF
"""NLA_TYPE_MASK."""

_HEADER = Struct("=IHHII")
"""Length, type, flags, number and port of a message."""
_NUMBER = Struct("=i")
_ATTRIBUTE = Struct("=HH")
_ALIGNMENT = 4
_LARGEST = 65536
"""Bytes of one datagram; the kernel makes them of half that size at most."""


class Entry(NamedTuple):
    """One entry of a listing: the fields of its fixed part, and its attributes by number."""

    fields: tuple[int, ...]
    attributes: dict[int, bytes]


class RouteSocket:
    """Questions about the network namespace that it is made in, one after the other."""

    def __init__(self) -> None:
        """Open the socket.

        Raises:
            OSError: netlink is refused.
        """
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._number = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def listing(self, kind: int, fixed: Struct) -> list[Entry]:
        """Return all that the kernel has of a kind (``RTM_GETLINK``); ``fixed`` is the part before attributes.

        Raises:
            OSError: the kernel refuses.
        """
        while True:
            messages, is_whole = self._ask(kind, _DUMP, bytes(fixed.size))
            if is_whole:
                return [_entry(message, fixed) for message in messages]

    def look_up(self, kind: int, question: bytes, fixed: Struct) -> Entry:
        """Return the one that is asked for.

        Raises:
            OSError: there is none, or the kernel refuses.
        """
        messages, _ = self._ask(kind, 0, question)
        return _entry(messages[0], fixed)

    def route(self, family: socket.AddressFamily, destination: str) -> Any:  # noqa: ANN401 - pyroute2 has no types
        """Return the message (``rtmsg``) of the route that leads to an address.

        Raises:
            OSError: there is none.
        """
        question = rtmsg()
        question["family"] = family
        question["dst_len"] = 32 if family is socket.AF_INET else 128
        question["attrs"] = [("RTA_DST", destination)]
        question.encode()
        messages, _ = self._ask(_GET_ROUTE, 0, bytes(question.data[_HEADER.size :]))
        answer = rtmsg(messages[0])
        answer.decode()
        return answer

    def change(self, kind: int, flags: int, body: bytes) -> None:
        """Have something changed: a message's type, its flags, and what follows its header.

        Raises:
            OSError: the kernel refuses.
        """
        self._ask(kind, _ACKNOWLEDGE | flags, body)

    def _ask(self, kind: int, flags: int, body: bytes) -> tuple[list[bytes], bool]:
        """Send a message; return the answers, and whether nothing changed while the kernel listed them."""
        self._number += 1
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, kind, _REQUEST | flags, self._number, 0) + body)
        answers: list[bytes] = []
        is_whole, is_over = True, False
        while not is_over:
            for answered, answered_flags, number, message in _messages(self._socket.recv(_LARGEST)):
                if number != self._number:
                    continue  # the rest of an answer that an error cut short
                is_whole = is_whole and not answered_flags & _DUMP_INTERRUPTED
                is_over = is_over or answered in {_DONE, _ERROR} or not flags & (_DUMP | _ACKNOWLEDGE)
                if answered == _ERROR:
                    _require_success(message)
                elif answered != _DONE:
                    answers.append(message)
        return answers, is_whole


def attribute(kind: int, data: bytes) -> bytes:
    """Return an attribute of a message (``struct nlattr``)."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % _ALIGNMENT)


def attributes_of(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Return the attributes from a place on, by number; what is cut off is left out."""
    found = {}
    while start + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _ATTRIBUTE_KIND] = data[start + _ATTRIBUTE.size : start + length]
        start += _aligned(length)
    return found


def _entry(message: bytes, fixed: Struct) -> Entry:
    start = _HEADER.size + _aligned(fixed.size)
    return Entry(fixed.unpack_from(message, _HEADER.size), attributes_of(message, start))


def _require_success(message: bytes) -> None:
    """Raise the error that a message says, if it says any."""
    (code,) = _NUMBER.unpack_from(message, _HEADER.size)
    if code:
        raise OSError(-code, os.strerror(-code))


def _messages(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, number and bytes of each message of a datagram."""
    start = 0
    while start < len(datagram):
        length, kind, flags, number, _ = _HEADER.unpack_from(datagram, start)
        yield kind, flags, number, datagram[start : start + length]
        start += _aligned(length)


def _aligned(length: int) -> int:
    return -(-length // _ALIGNMENT) * _ALIGNMENT
