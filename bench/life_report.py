# SPDX-License-Identifier: Apache-2.0
"""How proxies started, restarted and were killed, to a section of the page."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence

from bench.api import Results
from bench.changes import ENDPOINTS as MANY
from bench.control_plane import MODES
from bench.lives import Life
from bench.node import NAMES, OURS, SIDES
from bench.plan import ENDPOINTS as FEW
from bench.plan import Plan
from bench.report import ABSENT, Goal, Section
from bench.rounds import Spread
from bench.steady import failures, joined

_METHOD = """\
*Cold start*: on a node without anything of an earlier proxy, from the start of the process to when Services all over
the range are served, listing included; then every single Service was asked, and answered by an endpoint of its own.
*Restart*: the proxy is killed (SIGKILL), and a Service's endpoints are replaced while it is away; from the start of the
process to when that is in effect. *Under load*: the same while {rate} connections a second are begun, to all Services,
and {streams} streams go on, all on the same {processors} processors. A connection has failed when it had no answer
within a second, for whatever reason."""


def section(plan: Plan, results: Results) -> Section:
    """Return the section."""
    size = plan.api_sizes[-1]
    lives = results.lives
    many = {side: Spread.of(results.cold_starts[size, side]) for side in SIDES}
    patience = f"> {plan.patience:.0f}"
    few = _spreads(lives, lambda one: one.cold_start)
    restart = _spreads(lives, lambda one: one.restart)
    loaded = _spreads(lives, lambda one: one.restart_under_load)
    writes = Spread.of([one.writes or 0 for one in lives[OURS]])
    names = [f"cold start, {size:,} Services × {endpoints}" for endpoints in (FEW, MANY)]
    names.append(f"restart, {size:,} Services × {FEW}")
    rows = [
        *(_row(f"{name}, s", of, patience) for name, of in zip(names, (few, many, restart), strict=True)),
        ["writes of a restart when nothing has changed", writes.text(0), *(ABSENT for _ in MODES)],
        _row("restart under load, s", loaded, patience),
        [
            "connections under load, failed of all",
            *(failures([one.outcome for one in lives[side]]) for side in SIDES),
        ],
        [f"streams under load, broken of {plan.streams}", *(_broken(lives[side]) for side in SIDES)],
    ]
    killed = joined([one.outcome for one in lives[OURS]])
    goals = [
        *(
            Goal.at_most(name, of[OURS], limit, "s")
            for name, of, limit in zip(names, (few, many, restart), (2.4, 5, 3), strict=True)
        ),
        Goal.at_most("restart when nothing has changed", writes, 0, "writes", 0),
        Goal.at_most("killed under load", Spread.of([killed.failed]), 0, "failed", 0),
        Goal.at_most("killed under load", Spread.of([killed.broken]), 0, "broken", 0),
    ]
    text = _METHOD.format(rate=plan.connections_a_second, streams=plan.streams, processors=os.cpu_count())
    header = ["", *(NAMES[side] for side in SIDES)]
    return Section("Starts, restarts, and a kill under load", text, header, rows, goals)


def _spreads(lives: Mapping[str, Sequence[Life]], pick: Callable[[Life], float]) -> dict[str, Spread]:
    return {side: Spread.of([pick(one) for one in lives[side]]) for side in SIDES}


def _row(name: str, of: Mapping[str, Spread], patience: str) -> list[str]:
    return [name, *(patience if of[side].median == math.inf else of[side].text() for side in SIDES)]


def _broken(lives: Sequence[Life]) -> str:
    return Spread.of([one.outcome.broken for one in lives]).text(0)
