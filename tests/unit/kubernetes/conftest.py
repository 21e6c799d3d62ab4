# SPDX-License-Identifier: Apache-2.0
"""A server with some Services, and a reflector that is about to begin."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeproxy_ebpf.kubernetes import reflector, retry
from kubeproxy_ebpf.kubernetes.kinds import SERVICES
from tests import api_server
from tests.api_server import ApiServer
from tests.unit.kubernetes.following import CHUNK, COUNT, Following, service

SILENCE = 0.3
"""Seconds."""


@pytest.fixture(autouse=True)
def restored_kopf_log() -> Iterator[None]:
    """Undo what the operator did to kopf's log."""
    logger = logging.getLogger("kopf")
    propagates, handlers = logger.propagate, logger.handlers[:]
    yield
    logger.propagate, logger.handlers[:] = propagates, handlers


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Return a server with some Services, whose lists come in small parts; it is not spared when it is unwell."""
    monkeypatch.setattr(reflector, "CHUNK", CHUNK)
    for name in ("FIRST_DELAY", "LONGEST_DELAY_UNREACHABLE", "LONGEST_DELAY_ANSWERED"):
        monkeypatch.setattr(retry, name, 0.02)
    with ApiServer() as server:
        for number in range(COUNT):
            server.put(api_server.SERVICES, service(f"s{number}"), f"uid-{number}")
        yield server


@pytest.fixture
def following(server: ApiServer, tmp_path: Path) -> Following:
    """Return a reflector of Services that is about to begin."""
    return Following(server.kubeconfig(tmp_path), SERVICES, SILENCE)
