# SPDX-License-Identifier: Apache-2.0
"""Clients that say what came of a connection: once, without end, or over one stream."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from tests.kernel.processes import Background
from tests.kernel.servers import tcp_ask


def outcome(address: str, port: int) -> str:
    """Return the name of the server that answers, or that of the error."""
    try:
        return tcp_ask(address, port, timeout=2).split()[0]
    except OSError as error:
        return type(error).__name__


class Progress(NamedTuple):
    """What a busy client has seen. ``began`` is CLOCK_MONOTONIC seconds, of its latest step."""

    began: float
    answers: Counter[str]


def connect_without_end(address: str, port: int) -> Iterator[Progress]:
    """Make new connections, one after the other; yield what came of all of them, every now and then."""
    os.nice(10)  # where there is one processor for everybody, those who are watched go first
    seen: Counter[str] = Counter()
    while True:
        began = time.monotonic()
        for _ in range(20):
            seen[outcome(address, port)] += 1
        yield Progress(began, seen)


def stream_without_end(address: str, port: int) -> Iterator[Progress]:
    """Exchange lines over one connection; yield its server and how many, every now and then."""
    os.nice(10)
    with socket.create_connection((address, port), timeout=5) as connection:
        reader = connection.makefile("rb")
        server = reader.readline().split()[0].decode()
        seen: Counter[str] = Counter()
        while True:
            began = time.monotonic()
            for number in range(100):
                connection.sendall(b"%d\n" % number)
                assert reader.readline() == b"%d\n" % number
                seen[server] += 1
            yield Progress(began, seen)


def after(busy: Background, moment: float) -> Progress:
    """Return the first progress of which the latest step began after a moment."""
    while True:
        progress: Progress = busy.next()
        if progress.began > moment:
            return progress
