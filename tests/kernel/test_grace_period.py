# SPDX-License-Identifier: Apache-2.0
"""A grace period outlasts every program run that was under way, whichever way it is waited for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath.grace_period import GracePeriod
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.bpf_object import BpfObject
from kubeproxy_ebpf.datapath.libbpf.kernel_types import AttachType
from kubeproxy_ebpf.datapath.libbpf.memory import shared_array
from tests.kernel.conftest import CompileObject
from tests.kernel.scratch import Starter
from tests.kernel.state import connect_error

ROUNDS = 20


@pytest.fixture
def progress(scratch_cgroup: Path, compile_object: CompileObject) -> Iterator[memoryview]:
    """Attach a slow program to the test's cgroup; return {runs begun, runs ended}."""
    cgroup = os.open(scratch_cgroup, os.O_RDONLY)
    with BpfObject(compile_object("slow_reader.bpf.c")) as object_:
        object_.load()
        link = syscalls.link_create(object_.program_fd("connect4"), cgroup, AttachType.CONNECT4)
        with closing(shared_array(object_.map_fd("progress"), writable=False)) as memory, memory.view.cast("Q") as view:
            yield view
    os.close(link)
    os.close(cgroup)


def connect_for_ever() -> Iterator[None]:
    """Keep one program run under way most of the time."""
    yield
    while True:
        connect_error()


@pytest.mark.parametrize("wait", [GracePeriod.wait, GracePeriod.wait_by_map])
def test_runs_under_way_have_ended_afterwards(
    progress: memoryview, scratch_cgroup: Path, background: Starter, wait: Callable[[GracePeriod], None]
) -> None:
    """A run that is seen to have begun has ended when the wait is over."""
    background(None, scratch_cgroup, connect_for_ever)
    grace_period_ = GracePeriod()
    for _ in range(ROUNDS):
        while progress[0] == progress[1]:
            pass
        begun = progress[0]
        wait(grace_period_)
        assert progress[1] >= begun
    grace_period_.close()


@pytest.mark.parametrize(("cpus", "refused"), [(1, False), (2, True)])
def test_map_is_used_where_membarrier_does_not_help(
    monkeypatch: pytest.MonkeyPatch, cpus: int, *, refused: bool
) -> None:
    """With one CPU membarrier does nothing, and some kernels refuse it: then a map of maps is updated."""
    monkeypatch.setattr("os.sysconf", lambda _name: cpus)
    monkeypatch.setattr(syscalls, "membarrier", lambda: not refused)
    updates = []
    monkeypatch.setattr(syscalls, "map_update", lambda *arguments: updates.append(arguments))
    waiting = GracePeriod()
    waiting.wait()
    waiting.wait()
    waiting.close()
    assert len(updates) == 2
