# SPDX-License-Identifier: Apache-2.0
"""A client's connections that go on whatever happens meanwhile: some begun each second, some that stay."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from bench import rounds
from bench.load_process import LoadProcess, load_process
from bench.plan import Plan


class Outcome(NamedTuple):
    """What became of connections that ended in some time, and of streams."""

    ended: int
    failed: int
    broken: int
    """Streams that did not go on."""
    slowest: int
    """Of all answers, in nanoseconds: from connect() on, or from a stream's question."""
    errors: dict[str, int]
    """Why connections failed, and how many each."""


class Steady:
    """The program ``steady``, at work."""

    def __init__(self, process: LoadProcess) -> None:
        """Take over one that was just started."""
        self._process = process
        self._process.line()

    def outcome(self) -> Outcome:
        """Return what ended since this was last asked for; what goes on comes with the next."""
        self._process.tell("?")
        return Outcome(**json.loads(self._process.line()))

    def end(self) -> Outcome:
        """Begin no more connections; return what ended since the last outcome, to the end."""
        self._process.end()
        return Outcome(**json.loads(self._process.line()))


@contextmanager
def steady(plan: Plan, side: rounds.Side) -> Iterator[Steady]:
    """Make connections, and hold some, until the block ends."""
    counts = (str(plan.connections_a_second), str(plan.streams))
    with load_process([str(plan.loads.steady), side.argument(), *counts], f"on the side of {side.name}") as process:
        yield Steady(process)


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """Return what became of connections in several times."""
    errors: Counter[str] = Counter()
    for one in outcomes:
        errors.update(one.errors)
    ended, failed, broken = (sum(getattr(one, name) for one in outcomes) for name in ("ended", "failed", "broken"))
    return Outcome(ended, failed, broken, max(one.slowest for one in outcomes), errors)


def failures(outcomes: Sequence[Outcome]) -> str:
    """Say how many connections failed, of how many, and of what."""
    all_ = joined(outcomes)
    reasons = ", ".join(f"{count:,} {error}" for error, count in sorted(all_.errors.items()))
    return f"{all_.failed:,} of {all_.ended:,}" + (f" ({reasons})" if reasons else "")
