# SPDX-License-Identifier: Apache-2.0
"""The program that only asks what would be decided: it writes nothing, and it sees one state at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.errors import MixedVersionsError
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.bpf_object import BpfObject
from kubeproxy_ebpf.datapath.trace import TRACE_OBJECT, TRACE_PROGRAM, Question, TraceError, Tracer
from kubeproxy_ebpf.layout.changes import ArrayMap
from kubeproxy_ebpf.map_schema import ENTRY_SIZES
from kubeproxy_ebpf.model.address import parse_address
from kubeproxy_ebpf.model.objects import Protocol
from kubeproxy_ebpf.plan.service_plan import FrontendKey, Source, Verdict
from tests.kernel.conftest import Loader
from tests.kernel.programs.conftest import Node

CLUSTER = "10.96.0.10"
FROM_A_POD = Question(FrontendKey(parse_address(CLUSTER), 80, Protocol.TCP), Source.POD)
SET_SIZES = (5, 8)
CHANGES = 100_000


@contextmanager
def loaded(*, dry_run: int) -> Iterator[int]:
    """Load the program with maps of its own; return its descriptor."""
    with BpfObject(TRACE_OBJECT) as object_:
        for map_ in object_.maps():
            if not map_.internal and map_.max_entries > 4096:
                object_.set_entries(map_.name, 4096)
        object_.set_constant("dry_run", dry_run)
        object_.load()
        yield object_.program_fd(TRACE_PROGRAM)


def instructions(program_fd: int) -> str:
    """Return what the verifier left of a program."""
    command = ("bpftool", "prog", "dump", "xlated", "id", str(syscalls.program_info(program_fd).id))
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("dry_run", [0, 1])
def test_every_write_is_removed(dry_run: int) -> None:
    """With dry_run no call is left that could change a map; without, the same program remembers clients."""
    with loaded(dry_run=dry_run) as program:
        assert ("map_update_elem" in instructions(program)) is not dry_run


def test_maps_of_another_version_are_refused(load: Loader) -> None:
    """Where what is loaded lacks a map, the message says which and what to do."""
    with pytest.raises(MixedVersionsError, match=r"no map reason_counters, socket_origins: start the agent"):
        Tracer(load().store)


def test_nothing_stays_loaded(node: Node) -> None:
    """Maps may be open for reading alone; the program goes with the tracer."""
    before = set(syscalls.program_ids())
    with loader.open_pinned(node.pins) as store, closing(Tracer(store)) as tracer:
        assert tracer.trace(FROM_A_POD).answer.verdict is Verdict.DROP
    assert node.maps.count("reason_counters") == {}
    assert set(syscalls.program_ids()) - before == set()


def test_a_set_is_seen_whole(make_node: Callable[..., Node]) -> None:
    """While sets change, a trace names the members of one of them, or says that it cannot."""
    node = make_node(backends=64, slots=64)
    service = node.maps.service([("10.1.1.1", 8080)])
    node.maps.frontend(service, CLUSTER, 80)
    place = service * ENTRY_SIZES[ArrayMap.SERVICES]
    sets, words = [], []
    for size in SET_SIZES:
        members = node.maps.publish(service, [(f"10.1.{size}.{number}", 8080) for number in range(size)])
        sets.append([member.id for member in members])
        words.append(int.from_bytes(node.maps.store.read(ArrayMap.SERVICES, place, place + 8), sys.byteorder))

    def change() -> None:
        for _ in range(CHANGES):
            for word in words:
                node.maps.store.publish(ArrayMap.SERVICES, place, word)

    changing = threading.Thread(target=change)
    with loader.open_pinned(node.pins) as store, closing(Tracer(store)) as tracer:
        changing.start()
        try:
            while changing.is_alive():
                with suppress(TraceError):
                    assert list(tracer.trace(FROM_A_POD).candidates) in sets
        finally:
            changing.join()
        assert list(tracer.trace(FROM_A_POD).candidates) == sets[-1]
