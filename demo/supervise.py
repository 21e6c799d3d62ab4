# SPDX-License-Identifier: Apache-2.0
"""Runs the demo so that nothing can be left of it, and proves that nothing is.

The scenes run in a process-id and a mount namespace of their own: when their first process ends, by itself or killed,
the kernel ends all others with it, and with the last one go the network namespaces and bpffs, and so every pinned map,
program and link. The cgroups and the folder are removed here.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.table import Table

from demo import cgroups, inventory
from demo.playing import BPFFS
from demo.processes import ROOT
from demo.waiting import wait_until

PATIENCE = 1800.0
"""Seconds that a whole story may take; they take ten to sixty, on an emulated machine a thousand."""
_LOOK_AROUND = 0.25
"""Seconds between two looks at what the demo's processes hold."""
_TO_GO = 30.0
"""Seconds that the kernel gets to free what nobody holds any more: it does so in the background."""
_INTERRUPTED = 130
"""Exit code, as shells have it for SIGINT."""


class InterruptedDemoError(Exception):
    """Somebody wants the demo to end."""


def main(story: str) -> int:
    """Run the module of a story; return 0 if everything was as promised and nothing is left."""
    console = Console(highlight=False)
    if os.geteuid() != 0:
        console.print("The demo makes namespaces and loads BPF programs, so it needs root: begin again with sudo")
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _interrupt)
    started = time.monotonic()
    before = inventory.of_machine()
    name = f"kubeproxy-ebpf-demo-{os.getpid()}"
    result, own = _run_and_remove(console, story, Path(tempfile.gettempdir()) / name, cgroups.cgroup_root() / name)
    clean = _compare(console, before, own, name)
    console.print(f"\n{_verdict(result, clean=clean)} in {time.monotonic() - started:.1f} s")
    return result or (0 if clean else 1)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # a second one must not interrupt the tidying up
    raise InterruptedDemoError(signal.Signals(number).name)


def _run_and_remove(console: Console, story: str, folder: Path, cgroup: Path) -> tuple[int, inventory.Listing]:
    """Run the scenes, then remove everything; return their exit code and what belonged to them."""
    own: list[inventory.Listing] = []
    scenes = None
    try:
        folder.mkdir(mode=0o700)
        cgroups.make(cgroup)
        scenes = _start(story, folder, cgroup)
        result = _wait(scenes, cgroup, folder / BPFFS, own)
    except InterruptedDemoError as interruption:
        console.print(f"\n[yellow]{interruption}: tidying up[/]")
        result = _INTERRUPTED
    except TimeoutError as problem:
        console.print(f"\n[red]{problem}[/]")
        result = 1
    finally:
        own.append(inventory.of_demo(cgroup, folder / BPFFS))
        if scenes is not None:
            scenes.kill()
            scenes.wait()
        console.show_cursor()  # a live table that was cut short has left it hidden
        _remove(folder, cgroup)
    return result, inventory.joined(own)


def _remove(folder: Path, cgroup: Path) -> None:
    """Remove the cgroups and the folder as far as that is possible: what is left the comparison finds."""
    with suppress(TimeoutError):
        cgroups.remove(cgroup)
    shutil.rmtree(folder, ignore_errors=True)


def _start(story: str, folder: Path, cgroup: Path) -> subprocess.Popen[bytes]:
    """Start the scenes. They die with this process, and all of theirs with them."""
    command = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    scenes = [sys.executable, "-m", story, str(folder), str(cgroup)]
    # A session of its own: Ctrl-C reaches this process alone, which then ends the others.
    return subprocess.Popen([*command, *scenes], cwd=ROOT, start_new_session=True)


def _wait(scenes: subprocess.Popen[bytes], cgroup: Path, bpffs: Path, own: list[inventory.Listing]) -> int:
    """Wait for the scenes to end, and note meanwhile what belongs to them."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        own[:] = [inventory.joined([*own, inventory.of_demo(cgroup, bpffs)])]
        try:
            return scenes.wait(_LOOK_AROUND)
        except subprocess.TimeoutExpired:
            continue
    msg = f"the demo did not end within {PATIENCE:g} s"
    raise TimeoutError(msg)


def _compare(console: Console, before: inventory.Listing, own: inventory.Listing, name: str) -> bool:
    """Compare the machine with what it was, print the result, return whether nothing of the demo is left."""

    def left() -> inventory.Listing:
        return inventory.leftovers(before, inventory.of_machine(), own, (name,))

    try:
        wait_until(lambda: not any(left().values()), "everything of the demo to be gone", patience=_TO_GO)
    except TimeoutError as problem:
        console.print(f"\n[red]{problem}[/]")
    after = inventory.of_machine()
    remaining = inventory.leftovers(before, after, own, (name,))
    _print_comparison(console, before, own, after, remaining)
    return not any(remaining.values())


def _print_comparison(
    console: Console,
    before: inventory.Listing,
    own: inventory.Listing,
    after: inventory.Listing,
    remaining: inventory.Listing,
) -> None:
    table = Table(title="Compared: this machine before and after", title_justify="left", box=None)
    table.caption = "Before and after count everybody's; what the demo had is known by id and name."
    table.caption_justify = "left"
    for heading in ("", "before", "after", "the demo had", "left of it"):
        table.add_column(heading, justify="left" if not heading else "right")
    for kind, items in after.items():
        listings = (before[kind], items, own.get(kind), remaining[kind])
        table.add_row(kind, *("" if listing is None else str(inventory.count(kind, listing)) for listing in listings))
    console.print()
    console.print(table)
    for kind, items in remaining.items():
        for item in sorted(items):
            console.print(f"[red]left over: {kind}: {item}[/]")


def _verdict(result: int, *, clean: bool) -> str:
    stories = {0: "[green]everything as promised[/]", _INTERRUPTED: "[yellow]interrupted[/]"}
    story = stories.get(result, "[red]not everything as promised[/]")
    rest = "[green]nothing of the demo is left[/]" if clean else "[red]something of the demo is left[/]"
    return f"{story}, {rest};"
