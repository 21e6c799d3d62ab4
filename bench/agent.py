# SPDX-License-Identifier: Apache-2.0
"""The real agent on a folder of manifests: started, killed, started again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from bench import fleet, ours, world
from tools.kubernetes.namespace import inside

_READY_SECONDS = 180


class Agent:
    """The agent of a network namespace, which is not running yet."""

    def __init__(self, command: list[str], notified: socket.socket) -> None:
        """Know how to start it, and where it says that it is ready; the socket stays the caller's."""
        self._command = command
        self._notified = notified
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The number of its process."""
        assert self._process is not None  # noqa: S101 - for the type's sake
        return self._process.pid

    def start(self) -> None:
        """Start it; returns when it is ready."""
        environment = os.environ | {"NOTIFY_SOCKET": self._notified.getsockname()}
        self._process = subprocess.Popen(self._command, env=environment)
        while b"READY=1" not in self._notified.recv(4096):
            pass

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def write_manifest(path: Path, objects: Iterable[dict[str, Any]]) -> None:
    """Write a file of objects for the agent."""
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


@contextmanager
def agent(cgroup: Path, manifests: Path, namespace: str) -> Iterator[Agent]:
    """Run the agent until the block ends, as that of a namespace; yields when it says that it is ready."""
    with ExitStack() as stack:
        bpffs = stack.enter_context(ours.bpf_file_system())
        notified = stack.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)))
        notified.settimeout(_READY_SECONDS)
        notified.bind(str(bpffs.parent / "notify"))
        command = [sys.executable, "-m", "kubeproxy_ebpf.cli.main", "run", "--node-name", fleet.NODE]
        command += ["--manifests", str(manifests), "--cgroup", str(cgroup), "--bpffs", str(bpffs)]
        command += ["--service-cidrs", world.SERVICES, "--log-level", "warning"]
        # Its programs belong on the devices of that namespace, and on none of this machine's.
        made = Agent(inside(world.file_of(namespace), *command), notified)
        stack.callback(made.kill)
        made.start()
        yield made
