# SPDX-License-Identifier: Apache-2.0
"""Whatever an API server, or what is in front of it, answers for a while: then the maps are those of a cold start.

Meanwhile connections to a Service that nobody changes meet its endpoint, every one of them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.cluster import event
from tests.cluster.conftest import undisturbed
from tests.cluster.faulty_proxy import FaultyProxy
from tests.cluster.spoiling import WATCH, Fault
from tests.kernel.agent_process import AgentProcess
from tests.kernel.processes import Background

STATUS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "so says the proxy"}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "default", "uid": "1", "resourceVersion": "1"},
}
OF_REFLECTORS = f"/(services|endpointslices|servicecidrs).*{WATCH}"

ANSWERS = {
    "401": Fault(status=401, reason="Unauthorized"),
    "403": Fault(status=403, reason="Forbidden"),
    "404": Fault(status=404, reason="NotFound"),
    "410": Fault(status=410, reason="Expired"),
    "429": Fault(status=429, reason="TooManyRequests", retry_after=1),
    "500": Fault(status=500, reason="InternalError"),
    "503": Fault(status=503, reason="ServiceUnavailable"),
    "a login page": Fault(answer="<html>Who are you?</html>"),
    "a Status that is no failure": Fault(answer='{"kind":"Status","apiVersion":"v1","status":"Success"}'),
    "the half of it": Fault(is_cut=True),
    "resets": Fault(is_reset=True),
}
"""What every request is answered with, after all connections were reset."""

STREAMS = {
    "the half of an event": Fault(where=WATCH, is_cut=True),
    "ERROR 410": Fault(where=OF_REFLECTORS, event=event("ERROR", STATUS | {"code": 410, "reason": "Expired"})),
    "ERROR 500": Fault(where=OF_REFLECTORS, event=event("ERROR", STATUS | {"code": 500, "reason": "InternalError"})),
    "no JSON": Fault(where=OF_REFLECTORS, event='{"type": "MODI'),
    "another kind": Fault(where=OF_REFLECTORS, event=event("ADDED", POD)),
    "no metadata": Fault(where=OF_REFLECTORS, event=event("MODIFIED", {"apiVersion": "v1", "kind": "Service"})),
    "a type that nobody knows": Fault(where=OF_REFLECTORS, event=event("RENAMED", POD)),
}
"""What comes in watches that are under way, and first in every new one."""


@pytest.mark.parametrize("fault", ANSWERS.values(), ids=ANSWERS)
def test_answers(
    fault: Fault,
    changing: Callable[[], None],
    proxy: FaultyProxy,
    traffic: Background,
    wait_for_truth: Callable[[], None],
) -> None:
    """What is answered while the agent has to connect and to list again."""
    with undisturbed(traffic):
        with proxy.faults(fault):
            proxy.reset_connections()
            proxy.wait_for_victims(4)
            changing()
            proxy.wait_for_victims(8)
        wait_for_truth()


@pytest.mark.parametrize("fault", STREAMS.values(), ids=STREAMS)
def test_streams(
    fault: Fault,
    changing: Callable[[], None],
    proxy: FaultyProxy,
    traffic: Background,
    wait_for_truth: Callable[[], None],
) -> None:
    """What comes in the middle of a watch."""
    with undisturbed(traffic):
        with proxy.faults(fault):
            changing()
            proxy.wait_for_victims(4)
        wait_for_truth()


def test_nobody_there(
    changing: Callable[[], None],
    proxy: FaultyProxy,
    agent: AgentProcess,
    traffic: Background,
    wait_for_truth: Callable[[], None],
) -> None:
    """The port is closed."""
    with undisturbed(traffic):
        with proxy.closed():
            changing()
            agent.wait_for("api_watch_failed")
        wait_for_truth()


def test_slowness(
    changing: Callable[[], None], proxy: FaultyProxy, traffic: Background, wait_for_truth: Callable[[], None]
) -> None:
    """Everything takes its time, and comes to the truth all the same."""
    with undisturbed(traffic), proxy.faults(Fault(seconds_a_piece=0.1)):
        proxy.reset_connections()
        changing()
        wait_for_truth()
