# SPDX-License-Identifier: Apache-2.0
"""A pod, a node and a pod on the other side, as network namespaces, and cgroups for the sides of a comparison.

Addresses: 10.200.0.0/14 are the client's, 10.128.0.0/10 the endpoints', 10.96.0.0/12 the Services'. Every
address of a range answers, so a hundred thousand endpoints cost two routes. Nothing outside these namespaces
and cgroups is touched, and all of it goes when the world is closed.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kubeproxy_ebpf.datapath.cgroups import find_cgroup_root

CLIENTS = "10.200.0.0/14"
ENDPOINTS = "10.128.0.0/10"
SERVICES = "10.96.0.0/12"
PORT = 8080
NODE_ADDRESS = "10.192.0.1"
PREFIX = f"kpe-bench-{os.getpid()}"
_NAMESPACES = Path("/run/netns")
_UP_SECONDS = 30.0


class WorldError(Exception):
    """The machine refused to build the world."""


def run(*command: str, text: str | None = None) -> str:
    """Run a command to its end and return what it printed.

    Raises:
        WorldError: it failed; the message has what it said.
    """
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if result.returncode:
        msg = f"{' '.join(command)}: {result.stderr.strip() or result.stdout.strip()}"
        raise WorldError(msg)
    return result.stdout


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """Add a network namespace for as long as the block runs; yields its full name."""
    full = f"{PREFIX}-{name}"
    run("ip", "netns", "add", full)
    try:
        run("ip", "-n", full, "link", "set", "lo", "up")
        yield full
    finally:
        run("ip", "netns", "del", full)


def inside(name: str, *command: str) -> list[str]:
    """Return the command line that runs a command in a namespace."""
    return ["ip", "netns", "exec", name, *command]


def file_of(name: str) -> Path:
    """Return the file that stands for a namespace."""
    return _NAMESPACES / name


@dataclass(frozen=True, slots=True)
class Pods:
    """The namespaces of one node and its two pods."""

    client: str
    node: str
    server: str


@contextmanager
def pods(name: str) -> Iterator[Pods]:
    """Build a node with a client pod and a pod that is every endpoint."""
    with ExitStack() as stack:
        made = Pods(*(stack.enter_context(namespace(f"{name}-{role}")) for role in ("client", "node", "server")))
        for number, (pod, ranges) in enumerate(((made.client, CLIENTS), (made.server, ENDPOINTS))):
            gateway, address = f"10.192.0.{4 * number + 1}", f"10.192.0.{4 * number + 2}"
            link(Plug(made.node, f"pod{number}", gateway), Plug(pod, "eth0", address))
            run("ip", "-n", pod, "route", "add", "default", "via", gateway)
            run("ip", "-n", pod, "route", "add", "local", ranges, "dev", "lo")
            run("ip", "-n", made.node, "route", "add", ranges, "via", address)
        let_route(made.node)
        wait_until_up(made.client, made.node, made.server)
        yield made


def wait_until_up(*names: str) -> None:
    """Wait until every device of some namespaces carries packets, which is some seconds after it was set up.

    The kernel looks at new links once a second, and after whatever else it does to network devices.

    Raises:
        WorldError: one does not come up.
    """
    deadline = time.monotonic() + _UP_SECONDS
    waiting = list(names)
    while waiting:
        devices = json.loads(run("ip", "-n", waiting[-1], "-json", "link", "show", "up"))
        if all(device["operstate"] == "UP" for device in devices if "LOOPBACK" not in device["flags"]):
            waiting.pop()
        elif time.monotonic() > deadline:
            msg = f"a network device of {waiting[-1]} does not come up"
            raise WorldError(msg)
        else:
            time.sleep(0.05)


def let_route(name: str) -> None:
    """Have a namespace forward packets, by whatever way they come."""
    for setting in ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0"):
        run(*inside(name, "sysctl", "-qw", setting))


class Plug(NamedTuple):
    """One end of a veth pair."""

    namespace: str
    device: str
    address: str


def link(one: Plug, other: Plug) -> None:
    """Connect two namespaces by a veth pair; both addresses are of one /30."""
    peer = ("peer", "name", other.device, "netns", other.namespace)
    run("ip", "-n", one.namespace, "link", "add", one.device, "type", "veth", *peer)
    for name, device, address in (one, other):
        run("ip", "-n", name, "address", "add", f"{address}/30", "dev", device)
        run("ip", "-n", name, "link", "set", device, "up")


@contextmanager
def daemon(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a program that prints a first line when it is ready, until the block ends."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or not process.stdout.readline():
                msg = f"{' '.join(command)} ended before it was ready"
                raise WorldError(msg)
            yield process
        finally:
            process.kill()


@contextmanager
def routeless() -> Iterator[str]:
    """Add a namespace where connect() ends at the look-up of a route, each kind of address with its own error.

    Endpoints and strangers are prohibited (EACCES), Services are a black hole (EINVAL), the rest is unreachable.
    """
    with namespace("hook") as name:
        for kind, prefix in (("prohibit", ENDPOINTS), ("prohibit", CLIENTS), ("blackhole", SERVICES)):
            run("ip", "-n", name, "route", "add", kind, prefix)
        yield name


@contextmanager
def cgroup(name: str) -> Iterator[Path]:
    """Add a cgroup at the top of the tree for as long as the block runs; processes left in it are moved out."""
    top = find_cgroup_root()
    folder = top / f"{PREFIX}-{name}"
    folder.mkdir()
    try:
        yield folder
    finally:
        for process in (folder / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (top / "cgroup.procs").write_text(process)
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a cgroup, which the kernel lets go of a moment after its last process left."""
    for _ in range(50):
        try:
            folder.rmdir()
        except OSError:
            time.sleep(0.1)
        else:
            return
    folder.rmdir()
