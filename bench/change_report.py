# SPDX-License-Identifier: Apache-2.0
"""How soon changes were in effect, to a section of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from bench.api import Results
from bench.changes import ENDPOINTS, KINDS, MOVED
from bench.charts import Axis, Series, line_chart
from bench.node import NAMES, OURS, SIDES
from bench.plan import Plan
from bench.reach import Change
from bench.report import ABSENT, Chart, Goal, Section, sizes_text
from bench.rounds import Spread

_METHOD = """\
etcd, kube-apiserver and one node with one proxy at a time share this machine. A client connects to the changing
Service over and over, each time from another port, and looks who answers. *p50 / p99* in ms: from when the API server
has answered the request that makes the change, or has sent its first data to the node if that is sooner, until the
first connection that met the effect was established or, where the Service goes, until the first one that nobody
answered was begun. *In brackets*: of it the proxy's part, from when that data reached the node. What the API server
and etcd take before all that is in the last rows. The Service's {endpoints} endpoints are replaced by {endpoints}
others at once. Of ours {ours} changes of each kind were made (at the last size {ours_last}), of kube-proxy's {theirs}
({theirs_last}), so that its p99 is its slowest. Between two changes kube-proxy has its rest, as it gathers what comes
within a second (minSyncPeriod)."""


def section(plan: Plan, results: Results) -> Section:
    """Return the section, with its chart."""
    sizes = plan.api_sizes
    rows = [
        [f"{kind}, {NAMES[side]}", *(_cell(_all(results, size, side, kind)) for size in sizes)]
        for kind in KINDS
        for side in SIDES
    ]
    rows += [[f"{kind}, the request itself", *(_writing(results, size, kind) for size in sizes)] for kind in KINDS]
    counts = {"ours": plan.cycles, "theirs": plan.kube_proxy_cycles}
    text = _METHOD.format(
        endpoints=ENDPOINTS,
        **{name: count * plan.api_rounds for name, count in counts.items()},
        **{f"{name}_last": count for name, count in counts.items()},
    )
    header = ["", *(f"{size:,} Services × {ENDPOINTS}" for size in sizes)]
    goals = [goal for kind in KINDS for goal in _goals(plan, results, kind)]
    return Section("Changes through the API", text, header, rows, goals, (_chart(plan, results),))


def _goals(plan: Plan, results: Results, kind: str) -> Iterable[Goal]:
    taken = [_all(results, size, OURS, kind) for size in plan.api_sizes]
    name = f"changed in the API → in effect, p99: {kind}, {sizes_text(plan.api_sizes)}"
    whole = max(_percentile([change.whole for change in changes], 0.99) for changes in taken)
    own = max(_percentile([change.proxy for change in changes], 0.99) for changes in taken)
    yield Goal.at_most(name, Spread.of([whole]), 10, "ms", 1)
    yield Goal.at_most(f"{name}; of it the agent's part", Spread.of([own]), 5, "ms", 1)


def _all(results: Results, size: int, side: str, kind: str) -> list[Change]:
    return [change for changes in results.changes[size, side] for change in changes[kind]]


def _percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of all do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def _cell(changes: Sequence[Change]) -> str:
    if not changes:
        return ABSENT
    whole, own = (
        " / ".join(f"{_percentile(values, share):,.1f}" for share in (0.5, 0.99))
        for values in ([change.whole for change in changes], [change.proxy for change in changes])
    )
    lost = sum(change.lost for change in changes)
    return f"{whole} ({own})" + (f"; {lost} lost" if lost else "")


def _writing(results: Results, size: int, kind: str) -> str:
    times = [change.writing for side in SIDES for change in _all(results, size, side, kind)]
    return " / ".join(f"{_percentile(times, share):,.1f}" for share in (0.5, 0.99))


def _chart(plan: Plan, results: Results) -> Chart:
    series = [
        Series(
            NAMES[side],
            [(size, _median(taken)) for size in plan.api_sizes if (taken := _all(results, size, side, MOVED))],
        )
        for side in SIDES
    ]
    values = [value for one in series for _, value in one.points]
    powers = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    vertical = Axis("milliseconds (median)", [10.0**power for power in powers])
    title = "Endpoints changed in the API → first connection to them"
    svg = line_chart(title, Axis("Services", plan.api_sizes), vertical, series)
    return Chart("benchmarks-change.svg", f"{title}, by the number of Services", svg)


def _median(changes: Sequence[Change]) -> float:
    return _percentile([change.whole for change in changes], 0.5)
