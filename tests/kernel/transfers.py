# SPDX-License-Identifier: Apache-2.0
"""Large transfers, of which nothing may be lost or spoilt."""

from __future__ import annotations

import hashlib
import socket
import threading

_LINE = b"x" * 9999 + b"\n"


def exchange(address: str, port: int, size: int) -> str:
    """Send that many bytes to a server that echoes, and return a digest of what comes back."""
    with socket.create_connection((address, port), timeout=30) as connection:
        reader = connection.makefile("rb")
        reader.readline()

        def send() -> None:
            for _ in range(size // len(_LINE)):
                connection.sendall(_LINE)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        digest = hashlib.sha256()
        while data := reader.read(1 << 16):
            digest.update(data)
        sender.join()
        return digest.hexdigest()


def digest_of(size: int) -> str:
    """Return the digest of what is sent."""
    return hashlib.sha256(_LINE * (size // len(_LINE))).hexdigest()
