# SPDX-License-Identifier: Apache-2.0
"""The agent: the real command, in the node's namespace and cgroup, followed through its log."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.processes import in_cgroup, in_namespace
from demo.stage import Stage
from demo.waiting import wait_until
from demo.world import World

NODE_NAME = "demo-node"
READY = "agent_ready"
_KERNELS_OWN = frozenset({"maps.debug", "progs.debug"})
"""Iterators that CONFIG_BPF_PRELOAD puts into every BPF file system."""


def command() -> str:
    """Return the path of the kubeproxy-ebpf command: next to this interpreter, or else on the PATH.

    Raises:
        FileNotFoundError: it is not installed.
    """
    here = Path(sys.executable).with_name("kubeproxy-ebpf")
    found = str(here) if here.exists() else shutil.which("kubeproxy-ebpf")
    if found is None:
        msg = "kubeproxy-ebpf is not installed: pip install ."
        raise FileNotFoundError(msg)
    return found


@dataclass(slots=True)
class Agent:
    """The agent of the demo's node."""

    world: World
    source: str
    """The flag that says where it learns of Services."""
    bpffs: Path
    log: Path
    more: tuple[str, ...] = ()
    """Further arguments."""
    process: subprocess.Popen[bytes] = field(init=False)
    _log_start: int = 0

    def arguments(self) -> list[str]:
        """Return the arguments of ``kubeproxy-ebpf``."""
        return [
            "run",
            self.source,
            f"--node-name={NODE_NAME}",
            f"--cgroup={self.world.node_cgroup}",
            f"--bpffs={self.bpffs}",
            "--log-format=json",
            *self.more,
        ]

    def start(self) -> float:
        """Start it; return the milliseconds until it says that it is ready.

        Raises:
            RuntimeError: it ended instead.
        """
        started = time.monotonic()
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._on_node(*self.arguments()), stdout=log, stderr=log)
        wait_until(self._is_ready, "the agent to be ready")
        return (time.monotonic() - started) * 1000

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            msg = f"the agent ended with {self.process.returncode} before it was ready"
            raise RuntimeError(msg)
        return any(event["event"] == READY for event in self.events())

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> float:
        """End it with SIGTERM; return the milliseconds that it took."""
        started = time.monotonic()
        self.process.terminate()
        self.process.wait()
        return (time.monotonic() - started) * 1000

    def stop(self, stage: Stage) -> float:
        """Do so on the stage, where it has to end as it should."""
        took = self.terminate()
        code = self.process.returncode
        stage.expect(code == 0, "exit code 0 after SIGTERM", code)
        return took

    def unload(self, stage: Stage) -> None:
        """Take everything out of the kernel, on the stage."""
        stage.did("kubeproxy-ebpf unload")
        stage.output(self.run("unload", f"--bpffs={self.bpffs}"))
        left = self.pinned()
        stage.expect(not left, "nothing to be pinned", left)

    def run(self, *arguments: str) -> str:
        """Run another of its commands on the node to its end; return what it printed.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(self._on_node(*arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            msg = f"kubeproxy-ebpf {' '.join(arguments)} ended with {done.returncode}: {done.stderr or done.stdout}"
            raise RuntimeError(msg)
        return done.stdout

    def pinned(self) -> list[str]:
        """Return what is in bpffs, but for what the kernel itself puts into each one."""
        entries = (str(path.relative_to(self.bpffs)) for path in self.bpffs.rglob("*"))
        return sorted(entry for entry in entries if entry not in _KERNELS_OWN)

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield what it has logged since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            for line in log:
                if line.startswith(b"{") and line.endswith(b"\n"):
                    yield json.loads(line)

    def writes(self) -> int:
        """Return how many writes into the maps it has logged since its last start."""
        return sum(int(event.get("writes", 0)) for event in self.events())

    def _on_node(self, *arguments: str) -> list[str]:
        return in_cgroup(self.world.system_cgroup, *in_namespace(self.world["node"].process, command(), *arguments))
