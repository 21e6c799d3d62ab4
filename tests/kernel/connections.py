# SPDX-License-Identifier: Apache-2.0
"""Where sockets end up: what connect() says, and which peer the kernel really has, whatever getpeername() shows."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kubeproxy_ebpf.model.address import Address, Family, family_of, format_address, parse_address
from kubeproxy_ebpf.model.objects import Protocol

SOCKETS_AT_ONCE = 24
MOST_ROUNDS = 25
_TABLES = {Protocol.TCP: "tcp", Protocol.UDP: "udp"}

Place = tuple[Address, int]


@dataclass(frozen=True)
class Attempt:
    """Connections to try: to one destination, from one source, until every place in ``wanted`` was met."""

    protocol: Protocol
    destination: Place
    source: Address | None
    wanted: frozenset[Place]


@dataclass(frozen=True)
class Outcome:
    """What they met: error numbers, the peers that the kernel has, and those that getpeername() names."""

    errors: frozenset[int]
    peers: frozenset[Place]
    names: frozenset[Place]


def connect_all(attempts: Sequence[Attempt]) -> list[Outcome]:
    """Carry out attempts, one after the other. To be run inside the client's namespace and cgroup."""
    return [_connect(attempt) for attempt in attempts]


def _connect(attempt: Attempt) -> Outcome:
    errors: set[int] = set()
    peers: set[Place] = set()
    names: set[Place] = set()
    for _ in range(MOST_ROUNDS):
        with ExitStack() as opened:
            sockets = [opened.enter_context(_socket(attempt)) for _ in range(SOCKETS_AT_ONCE)]
            codes = [one.connect_ex(_text(attempt.destination)) for one in sockets]
            errors.update(code for code in codes if code not in {0, errno.EINPROGRESS})
            table = _peers(attempt.protocol, family_of(attempt.destination[0]))
            for one, code in zip(sockets, codes, strict=True):
                inode = os.fstat(one.fileno()).st_ino
                if code in {0, errno.EINPROGRESS} and inode in table:
                    peers.add(table[inode])
                    names |= _name(one)
        if errors or peers >= attempt.wanted:
            break
    return Outcome(frozenset(errors), frozenset(peers), frozenset(names))


def _socket(attempt: Attempt) -> socket.socket:
    family = socket.AF_INET if family_of(attempt.destination[0]) is Family.IPV4 else socket.AF_INET6
    kind = socket.SOCK_STREAM if attempt.protocol is Protocol.TCP else socket.SOCK_DGRAM
    made = socket.socket(family, kind)
    made.setblocking(False)  # noqa: FBT003 -- that is its signature
    if attempt.source is not None:
        made.bind((format_address(attempt.source), 0))
    return made


def _text(place: Place) -> tuple[str, int]:
    return format_address(place[0]), place[1]


def _name(connected: socket.socket) -> set[Place]:
    """Return what getpeername() says; a TCP socket says it only once it is connected."""
    try:
        host, port = connected.getpeername()[:2]
    except OSError:
        return set()
    return {(parse_address(host), port)}


def _peers(protocol: Protocol, family: Family) -> dict[int, Place]:
    """Return the remote end of every socket of this namespace, by inode (Documentation/networking/proc_net_tcp)."""
    table = Path(f"/proc/thread-self/net/{_TABLES[protocol]}{'6' if family is Family.IPV6 else ''}")
    found = {}
    for line in table.read_text().splitlines()[1:]:
        columns = line.split()
        host, _, port = columns[2].partition(":")
        words = [bytes.fromhex(host[start : start + 8])[::-1] for start in range(0, len(host), 8)]
        packed = b"".join(words)
        found[int(columns[9])] = (parse_address(socket.inet_ntop(_family_of_length(packed), packed)), int(port, 16))
    return found


def _family_of_length(packed: bytes) -> socket.AddressFamily:
    return socket.AF_INET if len(packed) == 4 else socket.AF_INET6


def listen(places: Sequence[Place]) -> Iterator[None]:
    """Listen on TCP addresses of the namespace, and accept nobody. For ``start_in``."""
    with ExitStack() as opened:
        for place in places:
            family = socket.AF_INET if family_of(place[0]) is Family.IPV4 else socket.AF_INET6
            server = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(_text(place))
            server.listen(4096)
        yield None
        while True:
            yield None
