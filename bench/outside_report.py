# SPDX-License-Identifier: Apache-2.0
"""What clients outside the node took, to sections of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bench import rounds
from bench.control_plane import MODES
from bench.outside_fleet import Place
from bench.report import Goal, Section, sizes_text

DIRECT, OURS = "direct", "ours"
_NAMES = {
    DIRECT: "endpoint's address, no proxy at all",
    OURS: "NodePort, ours",
    **{mode: f"NodePort, kube-proxy {mode}" for mode in MODES},
}
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
_REQUESTS = """\
Requests of one byte a second, over connections that stay for as long as a turn, of many threads on all processors."""
_TRANSFER = """\
What of one connection arrives in a second, and the time of all processors that a gigabit takes, whoever has it."""
_OFF = """\
No device on the way joins packets, cuts them or leaves their checksums to others (ethtool: tso, gso, gro, tx, rx)."""
CPU = "-cpu"
"""Behind the name of a side: its processor time."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the sides took in each round, at one size; a side's name has its place: ``ours-here``."""

    latency: rounds.Rounds
    rate: rounds.Rounds
    requests: rounds.Rounds
    datagrams: rounds.Rounds
    transfer: rounds.Rounds
    transfer_by_packet: rounds.Rounds
    """The same where no device joins packets, cuts them, or computes their checksums."""


Taken = Mapping[int, rounds.Rounds]
"""By number of Services."""


def sections(figures: Mapping[int, Figures]) -> list[Section]:
    """Return the sections."""

    def taken(pick: Callable[[Figures], rounds.Rounds]) -> Taken:
        return {size: pick(one) for size, one in figures.items()}

    return [
        _latency_section(taken(lambda one: one.latency)),
        _rate_section("connections a second", _RATE, taken(lambda one: one.rate)),
        _rate_section("requests a second", _REQUESTS, taken(lambda one: one.requests)),
        _datagrams_section(taken(lambda one: one.datagrams)),
        _transfer_section("one connection", _TRANSFER, taken(lambda one: one.transfer)),
        _transfer_section(
            "one connection, offloads off", f"{_TRANSFER} {_OFF}", taken(lambda one: one.transfer_by_packet)
        ),
    ]


def _latency_section(taken: Taken) -> Section:
    goals = _cost_goals("connect+close", taken, {Place.HERE: 1.12, Place.ELSEWHERE: 1.15})
    return _section("TCP connect and close", _LATENCY, taken, _rows(taken, 1e-3, "µs"), goals)


def _datagrams_section(taken: Taken) -> Section:
    goals = _cost_goals("64-byte datagram", taken, dict.fromkeys(Place, 1.08))
    return _section("datagrams", _DATAGRAMS, taken, _rows(taken, 1, "ns"), goals)


def _rate_section(what: str, how: str, taken: Taken) -> Section:
    return _section(what, how, taken, _rows(taken, 1e-3, "thousand"), _better_goals(what, taken))


def _transfer_section(what: str, how: str, taken: Taken) -> Section:
    rows = [*_rows(taken, 1, "Gbit/s"), *_rows(taken, 1e3, "ms of processors a Gbit", CPU)]
    goals = [*_better_goals(f"Gbit/s, {what}", taken), *_cheaper_goals(f"processor time a Gbit, {what}", taken)]
    return _section(what, how, taken, rows, goals)


def _section(what: str, how: str, taken: Taken, rows: list[list[str]], goals: list[Goal]) -> Section:
    header = ["", *(f"{size:,} Services" for size in taken)]
    return Section(f"From outside: {what}", _METHOD.format(what=how), header, rows, goals)


def _rows(taken: Taken, scale: float, unit: str, suffix: str = "") -> list[list[str]]:
    """Return the direct way as it is, the others as ratios to it; empty where a side was not measured."""
    rows = []
    for place in Place:
        for name, text in _NAMES.items():
            key = _key(name, place, suffix)
            if name == DIRECT:
                cells = [f"{rounds.Spread.of(one[key]).scaled(scale).text(1)} {unit}" for one in taken.values()]
            else:
                found = (_ratio(one, name, place, suffix) if key in one else None for one in taken.values())
                cells = [f"{ratio.text(3)} ×" if ratio else "" for ratio in found]
            if any(cells):
                rows.append([f"{place.value}: {text}{', processor time' if suffix else ''}", *cells])
    return rows


def _key(name: str, place: Place, suffix: str = "") -> str:
    return f"{name}-{place.value}{suffix}"


def _ratio(one: rounds.Rounds, name: str, place: Place, suffix: str = "") -> rounds.Spread:
    return rounds.ratios(one, _key(name, place, suffix), _key(DIRECT, place, suffix))


def _cost_goals(what: str, taken: Taken, limits: Mapping[Place, float]) -> list[Goal]:
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


def _better_goals(what: str, taken: Taken) -> list[Goal]:
    """Return that ours is no less than any mode of kube-proxy's, wherever these were measured."""
    return [Goal.at_least(name, min(ratios), 1, "×", digits=3) for name, ratios in _beside_kube_proxy(what, taken, "")]


def _cheaper_goals(what: str, taken: Taken) -> list[Goal]:
    """Return that ours takes no more of the processors."""
    return [Goal.at_most(name, max(ratios), 1, "×", digits=3) for name, ratios in _beside_kube_proxy(what, taken, CPU)]


def _beside_kube_proxy(what: str, taken: Taken, suffix: str) -> Iterator[tuple[str, list[rounds.Spread]]]:
    """Yield what ours is of each mode of kube-proxy's, round by round."""
    for place in Place:
        for size, one in taken.items():
            modes = [_key(mode, place, suffix) for mode in MODES if _key(mode, place, suffix) in one]
            if modes:
                name = f"{what} from outside, endpoint {place.value}, {size:,} Services, of kube-proxy's"
                yield name, [rounds.ratios(one, _key(OURS, place, suffix), mode) for mode in modes]
