# SPDX-License-Identifier: Apache-2.0
"""What a client on a node notices: when a change is in effect, and what happens to its connections meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import fleet, world
from bench.load_process import LoadProcess, load_process
from bench.node import NAMES, Node
from bench.plan import Plan
from tools.kubernetes.control_plane import PORT as API_PORT

NOBODY = ("0.0.0.0", "0.0.0.0")  # noqa: S104 - nothing is bound there


class Answerers(NamedTuple):
    """A Service's address, and the first and the last of the endpoints that answer there."""

    address: str
    first: str
    last: str

    def line(self) -> str:
        """Return it as the loads read it."""
        return f"{self.address} {fleet.SERVICE_PORT} {self.first} {self.last}\n"


class Change(NamedTuple):
    """How long one change took, in milliseconds."""

    writing: float
    """From sending the request that made it to the API server's answer, or to the first data that it sent to the node,
    whichever came first."""
    whole: float
    """From then to its effect."""
    proxy: float
    """Of it, the proxy's part: from when the data reached the node."""
    lost: int
    """Connections that nobody answered meanwhile, though somebody was there all the time."""


class Reach:
    """The program ``reach`` in the client pod of a node."""

    def __init__(self, node: Node, process: LoadProcess) -> None:
        """Take over a running one."""
        self._node = node
        self._process = process

    def all(self, patience: float) -> int | None:
        """Wait until all targets are answered by endpoints of theirs; return when the last one was (ns).

        Return None if they are not after ``patience`` seconds.
        """
        self._process.tell(f"all {patience:.0f}\n")
        return int(self._read("effect")[0]) or None

    def until(self, before: Answerers, after: Answerers, act: Callable[[], object]) -> tuple[int, list[int], int]:
        """Act when it is seen that a Service is as before.

        Return when it was as after (ns), when data had come from the API server (ns), and how many connections nobody
        answered though somebody was always there.
        """
        self._process.tell("await " + before.line() + after.line())
        self._read("probing")
        act()
        effect, lost, *arrivals = self._read("effect")
        return int(effect), [int(arrival) for arrival in arrivals], int(lost)

    def change(self, before: Answerers, after: Answerers, act: Callable[[], object]) -> Change:
        """Change something through the API; return how long it took."""
        sent = answered = 0

        def send() -> None:
            nonlocal sent, answered
            sent = time.monotonic_ns()
            act()
            answered = time.monotonic_ns()

        effect, arrivals, lost = self.until(before, after, send)
        arrived = next((arrival for arrival in arrivals if arrival > sent), None)
        if arrived is None or arrived > effect:
            msg = f"{NAMES[self._node.side]} made a change before it was told of it"
            raise world.WorldError(msg)
        written = min(answered, arrived)
        return Change((written - sent) / 1e6, (effect - written) / 1e6, (effect - arrived) / 1e6, lost)

    def _read(self, word: str) -> list[str]:
        self._node.proxy.check()
        found, *rest = self._process.line().split()
        if found != word:
            msg = f"reach, on the node of {NAMES[self._node.side]}, said {found} instead of {word}"
            raise world.WorldError(msg)
        return rest


@contextmanager
def reach(plan: Plan, node: Node, targets: Path) -> Iterator[Reach]:
    """Run the program until the block ends."""
    tap = (str(world.file_of(node.pods.node)), "control", str(API_PORT))
    command = [str(plan.loads.reach), node.load(targets).argument(), *tap]
    with load_process(command, f"on the node of {NAMES[node.side]}") as process:
        yield Reach(node, process)
