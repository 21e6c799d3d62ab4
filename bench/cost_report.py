# SPDX-License-Identifier: Apache-2.0
"""What proxies took from their node and from the API server, to sections of the page."""

from __future__ import annotations

from collections.abc import Callable

from bench.api import Results
from bench.changes import ENDPOINTS
from bench.node import NAMES, OURS, SIDES, Memory
from bench.plan import Plan
from bench.proxy_costs import ApiCost, Use
from bench.report import ABSENT, Goal, Section
from bench.rounds import Spread

_NODE = """\
Memory is the process's proportional set size (PSS) and, of it, what is no file's. Shares are of one processor, and
have the programs in them that the proxy runs. *Churn*: {rate} times a second one of the Services, never the same one
soon, gets back an endpoint and loses another, for {seconds:g} s, {rounds} times. *Lag*: right afterwards, from the
answer to one more request to its effect."""
_API = """\
Requests as the API server's log of them has them, bytes as the wire has them: both ways, with TLS and all headers.
*Start*: of a node without anything. *Relist*: the API server is killed, and comes back with a state from which no watch
can go on. *Idle hour*: {seconds:g} s in which nothing changes, times {factor:g}; watches that begin anew are counted
for a whole hour, by how long they were asked to last."""
_LIMITS = {1_000: 90, 10_000: 200}
"""MB of our agent's PSS."""
_CHANCE = 1.1
"""How much more often than another's a proxy's watches may begin anew, who draw by lot how long they last."""
_HEADER = ["", *(NAMES[side] for side in SIDES)]


def sections(plan: Plan, results: Results) -> list[Section]:
    """Return a section about nodes, and one about the API server."""
    return [_node(plan, results), _api(plan, results)]


def _node(plan: Plan, results: Results) -> Section:
    rows, goals = [], []
    for size in plan.api_cost_sizes:
        uses = [results.uses.get((size, side)) for side in SIDES]
        for name, text in _USE_ROWS.items():
            cells = (ABSENT if one is None else text(one) for one in uses)
            rows.append([f"{size:,} Services × {ENDPOINTS}: {name}", *cells])
        goals += _use_goals(size, results.uses[size, OURS])
    of = f"{plan.api_sizes[-1]:,} Services × {ENDPOINTS}"
    rests = results.rests
    idle = (f"{rests[side].idle_share * 100:.2f}" if side in rests else ABSENT for side in SIDES)
    rows.append([f"{of}: processor when nothing happens, %", *idle])
    goals.append(
        Goal.at_most(f"processor when nothing happens, {of}", Spread.of([rests[OURS].idle_share * 100]), 0.2, "%")
    )
    method = _NODE.format(rate=plan.changes_a_second, seconds=plan.churn_seconds, rounds=plan.churn_rounds)
    return Section("What a proxy costs its node", method, _HEADER, rows, goals)


def _memory(memory: Memory) -> str:
    return f"{memory.pss:.0f}, {memory.anonymous:.0f}"


_USE_ROWS: dict[str, Callable[[Use], str]] = {
    "PSS, of it anonymous, MB": lambda one: _memory(one.memory),
    "the same after churn, MB": lambda one: _memory(one.memory_after_churn),
    "processor under churn, %": lambda one: Spread.of(one.churn_shares).scaled(100).text(1),
    "changes a second under churn": lambda one: Spread.of(one.churn_rates).text(0),
    "lag after churn, ms": lambda one: Spread.of(one.lags).text(0),
}


def _use_goals(size: int, ours: Use) -> list[Goal]:
    of = f"{size:,} Services × {ENDPOINTS}"
    goals = []
    if size in _LIMITS:
        memories = {"memory (PSS)": ours.memory, "memory (PSS) after churn": ours.memory_after_churn}
        goals += [
            Goal.at_most(f"{name}, {of}", Spread.of([memory.pss]), _LIMITS[size], "MB", 0)
            for name, memory in memories.items()
        ]
    return [
        *goals,
        Goal.at_most(f"processor under churn, {of}", Spread.of(ours.churn_shares).scaled(100), 10, "%", 1),
        Goal.at_most(f"lag after churn, {of}", Spread.of(ours.lags), 20, "ms", 1),
    ]


def _api(plan: Plan, results: Results) -> Section:
    size = plan.api_sizes[-1]
    rests = results.rests
    measures = {
        "start": {side: results.starts[size, side] for side in rests},
        "relist": {side: one.relist for side, one in rests.items()},
        "idle hour": {side: one.idle_hour for side, one in rests.items()},
    }
    rows, goals = [], []
    for name, of in measures.items():
        rows.append([name, *(_text(of[side]) if side in of else ABSENT for side in SIDES)])
        allowance = _CHANCE if name == "idle hour" else 1
        goals += _api_goals(f"API server, {name}, {size:,} Services × {ENDPOINTS}", of, allowance)
    method = _API.format(seconds=plan.idle_seconds, factor=3600 / plan.idle_seconds)
    header = [f"{size:,} Services × {ENDPOINTS}", *_HEADER[1:]]
    return Section("What a proxy costs the API server", method, header, rows, goals)


def _api_goals(name: str, of: dict[str, ApiCost], allowance: float) -> list[Goal]:
    """Take the lesser of kube-proxy's as the limit, and for requests an allowance."""
    theirs = [cost for side, cost in of.items() if side != OURS]
    if not theirs:
        return []
    requests, size = min(cost.requests for cost in theirs), min(cost.bytes for cost in theirs)
    ours = of[OURS]
    return [
        Goal.at_most(name, Spread.of([round(ours.requests)]), round(requests * allowance), "requests", 0),
        Goal.at_most(name, Spread.of([ours.bytes / 1e6]), round(size / 1e6, 2), "MB"),
    ]


def _text(cost: ApiCost) -> str:
    return f"{cost.requests:.0f} requests, {cost.bytes / 1e6:,.2f} MB"
