# SPDX-License-Identifier: Apache-2.0
"""What every story of the demo has around it: the console, a BPF file system, and what is said when it goes wrong.

A story is a module, started by :mod:`demo.supervise` as ``python -m MODULE FOLDER CGROUP`` in a mount and a
process-id namespace of its own.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from demo.stage import ExpectationError
from tools.kubernetes.errors import ApiError, BuildError, ControlPlaneError

BPFFS = "bpffs"
"""Name of the BPF file system in the demo's folder; mounted in the demo's mount namespace only."""
_LOG_LINES = 15
_PROBLEMS = (
    ExpectationError,
    TimeoutError,
    RuntimeError,
    OSError,
    subprocess.CalledProcessError,
    http.client.HTTPException,
    ApiError,
    BuildError,
    ControlPlaneError,
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a story is played: what it makes is below ``folder`` and ``cgroup``, and goes with them."""

    console: Console
    folder: Path
    cgroup: Path

    @property
    def bpffs(self) -> Path:
        """The BPF file system."""
        return self.folder / BPFFS

    @property
    def log(self) -> Path:
        """The agent's log."""
        return self.folder / "agent.log"


def play(story: Callable[[Place], None]) -> int:
    """Play a story; return 0 if each expectation held."""
    place = Place(Console(highlight=False), Path(sys.argv[1]), Path(sys.argv[2]))
    place.bpffs.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", place.bpffs], check=True)
    try:
        story(place)
    except _PROBLEMS as problem:
        place.console.print(f"\n[red]{type(problem).__name__}:[/] {escape(str(problem))}")
        if place.log.exists():
            place.console.print("\nThe agent's last words:")
            words = place.log.read_text().splitlines()[-_LOG_LINES:]
            place.console.print("\n".join(words), markup=False, soft_wrap=True)
        return 1
    return 0
