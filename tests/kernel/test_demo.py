# SPDX-License-Identifier: Apache-2.0
"""The demo, as ``make demo`` runs it: it shows what it promises, and however it ends nothing is left of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "demo" / "run"
THROUGH = "nothing of the demo is left"


def start_demo() -> subprocess.Popen[str]:
    """Start the demo."""
    return subprocess.Popen((sys.executable, DEMO), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_demo_shows_what_it_promises_and_leaves_nothing() -> None:
    """Every scene's expectations hold, and the comparison of before and after is clean."""
    demo = start_demo()
    output, _ = demo.communicate()
    assert demo.returncode == 0, output
    assert "everything as promised" in output
    assert THROUGH in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_leaves_nothing(number: signal.Signals) -> None:
    """Ctrl-C while its processes and the agent run ends it with all that it made."""
    demo = start_demo()
    assert demo.stdout is not None
    shown = ""
    for line in demo.stdout:
        shown += line
        if "writes into the maps" in line:
            demo.send_signal(number)
            break
    rest, _ = demo.communicate()
    assert demo.returncode == 130, shown + rest
    assert THROUGH in rest
