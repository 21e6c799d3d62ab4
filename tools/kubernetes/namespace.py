# SPDX-License-Identifier: Apache-2.0
"""A network namespace by the file that stands for it, such as ``/proc/1234/ns/net``: commands and sockets in it."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def inside(namespace: Path, *command: str) -> list[str]:
    """Return the command line that runs a command there, under the same process id."""
    return ["nsenter", f"--net={namespace}", *command]


def call_inside(namespace: Path, function: Callable[[], T]) -> T:
    """Call a function in a thread that is there. Its sockets stay there, and so do the threads that it starts."""
    with ThreadPoolExecutor(max_workers=1, initializer=enter, initargs=(namespace,)) as executor:
        return executor.submit(function).result()


def connect(namespace: Path, address: str, port: int, timeout: float) -> socket.socket:
    """Connect from there; ``timeout`` in seconds goes for each operation."""
    made = call_inside(namespace, lambda: socket.create_connection((address, port), timeout))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a request's head and body are two pieces
    return made


def enter(namespace: Path) -> None:
    """Move the calling thread there, for good.

    Raises:
        OSError: the kernel refuses.
    """
    fd = os.open(namespace, os.O_RDONLY)
    try:
        if _libc.setns(fd, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    finally:
        os.close(fd)
