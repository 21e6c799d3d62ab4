# SPDX-License-Identifier: Apache-2.0
"""The tool that runs demo and tests, and fails if they leave something behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import leaves_nothing

TOOL = Path(__file__).parents[2] / "tools" / "leaves_nothing.py"
TIDYING_SECONDS = 1.0

INTERRUPTIBLE = f"""
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by whoever was started in the background
try:
    print("running", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep({TIDYING_SECONDS})
    print("tidied up", flush=True)
    sys.exit(7)
"""
TERMINABLE = "import signal; signal.signal(signal.SIGTERM, signal.default_int_handler)" + INTERRUPTIBLE


def whole_group(process: subprocess.Popen[str]) -> None:
    """Interrupt as a terminal does: everybody in the foreground."""
    os.killpg(process.pid, signal.SIGINT)


def the_tool_alone(process: subprocess.Popen[str]) -> None:
    """Terminate as make does: its child."""
    process.terminate()


@pytest.mark.parametrize(
    ("script", "interrupt"), [(INTERRUPTIBLE, whole_group), (TERMINABLE, the_tool_alone)], ids=["Ctrl-C", "SIGTERM"]
)
def test_interrupted_command_may_tidy_up(script: str, interrupt: Callable[[subprocess.Popen[str]], None]) -> None:
    """A command that is told to end gets the time that it needs, and its status is the tool's."""
    command = (sys.executable, TOOL, sys.executable, "-c", script)
    tool = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert tool.stdout is not None
    assert tool.stdout.readline() == "running\n"
    interrupt(tool)
    output, _ = tool.communicate()
    assert output == "tidied up\n"
    assert tool.returncode == 7


def test_leftover_is_found(make_cgroup: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A cgroup that was not there before is found, by its name."""
    monkeypatch.setattr(leaves_nothing, "PATIENCE", 0.5)
    left = make_cgroup() / "left"
    before = leaves_nothing.snapshot()
    left.mkdir()
    found = leaves_nothing.differences(before)
    left.rmdir()
    assert f"cgroup {left} was left behind" in found
