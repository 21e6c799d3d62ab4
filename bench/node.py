# SPDX-License-Identifier: Apache-2.0
"""A node with a proxy on it, ours or kube-proxy, that an API server tells what to do: start, kill, look into."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench import fleet, ours, rounds, world
from bench.agent_log import AgentLog
from bench.answering import MOST, answering
from bench.control_plane import MODES, join, kube_proxy_command
from bench.plan import Plan
from tools.kubernetes.control_plane import ControlPlane
from tools.kubernetes.credentials import NODE_PROXIER
from tools.kubernetes.daemon import Daemon

OURS = "ours"
SIDES = (OURS, *MODES)
NAMES = {OURS: "ours", **{mode: f"kube-proxy {mode}" for mode in MODES}}
_TUPLES = 2_000_000
"""Source tuples that one program may use: none is used twice on a node."""
_QUIET_BYTES, _QUIET_SECONDS, _MOST_SECONDS = 20_000, 2.0, 120.0


class Memory(NamedTuple):
    """Of a process, in MB (10^6 bytes)."""

    pss: float
    """Proportional set size."""
    anonymous: float
    """Of it, what is no file's."""


@dataclass
class Node:
    """One node, until the block of :func:`node` ends. Its proxy is not started yet."""

    side: str
    pods: world.Pods
    address: str
    """Where the API server sees the node's requests come from."""
    clients: Path
    """The cgroup that the clients are in."""
    proxy: Daemon
    proxy_cgroup: Path
    """The cgroup that the proxy is in, with the programs that it runs."""
    _sources: Iterator[int] = field(default_factory=lambda: itertools.count(0, _TUPLES))
    _log: AgentLog = field(init=False)

    def __post_init__(self) -> None:
        """Know where our agent logs."""
        self._log = AgentLog(self.proxy.log)

    @property
    def rest(self) -> float:
        """Seconds to leave between changes. kube-proxy gathers them for a second after each that it has written."""
        return 0.05 if self.side == OURS else 1.2

    def load(self, targets: Path) -> rounds.Side:
        """Return what a load needs to know to run in the client pod."""
        return rounds.Side(self.side, targets, self.pods.client, self.clients, next(self._sources))

    def start(self) -> int:
        """Start the proxy, again perhaps; return when (CLOCK_MONOTONIC, nanoseconds)."""
        self._log.begin()
        start = time.monotonic_ns()
        self.proxy.start()
        (self.proxy_cgroup / "cgroup.procs").write_text(str(self.proxy.pid))
        return start

    def wait_until_ready(self) -> dict[str, Any]:
        """Return what our agent says when it has taken everything in, since it was last started."""
        self.proxy.wait_until(lambda: self._log.ready() is not None, "to be ready", _MOST_SECONDS)
        return self._log.ready() or {}

    def check(self) -> None:
        """Raise WorldError if our agent has logged an error since it was last started."""
        self.proxy.check()
        if self.side == OURS:
            self._log.check()

    def cpu_seconds(self) -> float:
        """Return the time of processors that the proxy and its programs have used."""
        key, value = (self.proxy_cgroup / "cpu.stat").read_text().split()[:2]
        if key != "usage_usec":
            msg = f"{self.proxy_cgroup}/cpu.stat begins with {key}"
            raise world.WorldError(msg)
        return int(value) / 1e6

    def memory(self) -> Memory:
        """Return what the proxy's process has now."""
        lines = Path(f"/proc/{self.proxy.pid}/smaps_rollup").read_text().splitlines()
        kibibytes = {key: int(value.split()[0]) for key, _, value in (line.partition(":") for line in lines[1:])}
        return Memory(*(kibibytes[key] * 1024 / 1e6 for key in ("Pss", "Pss_Anon")))

    def api_bytes(self) -> int:
        """Return how many bytes have gone between the node and the API server, in both directions, on the wire."""
        shown = world.run("ip", "-n", self.pods.node, "-json", "-stats", "link", "show", "control")
        stats = json.loads(shown)[0]["stats64"]
        return int(stats["rx"]["bytes"]) + int(stats["tx"]["bytes"])

    def wait_until_quiet(self) -> None:
        """Wait until next to nothing goes to the API server and back."""
        deadline = time.monotonic() + _MOST_SECONDS
        before = self.api_bytes()
        while time.monotonic() < deadline:
            time.sleep(_QUIET_SECONDS)
            now = self.api_bytes()
            if now - before < _QUIET_BYTES:
                return
            before = now
        msg = f"{NAMES[self.side]} still asks the API server after {_MOST_SECONDS:.0f} s"
        raise world.WorldError(msg)


@contextmanager
def node(plan: Plan, plane: ControlPlane, side: str) -> Iterator[Node]:
    """Build a node that has nothing of an earlier one, with endpoints that answer."""
    with ExitStack() as stack:
        pods = stack.enter_context(world.pods(side))
        address = join(plane, pods.node)
        clients, proxy_cgroup = (stack.enter_context(world.cgroup(f"{side}-{name}")) for name in ("clients", "proxy"))
        command = _command(stack, plane, side, clients)
        proxy = Daemon(world.file_of(pods.node), command, plan.folder / f"{side}.log")
        stack.callback((proxy_cgroup / "cgroup.kill").write_text, "1")  # what a proxy has begun may outlive it
        stack.callback(proxy.stop)
        stack.enter_context(answering(plan, pods.server, MOST))
        made = Node(side, pods, address, clients, proxy, proxy_cgroup)
        yield made
        made.check()


def _command(stack: ExitStack, plane: ControlPlane, side: str, clients: Path) -> Sequence[str]:
    if side != OURS:
        return kube_proxy_command(plane, side)
    bpffs = stack.enter_context(ours.bpf_file_system())
    return (
        *(sys.executable, "-m", "kubeproxy_ebpf.cli.main", "run", "--log-format=json"),
        f"--kubeconfig={plane.kubeconfig(NODE_PROXIER)}",
        f"--node-name={fleet.NODE}",
        f"--cgroup={clients}",
        f"--bpffs={bpffs}",
    )
