# SPDX-License-Identifier: Apache-2.0
"""The command: what is measured, in which order, and where it is written."""

from __future__ import annotations

import argparse
import gc
import logging
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import structlog

from bench import (
    api,
    bulk,
    change_report,
    connections,
    cost_report,
    hook_cost,
    life_report,
    manifest_changes,
    outside,
    packet_cost,
    report,
    world,
)
from bench.control_plane import control_plane
from bench.kept import Measured, keep, kept
from bench.loads import compile_loads
from bench.plan import Plan, full, quick
from tools.checkout import current_commit
from tools.kubernetes.build import version as kubernetes_version
from tools.kubernetes.control_plane import ControlPlane
from tools.kubernetes.errors import ApiError, BuildError, ControlPlaneError

MEASURES = ("connections", "hook", "bulk", "agent", "packets", "outside", "api")
_NOTES = """\
In every measure all sides take turns within one run, so that a slow minute of the machine is everybody's; a figure is
the median of the rounds' medians, with the lowest and highest round beside it.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit code is 1 when something could not be measured, whatever the numbers are."""
    chosen = _parse(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    gc.disable()  # this process only makes the world; what is measured runs in others
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with tempfile.TemporaryDirectory(prefix="kubeproxy-ebpf-bench-") as folder:
            measured = list(_measure(chosen, Path(folder), _command(arguments)))
    except (world.WorldError, BuildError, ControlPlaneError, ApiError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(report.goals_table([section for one in measured for section in one.sections]))
    if chosen.write or not (chosen.quick or chosen.only):
        for one in measured:
            keep(one)
        parts = [(one.remark(), one.sections) for one in kept(MEASURES)]
        report.write(parts, (report.mitigations(), f"kube-proxy {kubernetes_version()}."), _NOTES)
        print(f"written: {report.DOCUMENT}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description="Measures this proxy on this machine. Needs root.")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few minutes: fewer rounds, fewer Services, less kube-proxy; writes no page",
    )
    parser.add_argument(
        "--only",
        choices=MEASURES,
        action="append",
        help="one measure; may be repeated; writes no page by itself",
    )
    parser.add_argument("--write", action="store_true", help="write the page all the same: others are as last written")
    parser.add_argument(
        "--kube-proxy",
        metavar="SERVICES",
        type=int,
        nargs="*",
        default=[1, 100, 1_000],
        help="measure connections through kube-proxy as well at these numbers of Services; 10000 is slow",
    )
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.kube_proxy = []
    return chosen


def _command(arguments: Sequence[str] | None) -> str:
    words = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["bench/run", *words])


def _measure(chosen: argparse.Namespace, folder: Path, command: str) -> Iterator[Measured]:
    loads = compile_loads(folder)
    plan = quick(folder, loads) if chosen.quick else full(folder, loads, tuple(chosen.kube_proxy))
    wanted = chosen.only or MEASURES
    measures: dict[str, Callable[[], list[report.Section]]] = {
        "connections": lambda: _beside_kube_proxy(plan, connections.measure),
        "hook": lambda: [hook_cost.measure(plan)],
        "bulk": lambda: [bulk.measure(plan)],
        "agent": lambda: [manifest_changes.measure(plan)],
        "packets": lambda: [packet_cost.measure(plan)],
        "outside": lambda: _beside_kube_proxy(plan, outside.measure),
        "api": lambda: _api(plan),
    }
    commit = current_commit()
    for name, measure in measures.items():
        if name not in wanted:
            continue
        start, processors = time.monotonic(), report.Processors()
        measured = Measured(name, measure(), command, commit, processors.stolen())
        for section in measured.sections:
            print(f"\n{section.markdown(measured.stolen)}", flush=True)
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
        yield measured


def _beside_kube_proxy(
    plan: Plan, measure: Callable[[Plan, ControlPlane | None], list[report.Section]]
) -> list[report.Section]:
    with ExitStack() as stack:
        plane = None
        if plan.kube_proxy_sizes:
            plane = stack.enter_context(control_plane(plan.folder))
        return measure(plan, plane)


def _api(plan: Plan) -> list[report.Section]:
    results = api.run(plan)
    return [
        change_report.section(plan, results),
        life_report.section(plan, results),
        *cost_report.sections(plan, results),
    ]
