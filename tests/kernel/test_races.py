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
from tests.kernel.churn import FRONTENDS, KEPT, SIZES, Churn
from tests.kernel.conftest import CompileObject, Starter
from tests.kernel.state import connect_error

SECONDS = 5
PAUSE = 3000


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
    """Slow readers under way on every CPU, and the store whose maps they read."""

    store: KernelMapStore
    start: Callable[[], None]
    outcomes: Callable[[], Outcomes]


@pytest.fixture
def readers(scratch_cgroup: Path, compile_object: CompileObject, background: Starter) -> Iterator[Readers]:
    """Attach the delayed reader to the test's cgroup, on small maps of its own."""
    macros = (f"FRONTENDS={FRONTENDS}", f"KEPT={KEPT}", f"PAUSE={PAUSE}")
    with ExitStack() as stack:
        object_ = stack.enter_context(BpfObject(compile_object("delayed_reader.bpf.c", *macros)))
        for name, entries in SIZES.items():
            object_.set_entries(name.value, entries)
        for unused in ("peer_names", "affinity", "service_counters", "socket_origins_overflow"):
            object_.set_entries(unused, 64)
        object_.load()
        cgroup = os.open(scratch_cgroup, os.O_RDONLY)
        stack.callback(os.close, cgroup)
        stack.callback(os.close, syscalls.link_create(object_.program_fd("connect4"), cgroup, AttachType.CONNECT4))
        descriptors = {name.value: os.dup(object_.map_fd(name.value)) for name in SIZES}
        store = stack.enter_context(KernelMapStore(descriptors))
        memory = stack.enter_context(closing(shared_array(object_.map_fd("outcomes"), writable=False)))
        view = stack.enter_context(memory.view.cast("Q"))

        def start() -> None:
            for cpu in os.sched_getaffinity(0):
                background(None, scratch_cgroup, connect_for_ever_on, cpu)

        yield Readers(store, start, lambda: Outcomes(*view))


def connect_for_ever_on(cpu: int) -> Iterator[None]:
    """Keep a program run under way on a CPU most of the time."""
    os.sched_setaffinity(0, {cpu})
    yield
    while True:
        connect_error()


def test_slow_readers_never_meet_what_changed_hands(readers: Readers) -> None:
    """Whatever is handed out again, no reader that set out before ends at another's endpoint, or at none."""
    churn = Churn(readers.store, readers.store.wait_for_readers)
    readers.start()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        churn.step()
    outcomes = readers.outcomes()
    assert outcomes.foreign == outcomes.missing == outcomes.lost == 0, (outcomes, churn.reused)
    assert min(outcomes.right, outcomes.absent) > 0, outcomes
    assert all(churn.reused[name] > 20 for name in ("services", "origins", "backends")), churn.reused


def test_without_grace_periods_they_would(readers: Readers) -> None:
    """The same without waiting: some reader ends at another's endpoint, so the test above is able to fail."""
    churn = Churn(readers.store, lambda: None)
    readers.start()
    end = time.monotonic() + 2 * SECONDS
    while time.monotonic() < end and not readers.outcomes().foreign:
        churn.step()
    assert readers.outcomes().foreign > 0, (readers.outcomes(), churn.reused)
