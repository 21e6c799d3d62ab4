# SPDX-License-Identifier: Apache-2.0
"""The agent as a process of its own, on manifests or an API server, followed through its log and its pinned maps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.kernel.namespaces import Namespace

T = TypeVar("T")

NODE_NAME = "this-node"
READY = "agent_ready"
ONLY_SOCKETS = ("--no-packet-path",)
"""Arguments of an agent that is asked about this node's own sockets: it starts sooner."""
PATIENCE = 300.0
"""Seconds; an emulated machine is twenty times slower than others."""
_JOIN = 'echo 0 >"$0/cgroup.procs" && exec "$@"'
_ENTRY = "from kubeproxy_ebpf.cli.main import main; main()"


def wait_until(condition: Callable[[], T], what: str) -> T:
    """Return the first true value of a condition; fail after a generous time."""
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
        time.sleep(0.005)
    return result


class Manifests:
    """A folder of manifests; every change is a rename into place."""

    def __init__(self, folder: Path) -> None:
        """Create the folder, with nothing in it."""
        self.path = folder / "manifests"
        self.path.mkdir()
        self._draft = folder / "draft"

    def write(self, name: str, *documents: Mapping[str, Any]) -> None:
        """Replace a file by some objects."""
        self.write_text(name, yaml.safe_dump_all(documents))

    def write_text(self, name: str, text: str) -> None:
        """Replace a file by some text."""
        self._draft.write_text(text)
        self._draft.rename(self.path / name)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.path / name).unlink()


def node(*addresses: str) -> dict[str, Any]:
    """Return this node's Node object."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE_NAME},
        "status": {"addresses": [{"type": "InternalIP", "address": address} for address in addresses]},
    }


def service(name: str, cluster_ip: str, port: int = 80, **spec: object) -> dict[str, Any]:
    """Return a Service with one TCP port."""
    ports = [{"name": "tcp", "protocol": "TCP", "port": port}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ports": ports, **spec},
    }


def endpoint_slice(name: str, addresses: Sequence[str], port: int = 8080) -> dict[str, Any]:
    """Return the EndpointSlice of a Service, with ready endpoints on this node."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "tcp", "protocol": "TCP", "port": port}],
        "endpoints": [{"addresses": [address], "nodeName": NODE_NAME} for address in addresses],
    }


@dataclass
class AgentProcess:
    """One agent after the other on the same node, source, cgroup and bpffs."""

    host: Namespace
    cgroup: Path
    bpffs: Path
    source: Manifests | Path
    """Manifests, or a kubeconfig."""
    log: Path
    program: Sequence[str] = ("-c", _ENTRY)
    """Arguments of Python before those of the command line."""
    arguments: Sequence[str] = ()
    """More arguments of ``run``, at every start."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its environment has besides the test's own, at every start."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _log_start: int = field(default=0, init=False)

    @property
    def pin_folder(self) -> Path:
        """Where it pins."""
        return self.bpffs / "kubeproxy-ebpf"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that runs a verb in the node's namespace and cgroup, under the same process id."""
        enter = ["nsenter", f"--net=/proc/{self.host.pid}/ns/net"]
        return ["sh", "-c", _JOIN, str(self.cgroup), *enter, sys.executable, *self.program, *arguments]

    def run_arguments(self, *extra: str) -> list[str]:
        """Return the arguments of ``run``."""
        source = self.source
        return [
            "run",
            f"--manifests={source.path}" if isinstance(source, Manifests) else f"--kubeconfig={source}",
            f"--node-name={NODE_NAME}",
            f"--cgroup={self.cgroup}",
            f"--bpffs={self.bpffs}",
            "--log-format=json",
            *self.arguments,
            *extra,
        ]

    def launch(self, *extra: str) -> None:
        """Start it and return at once."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            command = self.command(*self.run_arguments(*extra))
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | self.environment)

    def start(self, *extra: str) -> None:
        """Start it and return when it says that it is ready."""
        self.launch(*extra)
        self.wait_for(READY)

    def wait_for(self, event: str) -> dict[str, Any]:
        """Return the first event of a name that it logs, or has logged since its start."""

        def found() -> dict[str, Any] | None:
            ended = self.process is None or self.process.poll() is not None
            event_ = next((entry for entry in self.events() if entry["event"] == event), None)
            assert event_ or not ended, f"the agent ended: {self.log.read_text()}"
            return event_

        result = wait_until(found, f"the event {event}")
        assert result is not None
        return result

    def events(self) -> list[dict[str, Any]]:
        """Return what it has logged since its last start."""
        if not self.log.exists():
            return []
        text = self.log.read_bytes()[self._log_start :].decode()
        return [
            json.loads(line) for line in text.splitlines(keepends=True) if line.startswith("{") and line[-1] == "\n"
        ]

    def writes(self) -> int:
        """Return how many writes into the maps it has logged since its last start."""
        return sum(int(event.get("writes", 0)) for event in self.events())

    def dies_before(self, event: str) -> bool:
        """Return whether it is killed before it logs an event."""
        process = self.process
        assert process is not None

        def found() -> str | None:
            if any(entry["event"] == event for entry in self.events()):
                return event
            return None if process.poll() is None else "end"

        return wait_until(found, f"the event {event}, or the agent's end") == "end"

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another verb to its end."""
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
