# SPDX-License-Identifier: Apache-2.0
"""Runs a load whose sides take turns, shows how far it is, and turns its lines into medians with their spread."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import world


@dataclass(frozen=True, slots=True)
class Side:
    """Where a load runs, what it connects to, and the first of the source tuples that nobody else uses."""

    name: str
    targets: Path
    netns: str = ""
    cgroup: Path | None = None
    first_source: int = 0

    def argument(self) -> str:
        """Return the side as the loads read it."""
        netns = str(world.file_of(self.netns)) if self.netns else "-"
        cgroup = str(self.cgroup / "cgroup.procs") if self.cgroup else "-"
        return f"{self.name},{netns},{cgroup},{self.targets},{self.first_source}"

    def at(self, sources: int) -> Side:
        """Return the same side for another load, which begins so many source tuples later."""
        return replace(self, first_source=self.first_source + sources)


@dataclass(frozen=True, slots=True, order=True)
class Spread:
    """The median of the rounds, and the lowest and highest of them. In order of the median."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of some values."""
        return cls(statistics.median(values), min(values), max(values))

    def scaled(self, factor: float) -> Spread:
        """Return it in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def text(self, digits: int = 2) -> str:
        """Return it for a table, such as ``1.02 (1.01-1.04)``, or ``1.02`` where all are the same."""
        if self.low == self.high:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}–{self.high:.{digits}f})"


Rounds = dict[str, list[float]]
"""For each side the figure of each round, in order."""


def take(command: Sequence[str], label: str, total: int) -> Rounds:
    """Run a load; return the first figure of each of its lines (``round side figure …``) by side.

    Raises:
        world.WorldError: the load failed: a wrong answer, a lost packet, a refused connection.
    """
    rounds: Rounds = defaultdict(list)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for done, line in enumerate(process.stdout or (), start=1):
                _, side, figure, *_ = line.split()
                rounds[side].append(float(figure))
                show(f"{label}: {done} of {total} turns")
        except BaseException:
            process.kill()
            raise
    show("")
    if process.returncode:
        msg = f"{label}: {Path(command[0]).name} failed (exit code {process.returncode})"
        raise world.WorldError(msg)
    return dict(rounds)


def show(text: str) -> None:
    """Show progress on one line of a terminal, or nothing where there is none; empty text wipes it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def ratios(rounds: Rounds, side: str, baseline: str) -> Spread:
    """Return one side over another, round by round."""
    return Spread.of([value / base for value, base in zip(rounds[side], rounds[baseline], strict=True)])


def differences(rounds: Rounds, side: str, baseline: str) -> Spread:
    """Return what one side has above another, round by round."""
    return Spread.of([value - base for value, base in zip(rounds[side], rounds[baseline], strict=True)])
