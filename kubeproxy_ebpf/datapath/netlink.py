# SPDX-License-Identifier: Apache-2.0
"""Asks the kernel for addresses and routes, and for filters at devices, over a socket of our own.

The messages are pyroute2's. Its sockets come with an event loop and its package with a data base: 15 MB of memory and
half a second of each start, for two questions.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from struct import Struct
from typing import Any

from kubeproxy_ebpf.lean_import import submodules_only

with submodules_only("pyroute2"):
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # type: ignore[import-untyped]
    from pyroute2.netlink.rtnl.rtmsg import rtmsg  # type: ignore[import-untyped]

# linux/netlink.h, linux/rtnetlink.h
_REQUEST = 0x1
_ACKNOWLEDGE = 0x4
_DUMP = 0x300
_DUMP_INTERRUPTED = 0x10
_ERROR, _DONE = 2, 3
_GET_ADDRESS, _GET_ROUTE = 22, 26

_HEADER = Struct("=IHHII")
"""Length, type, flags, number and port of a message."""
_NUMBER = Struct("=i")
_ATTRIBUTE = Struct("=HH")
_ALIGNMENT = 4
_LARGEST = 65536
"""Bytes of one datagram; the kernel makes them of half that size at most."""


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

    def addresses(self) -> list[Any]:
        """Return a message (``ifaddrmsg``) for every address of every interface.

        Raises:
            OSError: the kernel refuses.
        """
        while True:
            answers, is_whole = self._ask(ifaddrmsg(), _GET_ADDRESS, _DUMP)
            if is_whole:
                return answers

    def route(self, family: socket.AddressFamily, destination: str) -> Any:  # noqa: ANN401 - pyroute2 has no types
        """Return the message (``rtmsg``) of the route that leads to an address.

        Raises:
            OSError: there is none.
        """
        question = rtmsg()
        question["family"] = family
        question["dst_len"] = 32 if family is socket.AF_INET else 128
        question["attrs"] = [("RTA_DST", destination)]
        return self._ask(question, _GET_ROUTE, 0)[0][0]

    def change(self, kind: int, flags: int, body: bytes) -> None:
        """Have something changed: a message's type, its flags, and what follows its header.

        Raises:
            OSError: the kernel refuses.
        """
        self._number += 1
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, kind, _REQUEST | _ACKNOWLEDGE | flags, self._number, 0) + body)
        while True:
            for answered, _, number, data in _messages(self._socket.recv(_LARGEST)):
                if answered == _ERROR and number == self._number:
                    _require_success(data)
                    return

    def _ask(self, question: Any, kind: int, flags: int) -> tuple[list[Any], bool]:  # noqa: ANN401 - as above
        """Send a question; return the answers, and whether nothing changed while the kernel listed them."""
        self._number += 1
        question["header"].update(type=kind, flags=_REQUEST | flags, sequence_number=self._number)
        question.encode()
        self._socket.send(question.data)
        answers: list[Any] = []
        is_whole, is_over = True, False
        while not is_over:
            for answered, answered_flags, number, data in _messages(self._socket.recv(_LARGEST)):
                if number != self._number:
                    continue  # the rest of an answer that an error cut short
                is_whole = is_whole and not answered_flags & _DUMP_INTERRUPTED
                is_over = is_over or answered == _DONE or not flags & _DUMP
                if answered == _ERROR:
                    _require_success(data)
                if answered != _DONE:
                    answers.append(type(question)(data))
                    answers[-1].decode()
        return answers, is_whole


def attribute(kind: int, data: bytes) -> bytes:
    """Return an attribute of a message (``struct nlattr``)."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % _ALIGNMENT)


def _require_success(data: bytes) -> None:
    """Raise the error that a message says, if it says any."""
    (code,) = _NUMBER.unpack_from(data, _HEADER.size)
    if code:
        raise OSError(-code, os.strerror(-code))


def _messages(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, number and bytes of each message of a datagram."""
    start = 0
    while start < len(datagram):
        length, kind, flags, number, _ = _HEADER.unpack_from(datagram, start)
        yield kind, flags, number, datagram[start : start + length]
        start += -(-length // _ALIGNMENT) * _ALIGNMENT
