# SPDX-License-Identifier: Apache-2.0
"""What a service manager hears."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeproxy_ebpf.sd_notify import notify_ready, notify_status, notify_stopping


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """Return a service manager's socket and the environment that it gives."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(0)
        receiver.bind("\0" + path if request.param == "abstract" else path)
        yield receiver, {"NOTIFY_SOCKET": "@" + path if request.param == "abstract" else path}


def test_messages(manager: tuple[socket.socket, dict[str, str]]) -> None:
    """Each message is one datagram of assignments, one a line."""
    receiver, environment = manager
    assert notify_status("listing\nmanifests", environment)
    assert notify_ready("12 Services in effect", environment)
    assert notify_stopping(environment=environment)
    assert receiver.recv(1000) == b"STATUS=listing manifests"
    assert receiver.recv(1000) == b"READY=1\nSTATUS=12 Services in effect"
    assert receiver.recv(1000) == b"STOPPING=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}])
def test_nobody_asked(environment: dict[str, str]) -> None:
    """Without a manager nothing is sent."""
    assert not notify_ready(environment=environment)


def test_deaf_manager(tmp_path: Path) -> None:
    """A manager that is gone, or does not read, stops nothing."""
    assert not notify_ready(environment={"NOTIFY_SOCKET": str(tmp_path / "gone")})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "full"))
        told = [notify_status("x", {"NOTIFY_SOCKET": str(tmp_path / "full")}) for _ in range(100_000)]
    assert told[0]
    assert not told[-1]
