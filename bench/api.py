# SPDX-License-Identifier: Apache-2.0
"""Our agent and kube-proxy, each on a node of its own, at one API server; what changes, starts and load are to them.

One after the other, so that none has to share the processors with another; by turns, and the order changes.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field

from bench import fleet, rounds, upload
from bench.changes import ADDED, Changes, ChangingService, changing_service, cycles
from bench.changes import ENDPOINTS as MANY_ENDPOINTS
from bench.control_plane import control_plane
from bench.lives import Life, cold_start, life
from bench.node import NAMES, OURS, SIDES, Node, node
from bench.plan import ENDPOINTS as FEW_ENDPOINTS
from bench.plan import Plan
from bench.proxy_costs import ApiCost, Meter, Rest, Use, rest, use
from bench.reach import Reach, reach
from tools.kubernetes.control_plane import ControlPlane


@dataclass(slots=True)
class Results:
    """By number of Services and side. What kube-proxy does not come up with is not there."""

    changes: dict[tuple[int, str], list[Changes]] = field(default_factory=lambda: defaultdict(list))
    cold_starts: dict[tuple[int, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    starts: dict[tuple[int, str], ApiCost] = field(default_factory=dict)
    uses: dict[tuple[int, str], Use] = field(default_factory=dict)
    rests: dict[str, Rest] = field(default_factory=dict)
    """At the last number."""
    lives: dict[str, list[Life]] = field(default_factory=lambda: defaultdict(list))


def run(plan: Plan) -> Results:
    """Measure everything."""
    with control_plane(plan.folder, is_audited=True) as plane:
        measuring = _Measuring(plan, plane)
        for size in plan.api_sizes:
            measuring.turns(size)
        measuring.lives(plan.api_sizes[-1])
    rounds.show("")
    return measuring.results


class _Measuring:
    def __init__(self, plan: Plan, plane: ControlPlane) -> None:
        self._plan = plan
        self._plane = plane
        self._churn = upload.Churn(plane, MANY_ENDPOINTS)
        self.results = Results()

    def turns(self, size: int) -> None:
        """Let every side live with so many Services, several times."""
        plan = self._plan
        upload.fill(self._plane, size, MANY_ENDPOINTS)
        count = plan.api_rounds if size < plan.api_sizes[-1] else 1
        with changing_service(self._plane, size) as service:
            for turn in range(count):
                for side in random.Random(turn).sample(SIDES, len(SIDES)):
                    with_costs = size in plan.api_cost_sizes and turn == count - 1
                    self._turn(side, size, service, with_costs=with_costs)

    def lives(self, size: int) -> None:
        """Let proxies start, restart and be killed."""
        upload.resize(self._plane, size, FEW_ENDPOINTS)
        with changing_service(self._plane, size) as service:
            for side in self._plan.lives:
                rounds.show(f"{NAMES[side]}: starts and restarts with {size:,} Services")
                lived = life(self._plan, self._plane, side, services=size, endpoints=FEW_ENDPOINTS, service=service)
                self.results.lives[side].append(lived)

    def _turn(self, side: str, size: int, service: ChangingService, *, with_costs: bool) -> None:
        """Let one proxy start on a new node, and measure changes, and costs perhaps."""
        plan, results = self._plan, self.results
        rounds.show(f"{NAMES[side]}: {size:,} Services")
        with node(plan, self._plane, side) as one:
            meter = Meter(self._plane, one)
            seconds = cold_start(plan, one, size, MANY_ENDPOINTS)
            results.cold_starts[size, side].append(seconds)
            if seconds == math.inf:
                print(f"{NAMES[side]} has not come up after {plan.patience:.0f} s", file=sys.stderr)
                return
            one.wait_until_quiet()
            results.starts[size, side] = meter.cost()
            targets = fleet.write_service_targets(plan.folder / "first-service", [0], MANY_ENDPOINTS)
            with reach(plan, one, targets) as client:
                count = plan.cycles if side == OURS else plan.kube_proxy_cycles
                results.changes[size, side].append(cycles(one, client, service, count))
                if with_costs:
                    self._costs(one, size, client, service, meter)

    def _costs(self, one: Node, size: int, client: Reach, service: ChangingService, life: Meter) -> None:
        plan, results = self._plan, self.results
        service.timed(client, ADDED)
        time.sleep(one.rest)
        results.uses[size, one.side] = use(plan, one, client, service, lambda: self._churn_once(size))
        if size == plan.api_sizes[-1]:
            results.rests[one.side] = rest(plan, self._plane, one, client, service=service, life=life)
        service.delete()

    def _churn_once(self, size: int) -> float:
        return self._churn.run(size, self._plan.changes_a_second, self._plan.churn_seconds)
