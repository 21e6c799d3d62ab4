# SPDX-License-Identifier: Apache-2.0
"""From the command line to the agent: another program in the same process.

What reads a command line takes a third of the memory that an agent needs for a thousand Services. The agent begins
anew without it.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Sequence
from typing import NoReturn

from kubeproxy_ebpf.config import Configuration, Notice

_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
"""Threads that share one heap leave fewer holes in it (mallopt(3))."""


def launch(configuration: Configuration, notices: Sequence[Notice]) -> NoReturn:
    """Become the agent. What it is to do goes through a file that is in memory and nowhere else."""
    descriptor = os.memfd_create("configuration", 0)
    os.write(descriptor, pickle.dumps((configuration, tuple(notices))))
    os.lseek(descriptor, 0, os.SEEK_SET)
    sys.stdout.flush()
    sys.stderr.flush()
    command = (sys.executable, "-P", "-m", "kubeproxy_ebpf.cli.serve", str(descriptor))
    os.execve(sys.executable, command, _ENVIRONMENT | os.environ)  # noqa: S606 - it is our own interpreter
