# SPDX-License-Identifier: Apache-2.0
"""Cgroups of the demo: made below the machine's cgroup v2 root, emptied and removed with all that runs in them."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from demo.waiting import wait_until


def cgroup_root() -> Path:
    """Return where cgroup v2 is mounted.

    Raises:
        FileNotFoundError: it is mounted nowhere.
    """
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        if source.startswith("cgroup2 "):
            return Path(mount.split()[4])
    msg = "cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup"
    raise FileNotFoundError(msg)


def make(cgroup: Path) -> Path:
    """Create a cgroup and return it."""
    cgroup.mkdir(parents=True)
    return cgroup


def tree(cgroup: Path) -> list[Path]:
    """Return a cgroup and all below it, a parent before its children; what goes away while it is asked is left out."""
    return [Path(folder) for folder, _, _ in os.walk(cgroup)]  # Path.rglob() raises when a folder goes away


def processes(cgroup: Path) -> Iterator[int]:
    """Yield the ids of all processes in a cgroup and below, as this process sees them."""
    for folder in tree(cgroup):
        with suppress(OSError):  # a cgroup that goes away while it is asked has no processes
            yield from map(int, (folder / "cgroup.procs").read_text().split())


def remove(cgroup: Path) -> None:
    """Kill what runs in a cgroup and below, wait until it has ended, and remove the cgroups.

    Raises:
        TimeoutError: a process does not die.
    """
    if not cgroup.exists():
        return
    _kill(cgroup)
    for folder in reversed(tree(cgroup)):
        wait_until(partial(_is_removed, folder), f"the processes in {folder} to end")


def _is_removed(cgroup: Path) -> bool:
    """Remove a cgroup unless something still runs in it: what is dying counts, though it is listed no more."""
    try:
        cgroup.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _kill(cgroup: Path) -> None:
    switch = cgroup / "cgroup.kill"  # Linux 5.14 and newer
    if switch.exists():
        switch.write_text("1")
        return
    for process in processes(cgroup):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
