# SPDX-License-Identifier: Apache-2.0
"""A server that lives, and acknowledges all that it gets, but says nothing: then the maps are those of a cold start."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.conftest import CONTROL_ADDRESS, PROXY_PORT, undisturbed
from tests.cluster.faulty_proxy import FaultyProxy
from tests.cluster.spoiling import WATCH, Fault
from tests.kernel.agent_process import AgentProcess
from tests.kernel.namespaces import Namespace
from tests.kernel.processes import Background
from tests.kernel.scratch import Starter

IMPATIENT_AGENT = Path(__file__).with_name("impatient_agent.py")
PATIENCE_SECONDS = 3
"""Of the agent, in place of 90: bookmarks come once a minute, so that it gives up watches in which all is well, too."""
NO_STREAMING = Fault(where="sendInitialEvents", status=422, reason="Invalid")
GONE = Fault(where="resourceVersion=[0-9]", status=410, reason="Expired")
SILENCE = {
    "everything": [Fault(is_silent=True)],
    "watches": [Fault(where=WATCH, is_silent=True)],
    "lists": [NO_STREAMING, Fault(where="limit=", is_silent=True), GONE],
}

Truth = Callable[[], None]


@pytest.fixture
def agent(agent: AgentProcess) -> AgentProcess:
    """Return an agent that is not started yet, and that has little patience."""
    agent.program = (str(IMPATIENT_AGENT), str(PATIENCE_SECONDS))
    return agent


@pytest.mark.parametrize("faults", SILENCE.values(), ids=SILENCE)
@pytest.mark.parametrize("is_reset", [False, True], ids=["under way", "anew"])
def test_no_word(
    faults: list[Fault],
    *,
    changing: Callable[[], None],
    proxy: FaultyProxy,
    traffic: Background,
    wait_for_truth: Truth,
    is_reset: bool,
) -> None:
    """Requests are taken, and never answered; watches that there were go on, and nothing comes."""
    with undisturbed(traffic):
        with proxy.faults(*faults):
            if is_reset:
                proxy.reset_connections()
            changing()
            proxy.wait_for_victims(8)
        wait_for_truth()


def test_nobody_at_home(
    *,
    changing: Callable[[], None],
    proxy: FaultyProxy,
    control_namespace: Namespace,
    traffic: Background,
    background: Starter,
    wait_for_truth: Truth,
) -> None:
    """Connections are taken, and what comes is acknowledged, but not even TLS begins."""
    with undisturbed(traffic):
        with proxy.closed():
            mute = background(control_namespace, None, say_nothing, CONTROL_ADDRESS, PROXY_PORT)
            changing()
            while mute.next() < 8:
                pass
            mute.kill()
        wait_for_truth()


def say_nothing(address: str, port: int) -> Iterator[int]:
    """Take every connection, and keep it; yield how many there were."""
    with ExitStack() as kept, socket.create_server((address, port)) as server:
        yield 0
        for number in range(1, 1_000_000):
            connection, _ = server.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT
            kept.enter_context(connection)
            yield number
