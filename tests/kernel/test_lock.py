# SPDX-License-Identifier: Apache-2.0
"""One agent for a pin folder: the second waits, then refuses and names the first."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.errors import LockedError
from kubeproxy_ebpf.datapath.pins import PinFolder
from tests.kernel.conftest import Loader
from tests.kernel.scratch import Starter
from tests.kernel.state import kernel_state


def hold(load: Loader) -> Iterator[int]:
    """Load as another process and keep the lock."""
    datapath = load()
    yield os.getpid()
    threading.Event().wait()
    datapath.close()


def test_second_agent_is_refused_and_told_who_is_first(
    load: Loader, background: Starter, scratch_cgroup: Path, pin_folder: Path
) -> None:
    """The message has the first one's process id and command, and nothing is changed."""
    first = background(None, None, hold, load)
    before = kernel_state(scratch_cgroup, pin_folder)
    with pytest.raises(LockedError, match=rf"in use by process {first.ready} \(.*pytest.*waited 0.2 s") as caught:
        load(lock_timeout=0.2)
    assert str(pin_folder) in str(caught.value)
    with pytest.raises(LockedError, match=f"process {first.ready}"):
        loader.unload(pin_folder, lock_timeout=0)
    assert kernel_state(scratch_cgroup, pin_folder) == before


def test_waiting_agent_takes_over_when_the_first_dies(load: Loader, background: Starter) -> None:
    """The lock goes with its holder, so a killed agent is in nobody's way."""
    first = background(None, None, hold, load)
    killer = threading.Timer(0.3, first.kill)
    killer.start()
    assert load(lock_timeout=30).restored
    killer.join()


def test_waiting_agent_loads_anew_after_an_unload(load: Loader, pin_folder: Path) -> None:
    """Whoever waited for a folder that was removed meanwhile locks the new one, not the removed one."""
    first = load()
    loaded = []
    waiter = threading.Thread(target=lambda: loaded.append(load(lock_timeout=30)))
    waiter.start()
    PinFolder(pin_folder).remove_all()
    first.close()
    waiter.join()
    assert not loaded[0].restored
    with pytest.raises(LockedError):
        load()


def test_reader_needs_no_lock(load: Loader, pin_folder: Path) -> None:
    """The maps can be read while an agent holds the folder."""
    load()
    with loader.open_pinned(pin_folder) as store:
        assert store.map_names()
