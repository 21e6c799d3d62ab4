# SPDX-License-Identifier: Apache-2.0
"""Clients outside the node through NodePorts, to endpoints of this node and of another, against no proxy at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import agent_process, fleet, outside_fleet, rounds, upload, world
from bench.answering import answering, threads
from bench.control_plane import MODES, kube_proxy, wait_until_synced
from bench.outside_fleet import Place
from bench.outside_world import Outside, outside
from bench.plan import ENDPOINTS, Plan
from bench.report import Goal, Section, sizes_text
from tools.kubernetes.control_plane import ControlPlane

DIRECT, OURS = "direct", "ours"
_NAMES = {
    DIRECT: "endpoint's address, no proxy at all",
    OURS: "NodePort, ours",
    **{mode: f"NodePort, kube-proxy {mode}" for mode in MODES},
}
_TUPLES = 64_000_000
"""Source tuples that a side may use: none is used twice."""
_METHOD = """\
{what}

A client outside connects to sixteen NodePorts of a node that has so many Services besides. *Here*: their endpoints are
pods of the node; *elsewhere*: pods of another node behind it, which sees the first node's address. Each figure is the
ratio to the same round's figure for the endpoint's own address by the same way, without any proxy, rules or connection
tracking. Every answer came from an endpoint of the Service that was asked."""
_LATENCY = "From connect() to the end of close(), with all of the way on one processor."
_RATE = "Connections a second of many threads that connect, ask who answers, and close, on all processors."
_DATAGRAMS = """\
What a datagram of 64 bytes costs from send() to the endpoint's socket, with all of the way on one processor: by so much
fewer of them are there in a second."""


@dataclass(frozen=True, slots=True)
class _Match:
    """One side at one place."""

    name: str
    place: Place
    side: rounds.Side
    server: str


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the sides took in each round, at one size; a side's name has its place: ``ours-here``."""

    latency: rounds.Rounds
    rate: rounds.Rounds
    datagrams: rounds.Rounds


def measure(plan: Plan, plane: ControlPlane | None) -> list[Section]:
    """Measure at every size."""
    outcomes = {size: _measure_size(plan, size, plane) for size in plan.outside_sizes}
    return [_latency_section(outcomes), _rate_section(outcomes), _datagrams_section(outcomes)]


def _measure_size(plan: Plan, size: int, plane: ControlPlane | None) -> _Outcome:
    with ExitStack() as stack:
        plain = stack.enter_context(world.cgroup("plain"))
        nodes = {name: stack.enter_context(outside(name)) for name in (DIRECT, OURS)}
        stack.enter_context(_serving(plan, size, nodes[OURS]))
        if plane and size in plan.kube_proxy_sizes:
            nodes |= stack.enter_context(_proxied(plan, plane, size))
        matches = list(_matches(plan.folder, nodes, plain))
        return _Outcome(_latency(plan, size, matches), _rate(plan, size, matches), _datagrams(plan, size, matches))


@contextmanager
def _serving(plan: Plan, size: int, node: Outside) -> Iterator[None]:
    """Let our agent serve a node."""
    manifests = plan.folder / f"outside-manifests-{size}"
    manifests.mkdir()
    agent_process.write_manifest(manifests / "node.json", [fleet.node()])
    agent_process.write_manifest(manifests / "services.json", fleet.objects(size, ENDPOINTS))
    agent_process.write_manifest(manifests / "node-ports.json", outside_fleet.objects())
    with world.cgroup("ours") as served, agent_process.agent(served, manifests, node.node):
        yield


@contextmanager
def _proxied(plan: Plan, plane: ControlPlane, size: int) -> Iterator[dict[str, Outside]]:
    """Build a node for each mode of kube-proxy, and wait until it serves."""
    upload.fill(plane, size, ENDPOINTS)
    with closing(plane.client()) as client:
        upload.create(client, outside_fleet.objects())
    with ExitStack() as stack:
        nodes = {mode: stack.enter_context(outside(mode)) for mode in MODES}
        proxies = {mode: stack.enter_context(kube_proxy(plane, nodes[mode].node, mode)) for mode in MODES}
        ends = [
            *(fleet.service_target(number, ENDPOINTS) for number in (0, size - 1)),
            *(target for place in Place for target in outside_fleet.node_ports(place)),
        ]
        for mode, node in nodes.items():
            with answering(plan, node.server), answering(plan, node.far_server):
                wait_until_synced(node.client, proxies[mode], ends)
        yield nodes


def _matches(folder: Path, nodes: Mapping[str, Outside], plain: Path) -> Iterator[_Match]:
    first_sources = iter(range(0, 100 * _TUPLES, _TUPLES))
    for place in Place:
        endpoints = fleet.write_targets(folder / f"endpoints-{place.value}", outside_fleet.endpoints(place))
        node_ports = fleet.write_targets(folder / f"node-ports-{place.value}", outside_fleet.node_ports(place))
        for name, node in nodes.items():
            targets = endpoints if name == DIRECT else node_ports
            side = rounds.Side(f"{name}-{place.value}", targets, node.client, plain, next(first_sources))
            yield _Match(name, place, side, node.server if place is Place.HERE else node.far_server)


