# SPDX-License-Identifier: Apache-2.0
"""Tells a service manager how far the agent is: the sd_notify(3) protocol, which is one datagram.

Without ``NOTIFY_SOCKET`` in the environment nobody asked, and nothing is sent.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

_VARIABLE: Final = "NOTIFY_SOCKET"


def notify_ready(status: str = "", environment: Mapping[str, str] = os.environ) -> bool:
    """Say that Services are in effect; return whether anybody was told."""
    return _send("READY=1" + _status_line(status), environment)


def notify_stopping(status: str = "", environment: Mapping[str, str] = os.environ) -> bool:
    """Say that the agent is about to exit; return whether anybody was told."""
    return _send("STOPPING=1" + _status_line(status), environment)


def notify_status(status: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Say in one line what the agent is doing; return whether anybody was told."""
    return _send(_status_line(status).lstrip(), environment)


def _status_line(status: str) -> str:
    return "\nSTATUS=" + " ".join(status.split()) if status else ""


def _send(message: str, environment: Mapping[str, str]) -> bool:
    """Send a message; one that cannot be delivered is lost: a deaf manager must not stop the agent."""
    address = environment.get(_VARIABLE, "")
    if not message or not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract name space, unix(7)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
        try:
            sender.sendto(message.encode(), address)
        except OSError:
            return False
    return True
