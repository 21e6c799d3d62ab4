# SPDX-License-Identifier: Apache-2.0
"""A system clock for one process that tests can set, forward and backward, while the process runs."""

from __future__ import annotations

import struct
import subprocess
from datetime import timedelta
from pathlib import Path

SOURCE = Path(__file__).with_name("jumping_clock.c")


class JumpingClock:
    """Right at first."""

    def __init__(self, folder: Path) -> None:
        """Compile what has to be loaded into a process before anything else."""
        library, self._wrong_by = folder / "jumping_clock.so", folder / "jumping-clock"
        subprocess.run(("gcc", "-O2", "-shared", "-fPIC", SOURCE, "-o", library), check=True)
        self._wrong_by.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "JUMPING_CLOCK": str(self._wrong_by)}
        """For the process."""

    def be_wrong_by(self, difference: timedelta) -> None:
        """Jump: from now on the clock differs so much from the right time."""
        with self._wrong_by.open("r+b", buffering=0) as file:
            file.write(struct.pack("q", int(difference.total_seconds())))
