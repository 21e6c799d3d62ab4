# SPDX-License-Identifier: Apache-2.0
"""How soon a changed manifest is in effect, and what memory the agent has: the real agent, on a folder of manifests."""

from __future__ import annotations

import errno
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import fleet, rounds, world
from bench.agent import Agent, agent, write_manifest
from bench.plan import Plan
from bench.report import Goal, Section

BULK_ENDPOINTS = 10
_CHANGED = "changed.json"
_UNREACHABLE = "10.192.1.1"
"""An endpoint without a route of its own: connect() to it ends with ENETUNREACH."""
_METHOD = """\
The agent runs on a folder of manifests with that many Services of ten endpoints each. *In effect*: from the rename() of
a manifest into the folder to the first connect() that is treated accordingly; a client asks over and over, on the other
processor. *Memory*: proportional set size (PSS) of the agent's process when it has taken all in, and its
largest resident size until then."""


def measure(plan: Plan) -> Section:
    """Run the agent at each size."""
    header = ["Services × 10 endpoints", "endpoint moves, ms", "Service appears or goes, ms", "PSS, MB", "peak RSS, MB"]
    rows, goals = [], []
    for size, limit in zip(plan.agent_sizes, (80, 180), strict=True):
        moves, appears, pss, peak = _measure_size(plan, size)
        rows.append([f"{size:,}", moves.text(1), appears.text(1), f"{pss:.0f}", f"{peak:.0f}"])
        memory = rounds.Spread.of([pss])
        goals += [
            Goal.at_most(f"manifest changed → in effect, endpoint moves, {size:,} Services × 10", moves, 5, "ms", 1),
            Goal.at_most(f"manifest changed → in effect, Service appears, {size:,} Services × 10", appears, 5, "ms", 1),
            Goal.at_most(f"memory of the agent (PSS), {size:,} Services × 10", memory, limit, "MB", 0),
        ]
    return Section("The agent", _METHOD, header, rows, goals)


def _measure_size(plan: Plan, size: int) -> tuple[rounds.Spread, rounds.Spread, float, float]:
    folder = plan.folder / f"manifests-{size}"
    folder.mkdir()
    write_manifest(folder / "node.json", [fleet.node()])
    write_manifest(folder / "services.json", fleet.objects(size, BULK_ENDPOINTS))
    with ExitStack() as stack:
        served = stack.enter_context(world.cgroup("ours"))
        namespace = stack.enter_context(world.routeless())
        process = stack.enter_context(agent(served, folder, namespace))
        pss, peak = _memory(process)
        targets = fleet.write_service_targets(plan.folder / "changed", [size], 1)
        side = rounds.Side("changed", targets, namespace, served)
        moves = _changes(plan, folder, side, [_moved(size, index) for index in range(2)])
        appears = _changes(plan, folder, side, [([], errno.ETIMEDOUT), _moved(size, 0)])
    return moves, appears, pss, peak


def _moved(number: int, index: int) -> tuple[list[dict[str, Any]], int]:
    """Return a Service with one of two endpoints, and the error that connect() to it ends with."""
    addresses = ((fleet.endpoint(number, 0), errno.EACCES), (_UNREACHABLE, errno.ENETUNREACH))
    address, error = addresses[index]
    slice_ = fleet.endpoint_slice(number, [0])
    slice_["endpoints"][0]["addresses"] = [address]
    return [fleet.service(number), slice_], error


def _changes(
    plan: Plan, folder: Path, side: rounds.Side, states: list[tuple[list[dict[str, Any]], int]]
) -> rounds.Spread:
    """Let a manifest take one state after the other; return the milliseconds until each was in effect."""
    steps = []
    for step in range(plan.effect_rounds):
        objects, error = states[step % len(states)]
        file = plan.folder / f"step-{step}.json"
        write_manifest(file, objects)
        steps.append(f"{file}={error}")
    taken = rounds.take(
        [str(plan.loads.effect), str(folder / _CHANGED), side.argument(), *steps], "changing a manifest", len(steps)
    )
    # The first state may need more: the file itself is new.
    return rounds.Spread.of(taken[side.name][1:]).scaled(1e-6)


def _memory(agent: Agent) -> tuple[float, float]:
    """Return PSS and the largest resident size, in MB (10^6 bytes)."""
    process = Path("/proc") / str(agent.pid)
    pss = _kibibytes(process / "smaps_rollup", "Pss:")
    return pss * 1024 / 1e6, _kibibytes(process / "status", "VmHWM:") * 1024 / 1e6


def _kibibytes(file: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(key))