def _latency(plan: Plan, size: int, matches: list[_Match]) -> rounds.Rounds:
    arguments = [f"{world.file_of(match.server)}:{match.side.argument()}" for match in matches]
    counts = (plan.latency_rounds, plan.latency_connections, world.PORT)
    command = [str(plan.loads.latency), *map(str, counts), *arguments]
    return rounds.take(command, f"outside: connect and close at {size:,} Services", plan.latency_rounds * len(matches))


def _rate(plan: Plan, size: int, matches: list[_Match]) -> rounds.Rounds:
    arguments = [match.side.at(_TUPLES // 3).argument() for match in matches]
    counts = (plan.outside_rate_rounds, plan.rate_milliseconds, threads())
    command = [str(plan.loads.rate), *map(str, counts), *arguments]
    with ExitStack() as stack:
        for server in {match.server for match in matches}:
            stack.enter_context(answering(plan, server))
        label = f"outside: connections a second at {size:,} Services"
        return rounds.take(command, label, plan.outside_rate_rounds * len(matches))


def _datagrams(plan: Plan, size: int, matches: list[_Match]) -> rounds.Rounds:
    arguments = [f"{world.file_of(match.server)}:{match.side.at(2 * _TUPLES // 3).argument()}" for match in matches]
    counts = (plan.datagram_rounds, plan.datagrams, world.PORT)
    command = [str(plan.loads.datagrams), *map(str, counts), *arguments]
    return rounds.take(command, f"outside: datagrams at {size:,} Services", plan.datagram_rounds * len(matches))


def _rows(taken: Mapping[int, rounds.Rounds], scale: float, unit: str) -> list[list[str]]:
    """Return the direct way as it is, the others as ratios to it; empty where a side was not measured."""
    rows = []
    for place in Place:
        for name, text in _NAMES.items():
            key, baseline = f"{name}-{place.value}", f"{DIRECT}-{place.value}"
            if name == DIRECT:
                cells = [f"{rounds.Spread.of(one[key]).scaled(scale).text(1)} {unit}" for one in taken.values()]
            else:
                cells = [
                    f"{rounds.ratios(one, key, baseline).text(3)} ×" if key in one else "" for one in taken.values()
                ]
            if any(cells):
                rows.append([f"{place.value}: {text}", *cells])
    return rows


def _ratio(one: rounds.Rounds, name: str, place: Place) -> rounds.Spread:
    return rounds.ratios(one, f"{name}-{place.value}", f"{DIRECT}-{place.value}")


def _cost_goals(what: str, taken: Mapping[int, rounds.Rounds], limits: Mapping[Place, float]) -> list[Goal]:
    return [
        Goal.at_most(
            f"{what} from outside, endpoint {place.value}, {sizes_text(list(taken))}",
            max(_ratio(one, OURS, place) for one in taken.values()),
            limit,
            "×",
            digits=3,
        )
        for place, limit in limits.items()
    ]


def _section(
    title: str, what: str, taken: Mapping[int, rounds.Rounds], rows: list[list[str]], goals: list[Goal]
) -> Section:
    header = ["", *(f"{size:,} Services" for size in taken)]
    return Section(title, _METHOD.format(what=what), header, rows, goals)


def _latency_section(outcomes: Mapping[int, _Outcome]) -> Section:
    taken = {size: outcome.latency for size, outcome in outcomes.items()}
    goals = _cost_goals("connect+close", taken, {Place.HERE: 1.12, Place.ELSEWHERE: 1.15})
    return _section("From outside: TCP connect and close", _LATENCY, taken, _rows(taken, 1e-3, "µs"), goals)


def _datagrams_section(outcomes: Mapping[int, _Outcome]) -> Section:
    taken = {size: outcome.datagrams for size, outcome in outcomes.items()}
    goals = _cost_goals("64-byte datagram", taken, dict.fromkeys(Place, 1.08))
    return _section("From outside: datagrams", _DATAGRAMS, taken, _rows(taken, 1, "ns"), goals)


def _rate_section(outcomes: Mapping[int, _Outcome]) -> Section:
    taken = {size: outcome.rate for size, outcome in outcomes.items()}
    goals = []
    for place in Place:
        for size, one in taken.items():
            others = [_ratio(one, mode, place).median for mode in MODES if f"{mode}-{place.value}" in one]
            if others:
                name = f"short connections a second from outside, endpoint {place.value}, {size:,} Services"
                goals.append(Goal.at_least(name, _ratio(one, OURS, place), round(max(others), 3), "×", digits=3))
    return _section("From outside: connections a second", _RATE, taken, _rows(taken, 1e-3, "thousand"), goals)
