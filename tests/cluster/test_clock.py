# SPDX-License-Identifier: Apache-2.0
"""The system's clock jumps under the agent: what it does, and when, does not depend on that."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.layout.changes import DeleteEntry, HashMap, Phase
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import SECOND, undisturbed
from tests.cluster.faulty_proxy import FaultyProxy
from tests.cluster.jumping_clock import JumpingClock
from tests.kernel.agent_process import READY, AgentProcess, endpoint_slice, service
from tests.kernel.processes import Background

RIGHT = timedelta()
FAR = timedelta(days=20)
"""Before the API server's certificate was made, in one direction, and within its 30 days in the other."""


@pytest.fixture
def clock(tmp_path: Path, agent: AgentProcess) -> JumpingClock:
    """Return the clock of an agent that is not started yet, and that will audit every second."""
    clock = JumpingClock(tmp_path)
    agent.environment = clock.environment
    agent.arguments = (*agent.arguments, "--audit-period=1s")
    return clock


@pytest.mark.parametrize("jump", [FAR, -FAR], ids=["forward", "backward"])
def test_a_jump(
    jump: timedelta,
    *,
    clock: JumpingClock,
    cluster: Cluster,
    changing: Callable[[], None],
    proxy: FaultyProxy,
    agent: AgentProcess,
    traffic: Background,
    wait_for_truth: Callable[[], None],
) -> None:
    """Watches and audits go on, and connections that the wrong time broke come back with the right one."""
    assert is_wrong_by(RIGHT, agent.wait_for(READY))
    with undisturbed(traffic):
        clock.be_wrong_by(jump)
        changing()
        wait_for_truth()
        forget_names(agent.pin_folder)
        assert is_wrong_by(jump, agent.wait_for("maps_repaired"))
        proxy.reset_connections()
        assert is_wrong_by(jump, agent.wait_for("api_watch_failed"))
        clock.be_wrong_by(RIGHT)
        cluster.put(service("late", "10.96.0.56"), endpoint_slice("late", [SECOND]))
        wait_for_truth()


def is_wrong_by(jump: timedelta, event: dict) -> bool:
    """Whether the agent dated an event so much too late."""
    now = datetime.now(UTC)  # noqa: TID251 - what is tested
    return abs(datetime.fromisoformat(event["timestamp"]) - now - jump) < FAR / 2


def forget_names(pin_folder: Path) -> None:
    """Delete what an agent finds only if it looks."""
    with loader.open_pinned(pin_folder, writable=True) as store:
        keys = [key for key, _ in store.entries(HashMap.SERVICE_NAMES)]
        assert not store.delete([DeleteEntry(Phase.WRITE, HashMap.SERVICE_NAMES, key) for key in keys])
