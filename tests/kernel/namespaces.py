# SPDX-License-Identifier: Apache-2.0
"""Network namespaces of a test's own: a node, its pods and the outside world, joined by veth pairs.

A namespace lives as long as its holder process, which dies with the test process; nothing is named in /run.
"""

from __future__ import annotations

import ctypes
import ipaddress
import itertools
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tools.kubernetes.namespace import enter

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True)
class Namespace:
    """A network namespace with loopback up. ``pid`` is its holder's."""

    name: str
    pid: int
    addresses: tuple[str, ...] = field(default=())

    @classmethod
    def create(cls, name: str, addresses: tuple[str, ...] = ()) -> Namespace:
        """Create one; call :meth:`delete` at the end."""
        ready, done = os.pipe()
        pid = os.fork()
        if pid == 0:
            die_with_parent()
            _libc.unshare(CLONE_NEWNET)
            os.write(done, b"1")
            signal.pause()
        os.close(done)
        os.read(ready, 1)
        os.close(ready)
        namespace = cls(name, pid, addresses)
        namespace.ip("link set lo up")
        # Addresses are usable at once: nobody else can have them here.
        namespace.sysctl("net.ipv6.conf.all.accept_dad", 0)
        namespace.sysctl("net.ipv6.conf.default.accept_dad", 0)
        return namespace

    def enter(self) -> None:
        """Move the calling thread into the namespace, for good."""
        enter(Path(f"/proc/{self.pid}/ns/net"))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have the calling thread in the namespace while the block runs; what it starts stays there."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            self.enter()
            try:
                yield
            finally:
                enter(Path(f"/proc/self/fd/{own}"))
        finally:
            os.close(own)

    def run(self, *command: str, lines: str | None = None) -> str:
        """Run a command in the namespace and return what it prints; CalledProcessError carries its complaints."""
        with self.entered():
            return subprocess.run(command, input=lines, check=True, capture_output=True, text=True).stdout

    def ip(self, *commands: str) -> None:
        """Have one process run several of its commands: where a kernel is emulated, processes take most of the time."""
        self.run("ip", "-batch", "-", lines="\n".join(commands))

    def sysctl(self, name: str, value: object) -> None:
        """Set a network sysctl of the namespace."""
        with self.entered():
            Path("/proc/sys", *name.split(".")).write_text(str(value))

    def delete(self) -> None:
        """End the holder; the kernel removes the namespace with its last process."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def join(node: Namespace, pod: Namespace) -> None:
    """Give a pod its addresses on a veth pair to its node, which routes to them. Routes as CNIs make them."""
    device = f"pod{next(_numbers)}"
    addresses = [f"{address}/{address.max_prefixlen}" for address in map(ipaddress.ip_address, pod.addresses)]
    node.ip(
        f"link add {device} type veth peer name eth0 netns {pod.pid}",
        f"link set {device} address 02:00:00:00:00:01 up",
        f"address add fe80::1/64 dev {device} nodad",
    )
    node.sysctl(f"net.ipv4.conf.{device}.proxy_arp", 1)
    pod.ip(
        "link set eth0 up",
        *(f"address add {address} dev eth0 {'nodad' if ':' in address else ''}" for address in addresses),
        "route add 169.254.1.1 dev eth0 scope link",
        "neighbour add 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0",
        "route add default via 169.254.1.1 dev eth0",
        "route add default via fe80::1 dev eth0",
    )
    node.ip(*(f"route add {address} dev {device}" for address in addresses))


def join_by(one: Namespace, other: Namespace, device: str, here: str, there: str) -> None:
    """Connect two namespaces by a device that has the same name in both, with an address of one /24 in each."""
    one.ip(f"link add {device} type veth peer name {device} netns {other.pid}")
    for namespace, address in ((one, here), (other, there)):
        namespace.ip(f"address add {address}/24 dev {device}", f"link set {device} up")
