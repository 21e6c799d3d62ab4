# SPDX-License-Identifier: Apache-2.0
"""Readers that are slow meet writers that are quick: what the rules of the maps promise, with real programs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest

from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.bpf_object import BpfObject
from kubeproxy_ebpf.datapath.libbpf.kernel_types import AttachType
from kubeproxy_ebpf.datapath.libbpf.memory import shared_array
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.layout.changes import ArrayMap
from kubeproxy_ebpf.map_schema import ENTRY_SIZES
from tests.kernel.churn import FRONTENDS, KEPT, SIZES, Churn
from tests.kernel.conftest import CompileObject
from tests.kernel.scratch import Starter
from tests.kernel.state import connect_error

SECONDS = 5
PATIENCE = 100
"""Seconds until something must have been seen that is seen within a few on a fast machine."""
PAUSE = 3000
READS = 10_000


class Outcomes(NamedTuple):
    """What readers saw: ``struct outcomes`` of delayed_reader.bpf.c."""

    runs: int
    right: int
    absent: int
    lost: int
    missing: int
    retired: int
    foreign: int


class Readers(NamedTuple):
    """Readers at work on every CPU once they are started, and the store whose maps they read."""

    store: KernelMapStore
    start: Callable[[], None]
    outcomes: Callable[[], tuple[int, ...]]


MakeReaders = Callable[..., Readers]


@pytest.fixture
def make_readers(scratch_cgroup: Path, compile_object: CompileObject, background: Starter) -> Iterator[MakeReaders]:
    """Attach a reader to the test's cgroup, on small maps: ``make_readers(source, *macros, outcomes=its map)``."""
    with ExitStack() as stack:

        def make(source: str, *macros: str, outcomes: str) -> Readers:
            object_ = stack.enter_context(BpfObject(compile_object(source, *macros)))
            sizes = {name.value: entries for name, entries in SIZES.items()}
            for name in (*sizes, "peer_names", "affinity", "service_counters", "socket_origins_overflow"):
                object_.set_entries(name, sizes.get(name, 64))
            object_.load()
            cgroup = os.open(scratch_cgroup, os.O_RDONLY)
            stack.callback(os.close, cgroup)
            stack.callback(os.close, syscalls.link_create(object_.program_fd("connect4"), cgroup, AttachType.CONNECT4))
            store = stack.enter_context(KernelMapStore({name: os.dup(object_.map_fd(name)) for name in sizes}))
            memory = stack.enter_context(closing(shared_array(object_.map_fd(outcomes), writable=False)))
            view = stack.enter_context(memory.view.cast("Q"))

            def start() -> None:
                for cpu in os.sched_getaffinity(0):
                    background(None, scratch_cgroup, connect_for_ever_on, cpu)

            return Readers(store, start, lambda: tuple(view))

        yield make


@pytest.fixture
def readers(make_readers: MakeReaders) -> Readers:
    """Return readers that follow a frontend to its backend, and pause at every step."""
    macros = (f"FRONTENDS={FRONTENDS}", f"KEPT={KEPT}", f"PAUSE={PAUSE}")
    return make_readers("delayed_reader.bpf.c", *macros, outcomes="outcomes")


def connect_for_ever_on(cpu: int) -> Iterator[None]:
    """Keep a program run under way on a CPU most of the time."""
    os.sched_setaffinity(0, {cpu})
    yield
    while True:
        connect_error()


def test_slow_readers_never_meet_what_changed_hands(readers: Readers) -> None:
    """Whatever is handed out again, who set out before ends at an endpoint of its own frontend."""
    churn = Churn(readers.store, readers.store.wait_for_readers)
    readers.start()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        churn.step()
    outcomes = Outcomes(*readers.outcomes())
    assert outcomes.foreign == outcomes.retired == outcomes.missing == outcomes.lost == 0, (outcomes, churn.reused)
    assert min(outcomes.right, outcomes.absent) > 0, outcomes
    assert all(churn.reused[name] > 20 for name in (ArrayMap.SERVICES, ArrayMap.ORIGINS, ArrayMap.BACKENDS)), (
        churn.reused
    )


def skip_on_one_processor() -> None:
    """Skip what shows only while a program reads on another processor."""
    if len(os.sched_getaffinity(0)) == 1:
        pytest.skip("kernel: has one processor, on which nothing is written while a program reads")


def test_without_grace_periods_they_would(readers: Readers) -> None:
    """The same without waiting: some reader ends at another's endpoint, so the test above is able to fail."""
    skip_on_one_processor()
    churn = Churn(readers.store, lambda: None)
    readers.start()
    end = time.monotonic() + PATIENCE
    outcomes = Outcomes(*readers.outcomes())
    while time.monotonic() < end and not outcomes.foreign:
        churn.step()
        outcomes = Outcomes(*readers.outcomes())
    assert outcomes.foreign > 0, (outcomes, churn.reused)


class Words(NamedTuple):
    """What readers saw: ``struct words`` of word_reader.bpf.c."""

    runs: int
    changed: int
    torn: int


def hammer(readers: Readers, write: Callable[[int], None]) -> Words:
    """Write words of two equal halves as fast as can be, each bit another than before; return what readers saw."""
    readers.start()
    end = time.monotonic() + SECONDS / 2
    while time.monotonic() < end:
        for word in (0xFFFFFFFF_FFFFFFFF, 0) * 500:
            write(word)
    return Words(*readers.outcomes())


def test_published_words_are_seen_whole(make_readers: MakeReaders) -> None:
    """Of a word that is published no reader ever sees one half alone."""
    skip_on_one_processor()
    readers = make_readers("word_reader.bpf.c", f"READS={READS}", outcomes="words")
    offset = ENTRY_SIZES[ArrayMap.SERVICES]
    seen = hammer(readers, lambda word: readers.store.publish(ArrayMap.SERVICES, offset, word))
    assert seen.changed, seen
    assert seen.torn == 0, seen


def test_halves_written_in_turn_are_seen_apart(make_readers: MakeReaders) -> None:
    """Two fields stored one after the other are torn before the same readers: they are able to see it."""
    readers = make_readers("word_reader.bpf.c", f"READS={READS}", outcomes="words")
    at = ENTRY_SIZES[ArrayMap.SERVICES]

    def write(word: int) -> None:
        half = word.to_bytes(8, "little")[:4]
        readers.store.write(ArrayMap.SERVICES, at, half)
        readers.store.write(ArrayMap.SERVICES, at + 4, half)

    assert hammer(readers, write).torn > 0
