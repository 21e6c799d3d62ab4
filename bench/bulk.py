# SPDX-License-Identifier: Apache-2.0
"""Ten thousand Services of ten endpoints into empty maps, and the same again after a restart.

Each round is a process of its own (``python -m bench.bulk CGROUP BPFFS``), twice on the same pins.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import structlog

from bench import ours, rounds, world
from bench.plan import Plan
from bench.report import Goal, Section
from kubeproxy_ebpf.datapath import loader

SERVICES, ENDPOINTS = 10_000, 10
_METHOD = """\
10,000 Services of ten endpoints each: from decoded objects to written maps (planning, laying out, writing), without
parsing. Then the process starts again, reads the maps it finds, and is told the same objects."""


def measure(plan: Plan) -> Section:
    """Fill empty maps and restart, several times."""
    seconds, again, writes, rewrites = [], [], [], []
    for number in range(plan.bulk_rounds):
        rounds.show(f"bulk: {number} of {plan.bulk_rounds} rounds")
        with world.cgroup("ours") as served, ours.bpf_file_system() as bpffs:
            first, second = (_round(served, bpffs) for _ in range(2))
        seconds.append(first["seconds"])
        writes.append(first["writes"])
        again.append(second["seconds"])
        rewrites.append(second["writes"])
    rounds.show("")
    fill, restart, restarted = (rounds.Spread.of(values) for values in (seconds, again, rewrites))
    rows = [
        ["into empty maps", fill.text(2), f"{writes[0]:,}"],
        ["the same after a restart", restart.text(2), f"{restarted.median:.0f}"],
    ]
    goals = [
        Goal.at_most("10,000 Services × 10 into empty maps", fill, 2, "s"),
        Goal.at_most("the same again after a restart", restarted, 0, "writes", digits=0),
    ]
    return Section(
        "Many Services at once", _METHOD, ["10,000 Services × 10 endpoints", "seconds", "writes"], rows, goals
    )


def _round(cgroup: Path, bpffs: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.bulk", str(cgroup), str(bpffs)]
    result = subprocess.run(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, check=False)
    if result.returncode:
        msg = f"writing {SERVICES:,} Services failed (exit code {result.returncode})"
        raise world.WorldError(msg)
    outcome: dict[str, float] = json.loads(result.stdout)
    return outcome


def _fill(cgroup: Path, bpffs: Path) -> dict[str, float]:
    """Write what Kubernetes says into what the pins hold."""
    state = ours.cluster(SERVICES, ENDPOINTS)
    with loader.load(pin_folder=bpffs / "kubeproxy-ebpf", cgroup=cgroup, sizes=ours.SIZES) as datapath:
        start = time.perf_counter()
        writes = ours.write(ours.reconciler(datapath, state))
        return {"seconds": time.perf_counter() - start, "writes": writes}


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(json.dumps(_fill(Path(sys.argv[1]), Path(sys.argv[2]))))
