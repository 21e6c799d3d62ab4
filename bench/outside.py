# SPDX-License-Identifier: Apache-2.0
"""Clients outside the node through NodePorts, to endpoints of this node and of another: by turns with others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import fleet, outside_fleet, outside_life, outside_report, rounds, upload, world
from bench.agent import agent
from bench.answering import answering, threads
from bench.control_plane import MODES, kube_proxy, wait_until_synced
from bench.outside_fleet import Place
from bench.outside_report import DIRECT, OURS, Figures
from bench.outside_world import Outside, outside
from bench.plan import ENDPOINTS, Plan
from bench.report import Section
from tools.kubernetes.control_plane import ControlPlane

_LOADS = 6
_TUPLES = 60_000_000
"""Source tuples that a side may use: none is used twice."""
_KEPT_ALIVE = 1_000_000
"""Requests of a connection that stays for all of a turn."""


@dataclass(frozen=True, slots=True)
class _Match:
    """One side at one place."""

    name: str
    place: Place
    side: rounds.Side
    server: str


def measure(plan: Plan, plane: ControlPlane | None) -> list[Section]:
    """Measure at every size."""
    figures = {size: _measure_size(plan, size, plane) for size in plan.outside_sizes}
    return [*outside_report.sections(figures), outside_life.measure(plan)]


def _measure_size(plan: Plan, size: int, plane: ControlPlane | None) -> Figures:
    with ExitStack() as stack:
        plain = stack.enter_context(world.cgroup("plain"))
        nodes = {name: stack.enter_context(outside(name)) for name in (DIRECT, OURS)}
        stack.enter_context(_serving(plan, size, nodes[OURS]))
        if plane and size in plan.kube_proxy_sizes:
            nodes |= stack.enter_context(_proxied(plan, plane, size))
        turns = _Turns(plan, size, list(_matches(plan.folder, nodes, plain)))
        taken = (turns.latency(), turns.rate(), turns.requests(), turns.datagrams(), turns.transfer("offloads on"))
        for node in nodes.values():
            node.turn_offloads_off()
        return Figures(*taken, turns.transfer("offloads off"))


@contextmanager
def _serving(plan: Plan, size: int, node: Outside) -> Iterator[None]:
    """Let our agent serve a node."""
    manifests = outside_fleet.write_manifests(plan.folder / f"outside-manifests-{size}", size)
    with world.cgroup("ours") as served, agent(served, manifests, node.node):
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


class _Turns:
    """Has the sides take turns at one load after the other, none of which uses another's source tuples."""

    def __init__(self, plan: Plan, size: int, matches: Sequence[_Match]) -> None:
        """Know the sides, and how many Services there are."""
        self._plan = plan
        self._size = size
        self._matches = matches
        self._first_tuples = iter(range(0, _TUPLES, _TUPLES // _LOADS))

    def latency(self) -> rounds.Rounds:
        """Return nanoseconds from connect() to the end of close()."""
        counts = (self._plan.latency_rounds, self._plan.latency_connections, world.PORT)
        return self._take(self._plan.loads.latency, counts, "connect and close")

    def datagrams(self) -> rounds.Rounds:
        """Return nanoseconds of a datagram."""
        counts = (self._plan.datagram_rounds, self._plan.datagrams, world.PORT)
        return self._take(self._plan.loads.datagrams, counts, "datagrams")

    def transfer(self, how: str) -> rounds.Rounds:
        """Return gigabits a second, and of ``-cpu`` the seconds of processors for each."""
        counts = (self._plan.transfer_rounds, self._plan.transfer_milliseconds, world.PORT)
        return self._take(self._plan.loads.transfer, counts, f"one connection's data, {how}", lines=2)

    def rate(self) -> rounds.Rounds:
        """Return short connections a second."""
        return self._take_answered(1, "connections a second")

    def requests(self) -> rounds.Rounds:
        """Return requests a second of connections that stay."""
        return self._take_answered(_KEPT_ALIVE, "requests a second")

    def _take(self, load: Path, counts: tuple[int, ...], label: str, lines: int = 1) -> rounds.Rounds:
        first = next(self._first_tuples)
        sides = [f"{world.file_of(one.server)}:{one.side.at(first).argument()}" for one in self._matches]
        return self._run([str(load), *map(str, counts), *sides], label, counts[0] * lines)

    def _take_answered(self, requests: int, label: str) -> rounds.Rounds:
        first = next(self._first_tuples)
        counts = (self._plan.outside_rate_rounds, self._plan.rate_milliseconds, threads(), requests)
        sides = [one.side.at(first).argument() for one in self._matches]
        with ExitStack() as stack:
            for server in {one.server for one in self._matches}:
                stack.enter_context(answering(self._plan, server))
            return self._run([str(self._plan.loads.rate), *map(str, counts), *sides], label, counts[0])

    def _run(self, command: list[str], label: str, count: int) -> rounds.Rounds:
        return rounds.take(command, f"outside: {label} at {self._size:,} Services", count * len(self._matches))
