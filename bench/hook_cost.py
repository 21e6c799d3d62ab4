# SPDX-License-Identifier: Apache-2.0
"""Our programs at connect() against an empty program at the same hook, on new sockets; and one look-up against it.

It happens where no route leads anywhere, so that connect() is over after the hook and the look-up of a route. Both
sides end at the same route: the empty program's sockets ask for an endpoint, ours for the Service before it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import fleet, ours, rounds, world
from bench.plan import ENDPOINTS, Plan
from bench.report import Goal, Section, sizes_text
from kubeproxy_ebpf.datapath.libbpf import programs, syscalls
from kubeproxy_ebpf.datapath.libbpf.kernel_types import AttachType, Helper, MapType

_ADDRESS_SIZE = 16
_FRAME = 10
MANY = 10_000
"""Up to so many Services the lower limits apply."""
_METHOD = """\
Nanoseconds that connect() takes above an empty program at the same hook: the median of each round, less the same
round's median of the empty program. *16 Services*: a client that keeps coming back to sixteen of them, spread over
all. *All Services*: each connect() to another one, picked at random, so that next to nothing of it is in the
processor's caches; no limit was set for that. *Second use*: the same socket and Service again. Every connect() is
checked by the error that it ends with, which tells what the program made of the address. *One look-up*, for scale: a
program that does nothing but one look-up, in vain, in a hash of as many addresses, which nobody who looks for Services
can do without. Processors differ: each return from a function is expensive where the kernel guards those (SRSO)."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One kind of connect()."""

    name: str
    protocol: str
    use: int
    asked: str
    limits: tuple[float, float] | None
    """Up to :data:`MANY` Services, and above; None: for information."""


_LOOKED_UP = _Case("TCP, anything else", "tcp", 1, "strangers", (20, 40))
_LOOK_UP = "TCP, anything else: one look-up"
_CASES = (
    _Case("TCP, 16 Services", "tcp", 1, "few", (60, 110)),
    _Case("UDP, 16 Services", "udp", 1, "few", (330, 330)),
    _Case("UDP, 16 Services, second use", "udp", 2, "few", (45, 45)),
    _LOOKED_UP,
    _Case("UDP, anything else", "udp", 1, "strangers", (20, 40)),
    _Case("TCP, all Services", "tcp", 1, "all", None),
    _Case("UDP, all Services", "udp", 1, "all", None),
)


def measure(plan: Plan) -> Section:
    """Measure at every size."""
    results = {size: _measure_size(plan, size) for size in plan.sizes}
    names = (*(case.name for case in _CASES), _LOOK_UP)
    rows = [[name, *(results[size][name].text(0) for size in plan.sizes)] for name in names]
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


_EMPTY = (programs.move_immediate(0, 1), programs.leave())


@contextmanager
def _hash(size: int) -> Iterator[int]:
    """Create a hash of so many addresses, of which none is all zeros."""
    keys = b"".join(number.to_bytes(_ADDRESS_SIZE, "big") for number in range(1, size + 1))
    fd = syscalls.map_create(MapType.HASH, "bench_addresses", _ADDRESS_SIZE, 4, size)
    try:
        done, error = syscalls.map_update_batch(fd, keys, bytes(4 * size), size)
        if done != size:
            msg = f"only {done} of {size} addresses could be written: {os.strerror(error)}"
            raise world.WorldError(msg)
        yield fd
    finally:
        os.close(fd)


def _look_up(hash_fd: int) -> tuple[programs.Instruction, ...]:
    """``look up 16 zero bytes in the hash; return 1``."""
    words = (programs.store_immediate(_FRAME, offset, 0) for offset in range(-_ADDRESS_SIZE, 0, 4))
    return (
        *words,
        programs.load_map(1, hash_fd),
        programs.move_register(2, _FRAME),
        programs.add_immediate(2, -_ADDRESS_SIZE),
        programs.call(Helper.MAP_LOOKUP_ELEM),
        *_EMPTY,
    )


@contextmanager
def _attached(cgroup: Path, name: str, code: Sequence[programs.Instruction]) -> Iterator[None]:
    """Let a program see the connections of a cgroup."""
    with ExitStack() as stack:
        program = programs.load_instructions(AttachType.CONNECT4, name, code)
        stack.callback(os.close, program)
        folder = os.open(cgroup, os.O_RDONLY)
        stack.callback(os.close, folder)
        stack.callback(os.close, syscalls.link_create(program, folder, AttachType.CONNECT4))
        yield


def _measure_size(plan: Plan, size: int) -> dict[str, rounds.Spread]:
    with ExitStack() as stack:
        cgroups = {name: stack.enter_context(world.cgroup(name)) for name in ("empty", "ours", "look-up")}
        stack.enter_context(_attached(cgroups["empty"], "empty", _EMPTY))
        stack.enter_context(_attached(cgroups["look-up"], "look_up", _look_up(stack.enter_context(_hash(size)))))
        stack.enter_context(ours.serving(cgroups["ours"], size, ENDPOINTS, ("TCP", "UDP")))
        namespace = stack.enter_context(world.routeless())
        trials = _trials(plan.folder, size, namespace, cgroups)
        command = [str(plan.loads.hook), str(plan.hook_rounds), str(plan.hook_connects), *trials]
        taken = rounds.take(command, f"hooks at {size:,} Services", plan.hook_rounds * len(trials))
    costs = {
        case.name: rounds.differences(taken, f"ours-{number}", f"empty-{number}") for number, case in enumerate(_CASES)
    }
    number = _CASES.index(_LOOKED_UP)
    return costs | {_LOOK_UP: rounds.differences(taken, f"look-up-{number}", f"empty-{number}")}


def _trials(folder: Path, size: int, namespace: str, cgroups: dict[str, Path]) -> list[str]:
    few, all_ = fleet.few(size), range(size)
    strangers = fleet.write_stranger_targets(folder / "strangers", len(few))
    services = {
        "few": fleet.write_service_targets(folder / "few-services", few, ENDPOINTS),
        "all": fleet.write_service_targets(folder / "services", all_, ENDPOINTS),
    }
    endpoints = {
        "few": fleet.write_endpoint_targets(folder / "few-endpoints", few, ENDPOINTS),
        "all": fleet.write_endpoint_targets(folder / "endpoints", all_, ENDPOINTS),
    }
    trials = []
    for number, case in enumerate(_CASES):
        asked = {"empty": endpoints.get(case.asked, strangers), "ours": services.get(case.asked, strangers)}
        if case is _LOOKED_UP:
            asked["look-up"] = strangers
        for name, targets in asked.items():
            side = rounds.Side(f"{name}-{number}", targets, namespace, cgroups[name])
            trials.append(f"{side.argument()},{case.protocol},{errno.EACCES},{case.use}")
    return trials
