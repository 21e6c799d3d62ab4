# SPDX-License-Identifier: Apache-2.0
"""A proxy's life on a node: it starts with nothing, starts again with what it left, and is killed under load."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from bench import fleet, world
from bench.changes import ADDED, ChangingService
from bench.node import NAMES, OURS, Node, node
from bench.plan import Plan
from bench.reach import Reach, reach
from bench.steady import Outcome, steady
from tools.kubernetes.control_plane import ControlPlane

_CALM = 2.0
"""Seconds of load before a proxy is killed, and after it is back; and in which a proxy can tidy up."""


@dataclass(frozen=True, slots=True)
class Life:
    """Seconds, and what became of connections."""

    cold_start: float
    restart: float
    restart_under_load: float
    outcome: Outcome
    writes: int | None
    """How often our agent wrote into the maps at a start that found everything as it should be."""


def cold_start(plan: Plan, one: Node, services: int, endpoints: int) -> float:
    """Start the proxy of a new node; return after how many seconds Services all over were served.

    Then every Service is asked once, and must be answered by an endpoint of its own. Infinity: kube-proxy did not serve
    them in the time that it is given.
    """
    numbers = sorted({*fleet.few(services), services - 1})
    with reach(plan, one, fleet.write_service_targets(plan.folder / "some-services", numbers, endpoints)) as client:
        start = one.start()
        served = client.all(plan.patience)
    if served is None:
        if one.side == OURS:
            msg = f"our agent does not serve {services:,} Services after {plan.patience:.0f} s"
            raise world.WorldError(msg)
        return math.inf
    if one.side == OURS:
        one.wait_until_ready()
    everything = fleet.write_service_targets(plan.folder / "all-services", range(services), endpoints)
    with reach(plan, one, everything) as client:
        if client.all(plan.patience) is None:
            msg = f"{NAMES[one.side]} does not serve all of {services:,} Services"
            raise world.WorldError(msg)
    return (served - start) / 1e9


def life(
    plan: Plan, plane: ControlPlane, side: str, *, services: int, endpoints: int, service: ChangingService
) -> Life:
    """Let a proxy live on a node of its own."""
    with node(plan, plane, side) as one:
        cold = cold_start(plan, one, services, endpoints)
        if cold == math.inf:
            msg = f"{NAMES[side]} does not serve {services:,} Services after {plan.patience:.0f} s"
            raise world.WorldError(msg)
        targets = plan.folder / "all-services"
        with reach(plan, one, targets) as client:
            service.timed(client, ADDED)
            time.sleep(one.rest)
            warm = _restart(one, client, service)
            time.sleep(_CALM)
            writes = _writes_of_a_restart(one) if side == OURS else None
            with steady(plan, one.load(targets)) as load:
                time.sleep(_CALM)
                loaded = _restart(one, client, service)
                time.sleep(_CALM)
                outcome = load.end()
        service.delete()
    return Life(cold, warm, loaded, outcome, writes)


def _restart(one: Node, client: Reach, service: ChangingService) -> float:
    """Kill the proxy and start it again; return after how many seconds a change is in effect that it has missed."""
    start = 0
    before = service.now
    one.check()
    one.proxy.kill()
    service.move()

    def begin() -> None:
        nonlocal start
        start = one.start()

    in_effect, *_ = client.until(before, service.now, begin)
    return (in_effect - start) / 1e9


def _writes_of_a_restart(one: Node) -> int:
    """Return how often our agent writes when it is started again and nothing has changed."""
    one.check()
    one.proxy.kill()
    one.start()
    return int(one.wait_until_ready()["writes"])
