# SPDX-License-Identifier: Apache-2.0
"""What a proxy takes from its node and from the API server: memory, time of processors, requests, bytes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from bench import rounds
from bench.changes import MOVED, ChangingService
from bench.node import NAMES, Memory, Node
from bench.plan import Plan
from bench.reach import Reach
from bench.upload import create
from tools.kubernetes.control_plane import ControlPlane

_HOUR = 3600.0


class ApiCost(NamedTuple):
    """Seen by the API server, and on the wire to it."""

    requests: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Use:
    """What changes cost a proxy's node. Shares are of one processor."""

    memory: Memory
    memory_after_churn: Memory
    churn_shares: list[float]
    churn_rates: list[float]
    """Changes a second that there really were, in each round."""
    lags: list[float]
    """Milliseconds from the answer to one more request, after each round, to its effect."""


@dataclass(frozen=True, slots=True)
class Rest:
    """What a proxy costs when nothing changes, and when the API server comes back."""

    idle_share: float
    """Of one processor."""
    idle_hour: ApiCost
    relist: ApiCost


class Meter:
    """Counts a node's requests and bytes from when it is made."""

    def __init__(self, plane: ControlPlane, one: Node) -> None:
        """Begin to count."""
        self._plane = plane
        self._node = one
        self._position = plane.audit_position()
        self._bytes = one.api_bytes()

    def cost(self) -> ApiCost:
        """Return what there was until now."""
        return ApiCost(len(self.requests()), self._node.api_bytes() - self._bytes)

    def requests(self) -> list[dict[str, Any]]:
        """Return the audit event of each request: of a watch, that of its beginning."""
        return [
            event
            for event in self._plane.audit_events(self._position)
            if self._node.address in event.get("sourceIPs", ())
            and (event["verb"] != "watch" or event["stage"] == "ResponseStarted")
        ]


def use(plan: Plan, one: Node, client: Reach, service: ChangingService, churn: Callable[[], float]) -> Use:
    """Let a proxy that has just come up follow changes.

    ``churn`` makes some, for one round, and returns how many a second it were. The changing Service is there and stays.
    """
    memory = one.memory()
    shares, rates, lags = [], [], []
    for turn in range(plan.churn_rounds):
        rounds.show(f"{NAMES[one.side]}: churn, {turn} of {plan.churn_rounds} rounds")
        used, start = one.cpu_seconds(), time.monotonic()
        rates.append(churn())
        lags.append(service.timed(client, MOVED).whole)
        shares.append((one.cpu_seconds() - used) / (time.monotonic() - start))
        time.sleep(one.rest)
    rounds.show("")
    return Use(memory, one.memory(), shares, rates, lags)


def rest(plan: Plan, plane: ControlPlane, one: Node, client: Reach, *, service: ChangingService, life: Meter) -> Rest:
    """Let a proxy do nothing, and restart the API server. ``life`` counts since the proxy was started."""
    one.wait_until_quiet()
    share, size, others = _idle(plan, plane, one)
    relist = _relist(plane, one, client, service)
    return Rest(share, ApiCost(others + _watches_an_hour(life), size), relist)


def _idle(plan: Plan, plane: ControlPlane, one: Node) -> tuple[float, float, float]:
    """Return the share of a processor, and for an hour the bytes and the requests but for watches."""
    meter = Meter(plane, one)
    used, start = one.cpu_seconds(), time.monotonic()
    while (passed := time.monotonic() - start) < plan.idle_seconds:
        rounds.show(f"{NAMES[one.side]}: nothing to do, {passed:.0f} of {plan.idle_seconds:.0f} s")
        time.sleep(1)
    share = (one.cpu_seconds() - used) / passed
    rounds.show("")
    others = [request for request in meter.requests() if request["verb"] != "watch"]
    return share, meter.cost().bytes * _HOUR / passed, len(others) * _HOUR / passed


def _relist(plane: ControlPlane, one: Node, client: Reach, service: ChangingService) -> ApiCost:
    """Let the API server come back with another state than watches can go on from."""
    # A revision that no watched object has, so that no watch knows of it.
    with closing(plane.client()) as writer:
        create(writer, [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"at-{time.monotonic_ns()}"}}])
    meter = Meter(plane, one)
    plane.api_server.kill()
    plane.start_api_server()
    client.until(service.now, service.other, service.move)
    one.wait_until_quiet()
    return meter.cost()


def _watches_an_hour(life: Meter) -> float:
    """Return how often watches begin anew in an hour, from how long clients have asked for them to last."""
    kinds, seconds = set(), []
    for request in life.requests():
        if request["verb"] == "watch":
            parameters = parse_qs(urlsplit(request["requestURI"]).query)
            kinds.add(request["objectRef"]["resource"])
            seconds.append(float(parameters["timeoutSeconds"][0]))
    return len(kinds) * _HOUR / statistics.mean(seconds) if seconds else 0.0
