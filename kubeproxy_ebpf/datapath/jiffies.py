# SPDX-License-Identifier: Apache-2.0
"""How many jiffies the kernel counts in a second (CONFIG_HZ): nothing tells, so two looks at its counter do."""

from __future__ import annotations

import os
import time
from typing import Final, NamedTuple

from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.kernel_types import Helper, ProgramType
from kubeproxy_ebpf.datapath.libbpf.programs import call, leave, load_plain

CHOICES: Final = (100, 250, 300, 1000)
"""What kernels can be built with (kernel/Kconfig.hz; of all architectures that containers run on)."""
LEAST_APART: Final = 0.2
"""Seconds between two looks: fifty or sixty jiffies of the closest two choices, so one more or less is no other."""
_ATTEMPTS: Final = 100
"""The quickest look counts: the processor may be taken away in the middle of one."""
_PACKET = bytes(64)
"""What a program is given that looks at nothing."""


class _Look(NamedTuple):
    seconds: float
    jiffies: int
    """The lowest 32 bits."""


class JiffiesRate:
    """Measures between its making and :meth:`read`: other work goes on in between."""

    def __init__(self) -> None:
        """Take the first look.

        Raises:
            KernelError: the kernel does not let us.
        """
        self._first = _look()

    def read(self) -> int:
        """Return the jiffies in a second; waits for what is missing of :data:`LEAST_APART`."""
        missing = self._first.seconds + LEAST_APART - time.monotonic()
        if missing > 0:
            time.sleep(missing)
        second = _look()
        jiffies = (second.jiffies - self._first.jiffies) % (1 << 32)
        rate = jiffies / (second.seconds - self._first.seconds)
        return min(CHOICES, key=lambda choice: abs(choice - rate))


def _look() -> _Look:
    program = load_plain(ProgramType.SOCKET_FILTER, "jiffies", (call(Helper.JIFFIES64), leave()))
    try:
        return min((_timed(program) for _ in range(_ATTEMPTS)), key=lambda pair: pair[0])[1]
    finally:
        os.close(program)


def _timed(program: int) -> tuple[float, _Look]:
    """Return how long a look took, and the look."""
    before = time.monotonic()
    jiffies = syscalls.program_test_run(program, _PACKET).action % (1 << 32)
    after = time.monotonic()
    return after - before, _Look((before + after) / 2, jiffies)
