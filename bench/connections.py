# SPDX-License-Identifier: Apache-2.0
"""TCP connections from a pod to a pod: direct with no proxy, direct beside our hooks, and through ClusterIPs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import fleet, ours, rounds, upload, world
from bench.answering import answering, threads
from bench.charts import Axis, Series, line_chart
from bench.control_plane import MODES, kube_proxy, wait_until_synced
from bench.plan import ENDPOINTS, Plan
from bench.report import Chart, Goal, Section, sizes_text
from tools.kubernetes.control_plane import ControlPlane

DIRECT = "direct"
OURS = "ours"
BESIDE = "beside"
ALL = "all"
SCATTERED = "scattered"
_NAMES = {
    DIRECT: "pod address, no proxy at all",
    BESIDE: "pod address, our hooks attached",
    OURS: "ClusterIP, ours",
    SCATTERED: "each time another pod address, no proxy at all",
    ALL: "each time another ClusterIP, ours",
    **{mode: f"ClusterIP, kube-proxy {mode}" for mode in MODES},
}
_CHART_NAMES = {DIRECT: "no proxy", OURS: "ours", **{mode: f"kube-proxy {mode}" for mode in MODES}}
_BASELINES = (DIRECT, SCATTERED)
_RATED = (DIRECT, OURS, *MODES)
_TUPLES = 64_000_000
"""Source tuples that a side may use in one measure: none is used twice."""
_LATENCY = """\
From connect() to the end of close(), pod to pod over two veth pairs and the node's routing, each side by turns in
every round; each figure is the ratio to the same round's direct connections without any proxy (hooks detached, no
rules, no connection tracking). A client keeps coming back to at most sixteen Services, spread over all there are.
*Each time another* picks any of all at random, so that next to nothing of its Service is in the processor's caches; it
is compared with direct connections to as many pod addresses, and no limit was set for it. Every connection was
accepted by an endpoint of its Service, and no source port came up twice."""
_RATE = """\
Connections a second of many threads that connect, ask who answers, and close, on all processors; every answer is
checked. Each figure is the ratio to the same round's direct connections without any proxy."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the sides took in each round, at one size."""

    latency: rounds.Rounds
    rate: rounds.Rounds


def measure(plan: Plan, plane: ControlPlane | None) -> list[Section]:
    """Measure at every size."""
    outcomes = {size: _measure_size(plan, size, plane) for size in plan.sizes}
    return [_latency_section(outcomes), _rate_section(outcomes)]


def _measure_size(plan: Plan, size: int, plane: ControlPlane | None) -> Outcome:
    with ExitStack() as stack:
        plain, served = (stack.enter_context(world.cgroup(name)) for name in ("plain", "ours"))
        nodes = {DIRECT: stack.enter_context(world.pods("plain"))}
        stack.enter_context(ours.serving(served, size, ENDPOINTS))
        if plane and size in plan.kube_proxy_sizes:
            nodes |= stack.enter_context(_proxied(plan, plane, size))
        sides = _sides(plan.folder, size, nodes, plain, served)
        latency = _latency(plan, size, sides)
        rate = _rate(plan, size, sides)
    return Outcome(latency, rate)


@contextmanager
def _proxied(plan: Plan, plane: ControlPlane, size: int) -> Iterator[dict[str, world.Pods]]:
    """Build a node for each mode of kube-proxy, and wait until it serves."""
    upload.fill(plane, size, ENDPOINTS)
    with ExitStack() as stack:
        nodes = {mode: stack.enter_context(world.pods(mode)) for mode in MODES}
        proxies = {mode: stack.enter_context(kube_proxy(plane, nodes[mode].node, mode)) for mode in MODES}
        ends = [fleet.service_target(number, ENDPOINTS) for number in (0, size - 1)]
        for mode in MODES:
            with answering(plan, nodes[mode].server):
                wait_until_synced(nodes[mode].client, proxies[mode], ends)
        yield nodes


def _sides(
    folder: Path, size: int, nodes: Mapping[str, world.Pods], plain: Path, served: Path
) -> list[tuple[rounds.Side, world.Pods]]:
    few = fleet.few(size)
    endpoints = fleet.write_endpoint_targets(folder / "few-endpoints", few, ENDPOINTS)
    services = fleet.write_service_targets(folder / "few-services", few, ENDPOINTS)
    wanted = [
        (DIRECT, endpoints, plain),
        (BESIDE, endpoints, served),
        (OURS, services, served),
        (SCATTERED, fleet.write_endpoint_targets(folder / "endpoints", range(size), ENDPOINTS), plain),
        (ALL, fleet.write_service_targets(folder / "services", range(size), ENDPOINTS), served),
    ]
    wanted += [(mode, services, plain) for mode in nodes if mode != DIRECT]
    sides = []
    for number, (name, targets, cgroup) in enumerate(wanted):
        pods = nodes.get(name, nodes[DIRECT])
        sides.append((rounds.Side(name, targets, pods.client, cgroup, number * _TUPLES), pods))
    return sides


