# SPDX-License-Identifier: Apache-2.0
"""The agent, killed right before a step of its writing: `mortal_agent.py STEP run ...`, counted from 0."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from kubeproxy_ebpf import writer
from kubeproxy_ebpf.cli import run
from kubeproxy_ebpf.cli.main import main
from kubeproxy_ebpf.cli.serve import serve


def dying(function: Callable[..., Any], steps: itertools.count[int], last: int) -> Callable[..., Any]:
    """Return a function that does the same, until it is the step to die at."""

    def step(*arguments: Any) -> Any:
        if next(steps) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)

    return step


if __name__ == "__main__":
    taken, at = itertools.count(), int(sys.argv.pop(1))
    for name in ("_store", "_call"):
        setattr(writer, name, dying(getattr(writer, name), taken, at))
    # In this program: one that begins anew would not know when to die.
    vars(run)["launch"] = lambda configuration, notices: sys.exit(serve(configuration, notices))
    main()
