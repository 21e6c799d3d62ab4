# SPDX-License-Identifier: Apache-2.0
"""The real agent on a folder of manifests: started, killed, started again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import fleet, ours, world
from bench.agent_log import AgentLog
from tools.kubernetes.daemon import Daemon

_READY_SECONDS = 180.0


class Agent:
    """The agent of a network namespace, which is not running yet."""

    def __init__(self, daemon: Daemon) -> None:
        """Know how to start it."""
        self._daemon = daemon
        self._log = AgentLog(daemon.log)

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._daemon.pid

    def start(self) -> None:
        """Start it; returns when it is ready.

        Raises:
            ControlPlaneError: it ended, or is not ready in time.
        """
        self._log.begin()
        self._daemon.start()
        self._daemon.wait_until(lambda: self._log.ready() is not None, "to be ready", _READY_SECONDS)

    def check(self) -> None:
        """Raise ControlPlaneError unless it runs, WorldError if it has logged an error."""
        self._daemon.check()
        self._log.check()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._daemon.kill()


def write_manifest(path: Path, objects: Iterable[dict[str, Any]]) -> None:
    """Write a file of objects for the agent."""
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


@contextmanager
def agent(cgroup: Path, manifests: Path, namespace: str) -> Iterator[Agent]:
    """Run the agent until the block ends, as that of a namespace; yields when it is ready.

    Raises:
        ControlPlaneError: it ended meanwhile.
        WorldError: it logged an error.
    """
    with ExitStack() as stack:
        bpffs = stack.enter_context(ours.bpf_file_system())
        command = [sys.executable, "-m", "kubeproxy_ebpf.cli.main", "run", "--node-name", fleet.NODE]
        command += ["--manifests", str(manifests), "--cgroup", str(cgroup), "--bpffs", str(bpffs)]
        command += ["--service-cidrs", world.SERVICES, "--log-format", "json"]
        # Its programs belong on the devices of that namespace, and on none of this machine's.
        made = Agent(Daemon(world.file_of(namespace), command, bpffs.parent / "log"))
        stack.callback(made.kill)
        made.start()
        yield made
        made.check()
