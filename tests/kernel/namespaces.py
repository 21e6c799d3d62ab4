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
from dataclasses import dataclass, field

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
        namespace.run("ip", "link", "set", "lo", "up")
        # Addresses are usable at once: nobody else can have them here.
        namespace.sysctl("net.ipv6.conf.all.accept_dad", 0)
        namespace.sysctl("net.ipv6.conf.default.accept_dad", 0)
        return namespace

    def enter(self) -> None:
        """Move the calling thread into the namespace, for good."""
        fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            if _libc.setns(fd, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {self.name}")
        finally:
            os.close(fd)

    def run(self, *command: str) -> str:
        """Run a command in the namespace and return what it prints; CalledProcessError carries its complaints."""
        prefix = ("nsenter", f"--net=/proc/{self.pid}/ns/net")
        return subprocess.run((*prefix, *command), check=True, capture_output=True, text=True).stdout

    def sysctl(self, name: str, value: object) -> None:
        """Set a network sysctl of the namespace."""
        self.run("sysctl", "-q", "-w", f"{name}={value}")

    def delete(self) -> None:
        """End the holder; the kernel removes the namespace with its last process."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def join(node: Namespace, pod: Namespace) -> None:
    """Give a pod its addresses on a veth pair to its node, which routes to them. Routes as CNIs make them."""
    number = next(_numbers)
    device = f"pod{number}"
    node.run("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", str(pod.pid))
    node.sysctl(f"net.ipv4.conf.{device}.proxy_arp", 1)
    node.run("ip", "link", "set", device, "address", "02:00:00:00:00:01", "up")
    node.run("ip", "-6", "address", "add", "fe80::1/64", "dev", device, "nodad")
    pod.run("ip", "link", "set", "eth0", "up")
    for text in pod.addresses:
        address = ipaddress.ip_address(text)
        length = address.max_prefixlen
        extra = ("nodad",) if address.version == 6 else ()
        pod.run("ip", "address", "add", f"{address}/{length}", "dev", "eth0", *extra)
        node.run("ip", "route", "add", f"{address}/{length}", "dev", device)
    pod.run("ip", "route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
    pod.run("ip", "neighbour", "add", "169.254.1.1", "lladdr", "02:00:00:00:00:01", "dev", "eth0")
    pod.run("ip", "route", "add", "default", "via", "169.254.1.1", "dev", "eth0")
    pod.run("ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
