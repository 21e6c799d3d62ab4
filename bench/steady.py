# SPDX-License-Identifier: Apache-2.0
"""A client's connections that go on whatever happens meanwhile: some begun each second, some that stay."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from bench import rounds, world
from bench.plan import Plan


class Outcome(NamedTuple):
    """What became of connections in some time."""

    begun: int
    failed: int
    broken: int
    """Streams that did not go on."""
    slowest: int
    """Of the connections that were begun, from connect() to the answer, in nanoseconds."""
    errors: dict[str, int]
    """Why connections failed, and how many each."""


class Steady:
    """The program ``steady``, at work."""

    def __init__(self, side: rounds.Side, process: subprocess.Popen[str]) -> None:
        """Take over one that was just started."""
        self._side = side
        self._process = process
        self._line()

    def outcome(self) -> Outcome:
        """Return what there was since this was last asked for; what is not over yet comes with the next."""
        stdin = _pipe(self._process.stdin)
        stdin.write("?")
        stdin.flush()
        return Outcome(**json.loads(self._line()))

    def end(self) -> Outcome:
        """Begin no more connections; return what there was since the last outcome, to the end."""
        _pipe(self._process.stdin).close()
        return Outcome(**json.loads(self._line()))

    def _line(self) -> str:
        line = _pipe(self._process.stdout).readline()
        if not line:
            msg = f"steady, on the side of {self._side.name}, ended (exit code {self._process.wait()})"
            raise world.WorldError(msg)
        return line


@contextmanager
def steady(plan: Plan, side: rounds.Side) -> Iterator[Steady]:
    """Make connections, and hold some, until the block ends."""
    counts = (str(plan.connections_a_second), str(plan.streams))
    command = [str(plan.loads.steady), side.argument(), *counts]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Steady(side, process)
        finally:
            process.kill()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None  # noqa: S101 - for the type's sake
    return pipe
