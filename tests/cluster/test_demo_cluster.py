# SPDX-License-Identifier: Apache-2.0
"""The demo with Kubernetes in front, as ``make demo-cluster`` runs it.

It shows what it promises, says so if a promise breaks, and however it ends nothing is left of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath.cgroups import find_cgroup_root

DEMO = Path(__file__).parents[2] / "demo" / "run"
THROUGH = "nothing of the demo is left"
pytestmark = pytest.mark.timeout(600)  # it gives up by itself before that


@pytest.fixture
def demo() -> Iterator[subprocess.Popen[str]]:
    """Start the demo; at the end it must be over."""
    command = (sys.executable, DEMO, "cluster")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as started:
        yield started
        started.terminate()


def read_until(demo: subprocess.Popen[str], words: str) -> str:
    """Return what the demo says until these words."""
    assert demo.stdout is not None
    said = ""
    for line in demo.stdout:
        said += line
        if words in line:
            return said
    pytest.fail(f"the demo never said {words!r}: {said}")


def agent_of(demo: subprocess.Popen[str]) -> int:
    """Return the process id of the demo's agent."""
    processes = find_cgroup_root() / f"kubeproxy-ebpf-demo-{demo.pid}" / "node" / "system" / "cgroup.procs"
    for process in processes.read_text().split():
        if b"demo.pod" not in Path(f"/proc/{process}/cmdline").read_bytes():  # the node's server
            return int(process)
    pytest.fail("the demo has no agent")


def test_demo_shows_what_it_promises_and_leaves_nothing(demo: subprocess.Popen[str]) -> None:
    """Every scene's expectations hold, and no connection fails while Pods are replaced."""
    output, _ = demo.communicate()
    assert demo.returncode == 0, output
    assert "everything as promised" in output
    assert THROUGH in output
    changes = output.partition("All changes")[2]
    rolled = next(line.split() for line in changes.splitlines() if line.strip().startswith("roll 5"))
    assert rolled[3:5] == ["5", "5"]
    assert rolled[-1].startswith("0/"), changes


def test_a_promise_that_breaks_is_a_failure(demo: subprocess.Popen[str]) -> None:
    """An agent that does not see that Pods are replaced: connections fail, and the demo says so."""
    said = read_until(demo, "Another version is rolled out")
    os.kill(agent_of(demo), signal.SIGSTOP)
    output, _ = demo.communicate()
    assert demo.returncode == 1, said + output
    assert "expected no connection to fail" in output
    assert THROUGH in output


def test_interrupted_demo_leaves_nothing(demo: subprocess.Popen[str]) -> None:
    """Ctrl-C in the middle of a change ends it, and the control plane and all Pods with it."""
    said = read_until(demo, "The Deployment is scaled up")
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate()
    assert demo.returncode == 130, said + rest
    assert THROUGH in rest