def _latency(plan: Plan, size: int, sides: list[tuple[rounds.Side, world.Pods]]) -> rounds.Rounds:
    arguments = [f"{world.file_of(pods.server)}:{side.argument()}" for side, pods in sides]
    counts = (plan.latency_rounds, plan.latency_connections, world.PORT)
    command = [str(plan.loads.latency), *map(str, counts), *arguments]
    return rounds.take(command, f"connect and close at {size:,} Services", plan.latency_rounds * len(sides))


def _rate(plan: Plan, size: int, sides: list[tuple[rounds.Side, world.Pods]]) -> rounds.Rounds:
    # The other half of each side's source tuples.
    wanted = [side.at(_TUPLES // 2) for side, _ in sides if side.name in _RATED]
    counts = (plan.rate_rounds, plan.rate_milliseconds, threads(), 1)
    command = [str(plan.loads.rate), *map(str, counts), *(side.argument() for side in wanted)]
    with ExitStack() as stack:
        for pods in {pods.server: pods for _, pods in sides}.values():
            stack.enter_context(answering(plan, pods.server))
        return rounds.take(command, f"connections a second at {size:,} Services", plan.rate_rounds * len(wanted))


def _rows(taken: Mapping[int, rounds.Rounds], names: tuple[str, ...], scale: float, unit: str) -> list[list[str]]:
    """Return the baselines as they are, the others as ratios to theirs; empty where a side was not measured."""
    rows = []
    for name in names:
        measured = [(one, one.get(name)) for one in taken.values()]
        if name in _BASELINES:
            cells = [
                f"{rounds.Spread.of(values).scaled(scale).text(1)} {unit}" if values else "" for _, values in measured
            ]
        else:
            baseline = SCATTERED if name == ALL else DIRECT
            cells = [f"{rounds.ratios(one, name, baseline).text(3)} ×" if values else "" for one, values in measured]
        if any(cells):
            rows.append([_NAMES[name], *cells])
    return rows


def _header(outcomes: Mapping[int, Outcome]) -> list[str]:
    return ["", *(f"{size:,} Services" for size in outcomes)]


def _latency_section(outcomes: Mapping[int, Outcome]) -> Section:
    taken = {size: outcome.latency for size, outcome in outcomes.items()}
    limits = {OURS: 1.05, BESIDE: 1.02}
    goals = [
        Goal.at_most(
            f"connect+close, {_NAMES[name]}, {sizes_text(list(taken))}",
            max(rounds.ratios(one, name, DIRECT) for one in taken.values()),
            limit,
            "×",
            digits=3,
        )
        for name, limit in limits.items()
    ]
    rows = _rows(taken, (DIRECT, BESIDE, OURS, *MODES, SCATTERED, ALL), 1e-3, "µs")
    chart = Chart(
        "benchmarks-connect.svg",
        "TCP connect and close against the pod address with no proxy, by the number of Services",
        _chart("TCP connect + close", "times the direct connection's", taken, (1, 2, 4, 8, 16)),
    )
    return Section("TCP connect and close", _LATENCY, _header(outcomes), rows, goals, (chart,))


def _rate_section(outcomes: Mapping[int, Outcome]) -> Section:
    taken = {size: outcome.rate for size, outcome in outcomes.items()}
    goal = Goal.at_least(
        f"short connections a second, {_NAMES[OURS]}, {sizes_text(list(taken))}",
        min(rounds.ratios(one, OURS, DIRECT) for one in taken.values()),
        0.95,
        "×",
        digits=3,
    )
    rows = _rows(taken, (DIRECT, OURS, *MODES), 1e-3, "thousand")
    return Section("Short connections a second", _RATE, _header(outcomes), rows, (goal,))


def _chart(title: str, vertical: str, taken: Mapping[int, rounds.Rounds], ticks: tuple[float, ...]) -> str:
    series = [
        Series(
            _CHART_NAMES[name],
            [(size, rounds.ratios(one, name, DIRECT).median) for size, one in taken.items() if name in one],
        )
        for name in (DIRECT, OURS, *MODES)
    ]
    highest = max(value for one in series for _, value in one.points)
    shown = [tick for index, tick in enumerate(ticks) if index == 0 or ticks[index - 1] < highest]
    sizes = list(taken)
    return line_chart(title, Axis("Services", sizes), Axis(vertical, shown), [one for one in series if one.points])
