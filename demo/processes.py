# SPDX-License-Identifier: Apache-2.0
"""Processes of the demo: started in a cgroup and a network namespace, and asked to do things."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds the package ``demo``."""

_JOIN = 'echo 0 >"$0/cgroup.procs" && exec "$@"'


def in_cgroup(cgroup: Path, *command: str) -> list[str]:
    """Return the command that runs another one in a cgroup, under the same process id."""
    return ["sh", "-c", _JOIN, str(cgroup), *command]


def in_namespace(process: int, *command: str) -> list[str]:
    """Return the command that runs another one in the network namespace of a process, under the same process id."""
    return ["nsenter", f"--net=/proc/{process}/ns/net", *command]


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of some connections: how often each server answered, each peer was shown, each error came back."""

    answers: dict[str, int]
    peers: dict[str, int]
    errors: dict[str, int]
    microseconds: float
    """The median time of one connection."""


@dataclass(frozen=True, slots=True)
class Repetition:
    """What connections without end have seen so far. Times are CLOCK_MONOTONIC nanoseconds, by server or error."""

    answers: dict[str, int]
    errors: dict[str, int]
    first: dict[str, int]
    """When its first answer, or the first of these errors, was there."""
    last: dict[str, int]
    """When the last connection began that it answered, or that failed so."""

    @property
    def made(self) -> int:
        """How many connections were answered."""
        return sum(self.answers.values())


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream has seen so far."""

    answer: str
    lines: int
    error: str


class Pod:
    """A process in a pod: see :mod:`demo.pod` for what it does."""

    def __init__(self, name: str, cgroup: Path, port: int) -> None:
        """Start it in a network namespace of its own; :meth:`wait` returns when it listens."""
        program = [sys.executable, "-S", "-m", "demo.pod", name, str(port)]
        self.name = name
        self._process = subprocess.Popen(
            in_cgroup(cgroup, "unshare", "--net", *program),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def process(self) -> int:
        """Its process id; its namespace is found through it."""
        return self._process.pid

    def wait(self) -> None:
        """Return when it listens."""
        self._read()

    def connect(self, address: str, port: int, *, protocol: str = "tcp", count: int = 1) -> Answers:
        """Make connections one after the other."""
        return Answers(**self.ask("connect", address=address, port=port, protocol=protocol, count=count))

    def ask_unconnected(self, address: str, port: int) -> Answers:
        """Send one datagram from an unconnected socket; the peer is where the answer says it comes from."""
        return Answers(**self.ask("ask_unconnected", address=address, port=port, protocol="udp"))

    def repeat(self, address: str, port: int, *, pause: float = 0.0) -> Background:
        """Begin new connections without end, with some seconds between them."""
        return Background(self, self.ask("repeat", address=address, port=port, pause=pause)["number"])

    def stream(self, address: str, port: int) -> Background:
        """Begin a stream."""
        return Background(self, self.ask("stream", address=address, port=port)["number"])

    def stop_serving(self) -> None:
        """Have its server listen no more; its namespace and its addresses stay."""
        self.ask("stop_serving")

    def end(self) -> None:
        """End it as soon as it is idle."""
        self._process.communicate()

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 (goes into JSON)
        """Send one request and return its answer."""
        stdin = self._process.stdin
        if stdin is None:
            msg = f"{self.name} has no standard input"
            raise RuntimeError(msg)
        stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            msg = f"the process of {self.name} ended with {self._process.wait()}"
            raise RuntimeError(msg)
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass(frozen=True, slots=True)
class Background:
    """Something that a pod does in the background."""

    pod: Pod
    number: int

    def repetition(self) -> Repetition:
        """Return what connections without end have seen so far."""
        return Repetition(**self.pod.ask("state", number=self.number))

    def stream(self) -> StreamState:
        """Return what a stream has seen so far."""
        return StreamState(**self.pod.ask("state", number=self.number))

    def stop_repetition(self) -> Repetition:
        """End connections without end and return all that they saw."""
        return Repetition(**self.pod.ask("stop", number=self.number))

    def stop_stream(self) -> StreamState:
        """Close a stream and return all that it saw."""
        return StreamState(**self.pod.ask("stop", number=self.number))
