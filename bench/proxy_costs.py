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
from bench.changes import ADDED, DELETED, MOVED, ChangingService
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
class Costs:
    """Of one proxy at one number of Services. Shares are of one processor."""

    memory: Memory
    memory_after_churn: Memory
    idle_share: float
    churn_shares: list[float]
    churn_rates: list[float]
    """Changes a second that there really were, in each round."""
    lags: list[float]
    """Milliseconds from the answer to one more request, after each round, to its effect."""
    relist: ApiCost
    idle_hour: ApiCost


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


def use(
    plan: Plan, plane: ControlPlane, one: Node, client: Reach, *, service: ChangingService, churn: Callable[[], float]
) -> Costs:
    """Use a proxy that has just come up. The changing Service is not there before and after.

    ``churn`` does one round of it and returns how many changes a second it were.
    """
    life = Meter(plane, one)
    memory = one.memory()
    service.timed(client, ADDED)
    time.sleep(one.rest)
    shares, rates, lags = _churn(plan, one, client, service, churn)
    memory_after = one.memory()
    one.wait_until_quiet()
    idle_share, idle, others = _idle(plan, plane, one)
    relist = _relist(plane, one, client, service)
    service.timed(client, DELETED)
    return Costs(
        memory=memory,
        memory_after_churn=memory_after,
        idle_share=idle_share,
        churn_shares=shares,
        churn_rates=rates,
        lags=lags,
        relist=relist,
        idle_hour=ApiCost(others + _watches_an_hour(life), idle),
    )


def _churn(
    plan: Plan, one: Node, client: Reach, service: ChangingService, churn: Callable[[], float]
) -> tuple[list[float], list[float], list[float]]:
    """Return the share of a processor, the changes a second, and the lag after them, of each round."""
    shares, rates, lags = [], [], []
    for turn in range(plan.churn_rounds):
        rounds.show(f"{NAMES[one.side]}: churn, {turn} of {plan.churn_rounds} rounds")
        used, start = one.cpu_seconds(), time.monotonic()
        rates.append(churn())
        lags.append(service.timed(client, MOVED).whole)
        shares.append((one.cpu_seconds() - used) / (time.monotonic() - start))
        time.sleep(one.rest)
    rounds.show("")
    return shares, rates, lags


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
        create(writer, [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"at-{time.time_ns()}"}}])
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
