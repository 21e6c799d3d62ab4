# SPDX-License-Identifier: Apache-2.0
"""The packet programs against an empty one, a packet at a time, as the kernel measures it (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import ours, rounds, world
from bench.frames import FAMILIES, NOBODY, Family, segment
from bench.plan import Plan
from bench.report import Goal, Section, sizes_text
from bench.standing_flows import make_standing
from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.libbpf import programs, syscalls
from kubeproxy_ebpf.datapath.libbpf.kernel_types import ProgramType
from kubeproxy_ebpf.datapath.pins import PinFolder

_PASS = -1
"""TC_ACT_UNSPEC."""
_METHOD = """\
Nanoseconds for one packet above an empty program: the median of each round, less the same round's median of the empty
program. Each result is checked: what the program returned, and the packet's bytes, checksums included. *Standing*: one
packet of a connection that stands, run again and again; what leads from its outcome back to it is another such
connection. *First packet*: another connection's each time, so that the program does not come often enough to stay in
the processor's caches. Processors differ: each return from a function is expensive where the kernel guards those
(SRSO)."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One kind of packet: what is made of it by which program."""

    name: str
    hook: str
    packet: bytes
    outcome: bytes
    limit: float
    is_same: bool = True

    def trial(self, name: str, program: Path, folder: Path, *, is_ours: bool) -> str:
        """Return a side as the load reads it."""
        files = {f"{name}-packet": self.packet, f"{name}-outcome": self.outcome if is_ours else self.packet}
        for file_name, data in files.items():
            (folder / file_name).write_bytes(data)
        packet, outcome = (str(folder / file_name) for file_name in files)
        return ",".join((name, str(program), packet, outcome, "same" if self.is_same else "other"))


def _cases() -> Iterator[_Case]:
    for family, limit in zip(FAMILIES, (120, 140), strict=True):
        yield from _standing(family, limit)
    ipv4, ipv6 = FAMILIES
    first = segment(ipv4.client, ipv4.frontend, "S")
    yield _Case(
        "first packet of a connection, IPv4",
        "ingress",
        first,
        segment(ipv4.client, ipv4.endpoint, "S"),
        450,
        is_same=False,
    )
    for family in (ipv4, ipv6):
        for kind, flags in (("any", "A"), ("first", "S")):
            packet = segment(family.client, NOBODY[family], flags)
            yield _Case(f"no Service's, {kind} packet in, {family.name}", "ingress", packet, packet, 60)
        packet = segment(NOBODY[family], family.client, "A")
        yield _Case(f"no Service's, any packet out, {family.name}", "egress", packet, packet, 60)


def _standing(family: Family, limit: float) -> Iterator[_Case]:
    client, frontend, endpoint = family.client, family.frontend, family.endpoint
    request, reply = segment(client, frontend, "A"), segment(endpoint, client, "A")
    yield _Case(f"standing, request, {family.name}", "ingress", request, segment(client, endpoint, "A"), limit)
    yield _Case(f"standing, reply, {family.name}", "egress", reply, segment(frontend, client, "A"), limit)


def measure(plan: Plan) -> Section:
    """Measure with the fewest and the most Services, by turns."""
    sizes = (plan.sizes[0], plan.sizes[-1])
    cases = list(_cases())
    with ExitStack() as stack:
        empty = stack.enter_context(_empty())
        loaded = {size: stack.enter_context(_loaded(size)) for size in sizes}
        trials = []
        for number, case in enumerate(cases):
            trials.append(case.trial(f"empty-{number}", empty, plan.folder, is_ours=False))
            for size, pins in loaded.items():
                program = pins.program_path(f"forward_{case.hook}")
                trials.append(case.trial(f"{size}-{number}", program, plan.folder, is_ours=True))
        command = [str(plan.loads.packets), str(plan.packet_rounds), str(plan.packet_runs), *trials]
        taken = rounds.take(command, "packets", plan.packet_rounds * len(trials))
    costs = {
        (case.name, size): rounds.differences(taken, f"{size}-{number}", f"empty-{number}")
        for number, case in enumerate(cases)
        for size in sizes
    }
    return _section(cases, sizes, costs)


def _section(cases: list[_Case], sizes: tuple[int, ...], costs: Mapping[tuple[str, int], rounds.Spread]) -> Section:
    rows = [[case.name, *(costs[case.name, size].text(0) for size in sizes)] for case in cases]
    goals = [
        Goal.at_most(
            f"packet above an empty program, {case.name}, {sizes_text(sizes)}",
            max(costs[case.name, size] for size in sizes),
            case.limit,
            "ns",
            digits=0,
        )
        for case in cases
    ]
    header = ["packet", *(f"{size:,} Services" for size in sizes)]
    return Section("The packet programs", _METHOD, header, rows, goals)


@contextmanager
def _empty() -> Iterator[Path]:
    """Pin a program that lets every packet go on."""
    with ours.bpf_file_system() as folder:
        instructions = (programs.move_immediate(0, _PASS), programs.leave())
        fd = programs.load_plain(ProgramType.SCHED_CLS, "empty", instructions)
        try:
            syscalls.pin(fd, str(folder / "empty"))
        finally:
            os.close(fd)
        yield folder / "empty"


@contextmanager
def _loaded(size: int) -> Iterator[PinFolder]:
    """Load our programs with so many Services and with connections that stand."""
    with (
        world.cgroup(f"packets-{size}") as cgroup,
        ours.serving(cgroup, size, endpoints=1, packet_objects=loader.PACKET_OBJECTS) as folder,
    ):
        pins = PinFolder(folder)
        make_standing(pins)
        yield pins
