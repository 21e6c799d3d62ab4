# SPDX-License-Identifier: Apache-2.0
"""Our programs at connect() against an empty program at the same hook, on new sockets.

It happens where no route leads anywhere, so that connect() is over after the hook and the look-up of a route. Both
sides end at the same route: the empty program's sockets ask for an endpoint, ours for the Service before it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import fleet, ours, rounds, world
from bench.plan import ENDPOINTS, Plan
from bench.report import Goal, Section, sizes_text
from kubeproxy_ebpf.datapath.libbpf import programs, syscalls
from kubeproxy_ebpf.datapath.libbpf.kernel_types import AttachType

MANY = 10_000
"""Up to so many Services the lower limits apply."""
_METHOD = """\
Nanoseconds that connect() takes above an empty program at the same hook: the median of each round, less the same
round's median of the empty program. *16 Services*: a client that keeps coming back to sixteen of them, spread over
all. *All Services*: each connect() to another one, picked at random, so that next to nothing of it is in the
processor's caches; no limit was set for that. *Second use*: the same socket and Service again. Every connect() is
checked by the error that it ends with, which tells what the program made of the address."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One kind of connect()."""

    name: str
    protocol: str
    use: int
    asked: str
    limits: tuple[float, float] | None
    """Up to :data:`MANY` Services, and above; None: for information."""


_CASES = (
    _Case("TCP, 16 Services", "tcp", 1, "few", (60, 110)),
    _Case("UDP, 16 Services", "udp", 1, "few", (330, 330)),
    _Case("UDP, 16 Services, second use", "udp", 2, "few", (45, 45)),
    _Case("TCP, anything else", "tcp", 1, "strangers", (20, 40)),
    _Case("UDP, anything else", "udp", 1, "strangers", (20, 40)),
    _Case("TCP, all Services", "tcp", 1, "all", None),
    _Case("UDP, all Services", "udp", 1, "all", None),
)


def measure(plan: Plan) -> Section:
    """Measure at every size."""
    results = {size: _measure_size(plan, size) for size in plan.sizes}
    rows = [[case.name, *(results[size][case.name].text(0) for size in plan.sizes)] for case in _CASES]
    goals = [
        Goal.at_most(
            f"connect() above an empty program, {case.name}, {sizes_text(sizes)}",
            max(results[size][case.name] for size in sizes),
            limit,
            "ns",
            digits=0,
        )
        for case in _CASES
        for sizes, limit in _limits(case, plan.sizes)
    ]
    header = ["connect() to", *(f"{size:,} Services" for size in plan.sizes)]
    return Section("The programs at connect()", _METHOD, header, rows, goals)


def _limits(case: _Case, sizes: Iterable[int]) -> Iterator[tuple[list[int], float]]:
    """Yield the sizes that share a limit, and the limit."""
    if case.limits is None:
        return
    few, many = case.limits
    grouped: dict[float, list[int]] = {}
    for size in sizes:
        grouped.setdefault(many if size > MANY else few, []).append(size)
    for limit, together in grouped.items():
        yield together, limit


@contextmanager
def _empty_program(cgroup: Path) -> Iterator[None]:
    """Attach a program that lets everything pass."""
    code = (programs.move_immediate(0, 1), programs.leave())
    with ExitStack() as stack:
        program = programs.load_instructions(AttachType.CONNECT4, "empty", code)
        stack.callback(os.close, program)
        folder = os.open(cgroup, os.O_RDONLY)
        stack.callback(os.close, folder)
        stack.callback(os.close, syscalls.link_create(program, folder, AttachType.CONNECT4))
        yield


def _measure_size(plan: Plan, size: int) -> dict[str, rounds.Spread]:
    with ExitStack() as stack:
        empty, served = (stack.enter_context(world.cgroup(name)) for name in ("empty", "ours"))
        stack.enter_context(_empty_program(empty))
        stack.enter_context(ours.serving(served, size, ENDPOINTS, ("TCP", "UDP")))
        namespace = stack.enter_context(world.routeless())
        trials = _trials(plan.folder, size, namespace, empty, served)
        command = [str(plan.loads.hook), str(plan.hook_rounds), str(plan.hook_connects), *trials]
        taken = rounds.take(command, f"hooks at {size:,} Services", plan.hook_rounds * len(trials))
    return {
        case.name: rounds.differences(taken, f"ours-{number}", f"empty-{number}") for number, case in enumerate(_CASES)
    }


def _trials(folder: Path, size: int, namespace: str, empty: Path, served: Path) -> list[str]:
    few, all_ = fleet.few(size), range(size)
    asked = {
        "few": (
            fleet.write_service_targets(folder / "few-services", few, ENDPOINTS),
            fleet.write_endpoint_targets(folder / "few-endpoints", few, ENDPOINTS),
        ),
        "all": (
            fleet.write_service_targets(folder / "services", all_, ENDPOINTS),
            fleet.write_endpoint_targets(folder / "endpoints", all_, ENDPOINTS),
        ),
        "strangers": (fleet.write_stranger_targets(folder / "strangers", len(few)),) * 2,
    }
    trials = []
    for number, case in enumerate(_CASES):
        ours_asks, empty_asks = asked[case.asked]
        for name, cgroup, targets in (("empty", empty, empty_asks), ("ours", served, ours_asks)):
            side = rounds.Side(f"{name}-{number}", targets, namespace, cgroup)
            trials.append(f"{side.argument()},{case.protocol},{errno.EACCES},{case.use}")
    return trials
