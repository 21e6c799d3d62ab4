# SPDX-License-Identifier: Apache-2.0
"""The client in each pod: single connections, connections without end, and a stream, each with what came of it."""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

PATIENCE = 2.0
"""Seconds that a connection may take before it counts as unanswered."""

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_CLOSE_WITH_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: no TIME_WAIT, so that many short connections do not use up the ports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to connect to."""

    address: str
    port: int
    protocol: str = "tcp"

    def open(self) -> socket.socket:
        """Return an unconnected socket of the right kind."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        opened = socket.socket(family, _KINDS[self.protocol])
        opened.settimeout(PATIENCE)
        if self.protocol == "tcp":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_WITH_RESET)
        return opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of one connection: who answered and the peer it shows, or the error. Times are CLOCK_MONOTONIC."""

    answer: str = ""
    peer: str = ""
    error: str = ""
    started: int
    ended: int


def connect(target: Target) -> Attempt:
    """Connect, let the server say its name, ask who the peer is, and close."""
    started = time.monotonic_ns()
    try:
        with target.open() as opened:
            opened.connect((target.address, target.port))
            if target.protocol == "udp":
                opened.send(b"who are you?")
            answer = opened.recv(64).decode().strip()
            if not answer:
                return Attempt(error="closed without a word", started=started, ended=time.monotonic_ns())
            peer = _show(opened.getpeername())
    except OSError as problem:
        return Attempt(error=_name_of(problem), started=started, ended=time.monotonic_ns())
    return Attempt(answer=answer, peer=peer, started=started, ended=time.monotonic_ns())


def ask_unconnected(target: Target) -> Attempt:
    """Send one datagram from a socket that is not connected; ``peer`` is where the answer says it comes from."""
    started = time.monotonic_ns()
    try:
        with target.open() as opened:
            opened.sendto(b"who are you?", (target.address, target.port))
            data, sender = opened.recvfrom(64)
    except OSError as problem:
        return Attempt(error=_name_of(problem), started=started, ended=time.monotonic_ns())
    return Attempt(answer=data.decode().strip(), peer=_show(sender), started=started, ended=time.monotonic_ns())


def _show(name: Any) -> str:  # noqa: ANN401 (the type of the socket module)
    address, port = name[:2]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _name_of(problem: OSError) -> str:
    if problem.errno is None:
        return f"no answer in {PATIENCE:g} s"
    return errno.errorcode.get(problem.errno, str(problem))


class Repeated(threading.Thread):
    """New connections, one after the other, until stopped; remembers when each outcome was seen first and last."""

    def __init__(self, target: Target, pause: float) -> None:
        """Prepare; nothing is sent before ``start``. ``pause``: seconds between two connections."""
        super().__init__(daemon=True)
        self._target, self._pause = target, pause
        self._stopping = threading.Event()
        self._answers: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def run(self) -> None:
        """Connect until stopped."""
        while not self._stopping.is_set():
            attempt = connect(self._target)
            outcome = attempt.error or attempt.answer
            self._first.setdefault(outcome, attempt.ended)
            self._last[outcome] = attempt.started
            (self._errors if attempt.error else self._answers)[outcome] += 1
            if self._pause:
                self._stopping.wait(self._pause)

    def state(self) -> dict[str, Any]:
        """Return what happened so far."""
        return {
            "answers": dict(self._answers),
            "errors": dict(self._errors),
            "first": dict(self._first),
            "last": dict(self._last),
        }

    def stop(self) -> None:
        """Make no further connection, and wait for the one under way."""
        self._stopping.set()
        self.join()


class Stream(threading.Thread):
    """One TCP connection that sends numbered lines and expects each back, until stopped."""

    def __init__(self, target: Target) -> None:
        """Prepare; nothing is sent before ``start``."""
        super().__init__(daemon=True)
        self._target = target
        self._stopping = threading.Event()
        self._answer = ""
        self._lines = 0
        self._error = ""

    def run(self) -> None:
        """Exchange lines until stopped or until the connection fails."""
        try:
            with self._target.open() as opened:
                opened.connect((self._target.address, self._target.port))
                reader = opened.makefile("rb")
                self._answer = reader.readline().decode().strip()
                while not self._stopping.is_set() and not self._error:
                    line = f"{self._lines}\n".encode()
                    opened.sendall(line)
                    echoed = reader.readline()
                    if echoed == line:
                        self._lines += 1
                    else:
                        self._error = f"sent {line!r}, got {echoed!r}"
        except OSError as problem:
            self._error = _name_of(problem)

    def state(self) -> dict[str, Any]:
        """Return what happened so far."""
        return {"answer": self._answer, "lines": self._lines, "error": self._error}

    def stop(self) -> None:
        """Close the connection."""
        self._stopping.set()
        self.join()
