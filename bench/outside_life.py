# SPDX-License-Identifier: Apache-2.0
"""The agent is killed and started again while clients outside the node go on connecting."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from itertools import chain
from typing import NamedTuple

from bench import fleet, outside_fleet, rounds, world
from bench.agent import Agent, agent
from bench.answering import MOST, answering
from bench.outside_fleet import Place
from bench.outside_world import outside
from bench.plan import Plan
from bench.report import Goal, Section
from bench.steady import Outcome, Steady, failures, joined, steady

_METHOD = """\
A client outside begins {rate} connections a second through NodePorts, each of which is answered once, and has {streams}
streams that go on; the node has {size:,} Services. Each round is some seconds without anything else, and then a SIGKILL
of the agent and its start until it is ready again, on the same {processors} processors. A connection has failed when it
had no answer within a second, a stream is broken when it had none within two. What counts is the worst round."""
_CALM = 3.0
"""Seconds of load before the agent is killed; and after it is back, until what was begun meanwhile has ended."""


class _Round(NamedTuple):
    """What became of connections without a restart, and with one."""

    calm: Outcome
    restart: Outcome
    seconds: float
    """From the kill until the agent was ready."""


def measure(plan: Plan) -> Section:
    """Measure at the largest number of Services."""
    size = plan.outside_sizes[-1]
    with ExitStack() as stack:
        node = stack.enter_context(outside("life"))
        for server in (node.server, node.far_server):
            stack.enter_context(answering(plan, server, MOST))
        manifests = outside_fleet.write_manifests(plan.folder / "outside-life", size)
        served, plain = (stack.enter_context(world.cgroup(name)) for name in ("ours", "plain"))
        proxy = stack.enter_context(agent(served, manifests, node.node))
        node_ports = (target for place in Place for target in outside_fleet.node_ports(place))
        targets = fleet.write_targets(plan.folder / "outside-life-targets", node_ports)
        load = stack.enter_context(steady(plan, rounds.Side("ours", targets, node.client, plain)))
        time.sleep(_CALM)
        load.outcome()
        taken = [_round(proxy, load) for _ in range(plan.outside_lives)]
        last = load.end()
        taken[-1] = taken[-1]._replace(restart=joined((taken[-1].restart, last)))
    return _section(plan, size, taken)


def _round(proxy: Agent, load: Steady) -> _Round:
    time.sleep(_CALM)
    calm = load.outcome()
    proxy.check()
    start = time.monotonic()
    proxy.kill()
    proxy.start()
    seconds = time.monotonic() - start
    time.sleep(_CALM)
    return _Round(calm, load.outcome(), seconds)


def _section(plan: Plan, size: int, taken: list[_Round]) -> Section:
    columns = [[one.calm for one in taken], [one.restart for one in taken]]
    slowest = [rounds.Spread.of([one.slowest / 1e6 for one in column]) for column in columns]
    above = rounds.Spread.of([slowest[1].high - slowest[0].high])
    rows = [
        ["from the kill until it is ready, s", "", rounds.Spread.of([one.seconds for one in taken]).text()],
        ["slowest answer, ms", *(spread.text(1) for spread in slowest)],
        ["connections, failed of all", *map(failures, columns)],
        ["streams broken", *(str(joined(column).broken) for column in columns)],
    ]
    all_ = joined([*chain(*columns)])
    what = "killed under load from outside"
    goals = [
        Goal.at_most(what, rounds.Spread.of([all_.failed]), 0, "failed", 0),
        Goal.at_most(what, rounds.Spread.of([all_.broken]), 0, "broken", 0),
        Goal.at_most(f"{what}: slowest answer, above that without", above, 5, "ms", 1),
    ]
    text = _METHOD.format(rate=plan.connections_a_second, streams=plan.streams, size=size, processors=os.cpu_count())
    return Section("From outside: a kill under load", text, ["", "agent at work", "killed and restarted"], rows, goals)
