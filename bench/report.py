# SPDX-License-Identifier: Apache-2.0
"""What was measured to Markdown: the machine, what was to be reached, the tables, the charts."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import rounds

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
ABSENT = "–"
"""In a table: this was not measured."""
_VULNERABILITIES = Path("/sys/devices/system/cpu/vulnerabilities")


@dataclass(frozen=True, slots=True)
class Goal:
    """A number that was to be reached, and what came out."""

    measure: str
    limit: str
    measured: str
    reached: bool

    @classmethod
    def at_most(cls, measure: str, spread: rounds.Spread, limit: float, unit: str, digits: int = 2) -> Goal:
        """Return a goal whose median must not be above a limit."""
        return cls(measure, f"≤ {limit:g} {unit}", f"{spread.text(digits)} {unit}", spread.median <= limit)

    @classmethod
    def at_least(cls, measure: str, spread: rounds.Spread, limit: float, unit: str, digits: int = 2) -> Goal:
        """Return a goal whose median must not be below a limit."""
        return cls(measure, f"≥ {limit:g} {unit}", f"{spread.text(digits)} {unit}", spread.median >= limit)


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture beside the document."""

    file_name: str
    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class Section:
    """The outcome of one measure: how it was done, its table, its charts and goals."""

    title: str
    method: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    goals: Sequence[Goal]
    charts: Sequence[Chart] = field(default_factory=tuple)

    def markdown(self, remark: str = "") -> str:
        """Return the section's text, and last what is to be remarked."""
        pictures = "".join(f"\n![{chart.title}]({chart.file_name})\n" for chart in self.charts)
        end = f"\n{remark}\n" if remark else ""
        return f"## {self.title}\n\n{self.method}\n\n{table(self.header, self.rows)}{pictures}{end}"


def sizes_text(sizes: Sequence[int]) -> str:
    """Return how many Services there are: ``1 to 10,000 Services``, of which the worst counts."""
    return f"{sizes[0]:,} to {sizes[-1]:,} Services" if len(sizes) > 1 else f"{sizes[0]:,} Services"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def goals_table(sections: Sequence[Section]) -> str:
    """Return what was to be reached and what was, over all sections."""
    goals = [goal for section in sections for goal in section.goals]
    rows = [[goal.measure, goal.limit, goal.measured, "yes" if goal.reached else "**no**"] for goal in goals]
    return table(["measure", "to reach", "measured: median (lowest–highest round)", "reached"], rows)


def machine() -> str:
    """Return one line on where this was measured."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    memory = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    hypervisor = " (virtual)" if any("hypervisor" in line for line in _lines("/proc/cpuinfo")) else ""
    return (
        f"{os.cpu_count()} × {model}{hypervisor}, {memory / 1024**2:.0f} GiB, "
        f"Linux {platform.release().split('-')[0]} {platform.machine()}, Python {platform.python_version()}"
    )


def mitigations() -> str:
    """Return a sentence on what the kernel does about its processor's faults: it makes calls and returns dearer."""
    states = {path.name: path.read_text().strip() for path in sorted(_VULNERABILITIES.iterdir())}
    found = (f"{name} ({state})" for name, state in states.items() if state != "Not affected")
    return f"What the kernel knows of the processor's faults: {', '.join(found) or 'none'}."


class Processors:
    """What the processors' time went to, from now on."""

    def __init__(self) -> None:
        """Begin."""
        self._before = self._ticks()

    @staticmethod
    def _ticks() -> list[int]:
        # proc(5): user nice system idle iowait irq softirq steal
        return [int(field) for field in _lines("/proc/stat")[0].split()[1:9]]

    def stolen(self) -> str:
        """Return a sentence on what other machines of the same host took: that much the figures are disturbed."""
        taken = [now - before for before, now in zip(self._before, self._ticks(), strict=True)]
        wanted = sum(taken) - taken[3] - taken[4]
        return (
            f"Of the processor time that was wanted meanwhile, {100 * taken[7] / max(wanted, 1):.0f} % was not given."
        )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def write(parts: Sequence[tuple[str, Sequence[Section]]], remarks: Sequence[str], notes: str) -> None:
    """Write docs/benchmarks.md and its charts. Each of the parts begins with a line on how it was measured."""
    sections = [section for _, of_part in parts for section in of_part]
    text = "\n".join(
        [
            "# Benchmarks\n",
            "<!-- Written by `make bench`; change bench/, not this page. -->\n",
            "\n".join([f"Machine: {machine()}.", *remarks, ""]),
            notes,
            "## What was to be reached\n",
            goals_table(sections),
            *(section.markdown(remark) for remark, of_part in parts for section in of_part),
        ]
    )
    DOCUMENT.write_text(text)
    for section in sections:
        for chart in section.charts:
            (DOCUMENT.parent / chart.file_name).write_text(chart.svg)
