# SPDX-License-Identifier: Apache-2.0
"""Failures and kills at every single step of a load, an upgrade and an unload."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.errors import DatapathError
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.errors import KernelError
from tests.kernel.conftest import Loader
from tests.kernel.processes import start_in
from tests.kernel.state import attached_programs, kernel_state, pinned_ids
from tests.kernel.test_loader import HOOKS, fill, is_filled

STEPS = (
    (syscalls, "pin"),
    (syscalls, "link_create"),
    (syscalls, "link_update"),
    (syscalls, "link_detach"),
    (syscalls, "map_update_batch"),
    (Path, "mkdir"),
    (Path, "rename"),
    (Path, "unlink"),
    (Path, "rmdir"),
)
"""Everything through which the loader changes the kernel and the pin folder."""

Interrupt = Callable[[str], None]


@contextmanager
def interrupted(at_step: int, interrupt: Interrupt) -> Iterator[list[str]]:
    """Interrupt before the n-th step (from 0); yield the names of the steps taken."""
    taken: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in STEPS:
            patch.setattr(owner, name, _counting(name, getattr(owner, name), taken, at_step, interrupt))
        yield taken


def _counting(
    name: str, original: Callable[..., Any], taken: list[str], at_step: int, interrupt: Interrupt
) -> Callable[..., Any]:
    def step(*arguments: Any, **keywords: Any) -> Any:
        taken.append(name)
        if len(taken) - 1 == at_step:
            interrupt(name)
        return original(*arguments, **keywords)

    return step


def kill(_step: str) -> None:
    """End the process as SIGKILL does: nothing is cleaned up."""
    os._exit(9)


def fail(step: str) -> None:
    """Let the kernel refuse the step."""
    if step in {"pin", "link_create", "link_update", "link_detach", "map_update_batch"}:
        raise KernelError(errno.ENOMEM, step)
    raise OSError(errno.ENOSPC, step)


def steps_of(action: Callable[[], object]) -> list[str]:
    """Return the steps that an uninterrupted run takes."""
    with interrupted(-1, fail) as taken:
        action()
    return taken


def run_until_killed(action: Callable[[], object], step: int) -> None:
    """Run an action in a child that is killed before a step."""

    def body() -> Iterator[None]:
        yield
        with interrupted(step, kill):
            action()

    assert start_in(None, None, body).wait() == 9


def test_first_load_killed_at_every_step_is_mended(load: Loader, scratch_cgroup: Path, pin_folder: Path) -> None:
    """Whenever the first load is killed, the next one has one program a hook and all maps, and unload leaves none."""
    steps = steps_of(lambda: load().close())
    complete = pinned_ids(pin_folder).keys()
    loader.unload(pin_folder)
    assert len(steps) > 20
    for step in range(len(steps)):
        run_until_killed(load, step)
        load().close()
        assert pinned_ids(pin_folder).keys() == complete, steps[step]
        programs = attached_programs(scratch_cgroup)
        assert {hook: len(ids) for hook, ids in programs.items()} == dict.fromkeys(HOOKS, 1), steps[step]
        loader.unload(pin_folder)
        assert attached_programs(scratch_cgroup) == {}


def test_upgrade_killed_at_every_step_is_mended(load: Loader, scratch_cgroup: Path, pin_folder: Path) -> None:
    """Whenever an upgrade with larger maps is killed, hooks keep a program each and the next start has all contents."""
    first = load()
    fill(first)
    first.close()
    steps = steps_of(lambda: load(frontends=65, services=65, affinity=65).close())
    complete = pinned_ids(pin_folder).keys()
    for step in range(len(steps)):
        larger = 66 + step
        run_until_killed(partial(load, frontends=larger, services=larger, affinity=larger), step)
        programs = attached_programs(scratch_cgroup)
        assert {hook: len(ids) for hook, ids in programs.items()} == dict.fromkeys(HOOKS, 1), steps[step]
        datapath = load(frontends=larger, services=larger, affinity=larger)
        assert datapath.restored
        assert is_filled(datapath), steps[step]
        datapath.close()
        assert pinned_ids(pin_folder).keys() == complete, steps[step]


def test_unload_killed_at_every_step_is_mended(load: Loader, scratch_cgroup: Path, pin_folder: Path) -> None:
    """Whenever an unload is killed, the next one finishes, and the next load starts from nothing or all."""
    datapath = load()
    fill(datapath)
    datapath.close()
    steps = steps_of(lambda: loader.unload(pin_folder))
    for step in range(len(steps)):
        datapath = load()
        fill(datapath)
        datapath.close()
        run_until_killed(lambda: loader.unload(pin_folder), step)
        datapath = load()
        assert is_filled(datapath) == datapath.restored, steps[step]
        datapath.close()
        run_until_killed(lambda: loader.unload(pin_folder), step)
        loader.unload(pin_folder)
        assert attached_programs(scratch_cgroup) == {}
        assert not pin_folder.exists()


def test_first_load_failing_at_every_step_leaves_nothing(load: Loader, scratch_cgroup: Path, pin_folder: Path) -> None:
    """Whichever step of the first load the kernel refuses, nothing stays attached or pinned."""
    steps = steps_of(lambda: load().close())
    loader.unload(pin_folder)
    for step in range(len(steps)):
        with interrupted(step, fail), pytest.raises((DatapathError, OSError)):
            load()
        assert attached_programs(scratch_cgroup) == {}, steps[step]
        assert not pin_folder.exists(), steps[step]


def test_upgrade_failing_at_every_step_leaves_a_whole_state(
    load: Loader, scratch_cgroup: Path, pin_folder: Path
) -> None:
    """Whichever step of an upgrade fails: until the commit hooks and pins stay what they were, then they are new."""
    first = load("NEW_MAP")
    fill(first)
    first.close()
    steps = steps_of(lambda: load("NEW_MAP", frontends=65, services=65).close())
    before = kernel_state(scratch_cgroup, pin_folder)
    committed = len(steps) - steps[::-1].index("rename")
    for step in range(committed):
        with interrupted(step, fail), pytest.raises((DatapathError, OSError)):
            load("NEW_MAP", frontends=66, services=66)
        assert kernel_state(scratch_cgroup, pin_folder) == before, steps[step]
    for step in range(committed, len(steps)):
        with interrupted(step, fail):
            datapath = load("NEW_MAP", frontends=67 + step, services=67 + step)
        assert is_filled(datapath)
        datapath.close()
        # The next start clears what could not be removed.
        load("NEW_MAP").close()
        assert pinned_ids(pin_folder).keys() == before.pinned.keys(), steps[step]
    load().close()
    assert pinned_ids(pin_folder).keys() == before.pinned.keys() - {"layout_1/maps/new_map"}
