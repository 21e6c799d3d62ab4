# SPDX-License-Identifier: Apache-2.0
"""The API server goes away and comes back, and so does the agent: then the maps are those of a cold start.

Connections to a Service that nobody changes meet its endpoint all the while. KUBEPROXY_EBPF_OUTAGE_SECONDS=600 makes
the long outage as long as the promise says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import FIRST, NODE_ADDRESS, OTHER_NODE_ADDRESS, SECOND, undisturbed
from tests.cluster.faulty_proxy import FaultyProxy
from tests.cluster.maps import contents
from tests.cluster.spoiling import CONTINUE, Fault
from tests.kernel.agent_process import READY, AgentProcess, endpoint_slice, node, service, wait_until
from tests.kernel.clients import after, outcome
from tests.kernel.namespaces import Namespace
from tests.kernel.processes import Background, run_in
from tools.kubernetes.control_plane import ControlPlane

OUTAGE_SECONDS = float(os.environ.get("KUBEPROXY_EBPF_OUTAGE_SECONDS", "10"))
RESUMED_SECONDS = 10.0
"""Within which changes must be seen when the server is back. What is promised is a second; this is no benchmark."""
KEPT_MEGABYTES = 4.0
"""What an outage may add to the agent's memory."""
MANY = 500
"""Services, with an EndpointSlice each."""
MORTAL_AGENT = Path(__file__).with_name("mortal_agent.py")
A_FEW = 4
"""Services that change between two agents."""
FEWEST_DEATHS = 5
"""Agents that must have died before one outlives its first sync; else it has hardly any steps to die at."""

Truth = Callable[[], None]


def many() -> list[dict]:
    """Return Services with an endpoint each."""
    return [
        one
        for number in range(MANY)
        for one in (
            service(f"m{number}", f"10.97.{number // 250}.{number % 250 + 1}"),
            endpoint_slice(f"m{number}", [SECOND]),
        )
    ]


def served(agent: AgentProcess) -> set[str]:
    """Return the names of the Services in the agent's maps."""
    return {row.name for row in contents(agent.pin_folder)["services"]}


def test_everything_is_deleted_during_an_outage(
    cluster: Cluster, proxy: FaultyProxy, agent: AgentProcess, traffic: Background, wait_for_truth: Truth
) -> None:
    """A thousand objects go, etcd forgets that, and the API server is killed: nobody can say what the agent missed."""
    cluster.put_many(many())
    wait_until(lambda: len(served(agent)) > MANY, "all Services to be served")
    with undisturbed(traffic):
        with proxy.closed():
            agent.wait_for("api_watch_failed")
            cluster.clear(but=("control", "this-node"))
            cluster.plane.api_server.kill()
            cluster.plane.etcd.compact()
            cluster.plane.start_api_server()
        wait_until(lambda: len(served(agent)) < MANY, "what was deleted to go")
        wait_for_truth()


def test_a_list_expires_before_its_end(
    cluster: Cluster, proxy: FaultyProxy, agent: AgentProcess, traffic: Background, wait_for_truth: Truth
) -> None:
    """Lists come in parts, as from servers that cannot stream them, and the second part is always gone."""
    no_streaming = Fault(where="sendInitialEvents", status=422, reason="Invalid")
    expired = Fault(where=CONTINUE, status=410, reason="Expired")
    cluster.put_many(many())
    wait_until(lambda: len(served(agent)) > MANY, "all Services to be served")
    with undisturbed(traffic):
        with proxy.faults(no_streaming, expired, Fault(where="resourceVersion=[0-9]", status=410, reason="Expired")):
            proxy.reset_connections()
            cluster.remove(*many()[:2])
            proxy.wait_for_victims(12)
        wait_for_truth()


def test_api_server_is_killed(
    changing: Callable[[], None], plane: ControlPlane, agent: AgentProcess, traffic: Background, wait_for_truth: Truth
) -> None:
    """What changes when it is back is seen."""
    with undisturbed(traffic):
        plane.api_server.kill()
        agent.wait_for("api_watch_failed")
        plane.start_api_server()
        changing()
        wait_for_truth()


@pytest.mark.timeout(OUTAGE_SECONDS + 120)
def test_a_long_outage(
    cluster: Cluster, plane: ControlPlane, agent: AgentProcess, traffic: Background, client: Namespace
) -> None:
    """Services are served, memory does not grow, and changes are seen soon after the server is back."""
    cluster.put_many(many())
    wait_until(lambda: len(served(agent)) > MANY, "all Services to be served")
    new = service("new", "10.96.0.50"), endpoint_slice("new", [SECOND])
    with undisturbed(traffic):
        plane.api_server.kill()
        agent.wait_for("api_watch_failed")
        before, end = megabytes(agent), time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < end:
            assert after(traffic, time.monotonic()).answers.keys() == {"first"}
        assert megabytes(agent) < before + KEPT_MEGABYTES
        plane.start_api_server()
        cluster.put(*new)
        back = time.monotonic()
        wait_until(lambda: run_in(client, agent.cgroup, outcome, "10.96.0.50", 80) == "second", "the new Service")
        assert time.monotonic() - back < RESUMED_SECONDS


def megabytes(agent: AgentProcess) -> float:
    """Return the proportional set size of the agent."""
    text = Path(f"/proc/{agent.pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Pss:"))


def test_the_way_there_is_dead(
    changing: Callable[[], None],
    control_namespace: Namespace,
    agent: AgentProcess,
    traffic: Background,
    wait_for_truth: Truth,
) -> None:
    """No answer comes to anything, and nobody says so."""
    route = control_namespace.run("ip", "route", "show", NODE_ADDRESS).split()
    with undisturbed(traffic):
        control_namespace.run("ip", "route", "replace", "blackhole", f"{NODE_ADDRESS}/32")
        changing()
        agent.wait_for("api_watch_failed")
        control_namespace.run("ip", "route", "del", "blackhole", f"{NODE_ADDRESS}/32")
        control_namespace.run("ip", "route", "replace", *route)
        wait_for_truth()


def test_another_api_server_takes_over(
    changing: Callable[[], None],
    plane: ControlPlane,
    proxy: FaultyProxy,
    agent: AgentProcess,
    wait_for_truth: Truth,
) -> None:
    """Of several servers one is enough."""
    agent.start(f"--api-servers={proxy.url},{plane.server}")
    with proxy.closed():
        changing()
        wait_for_truth()
        assert agent.wait_for("api_server_changed")["server"] == plane.server


def test_operator_dies(
    cluster: Cluster, proxy: FaultyProxy, agent: AgentProcess, traffic: Background, wait_for_truth: Truth
) -> None:
    """What ends kopf's operator does not end the agent: another one tells it of the Node."""
    agent.host.run("ip", "address", "add", f"{OTHER_NODE_ADDRESS}/32", "dev", "lo")
    with undisturbed(traffic):
        with proxy.faults(Fault(where="/nodes.*watch", event='{"type": "MODI')):
            agent.wait_for("operator_ended")
        cluster.put(service("port", "10.96.0.55", type="NodePort"), node(OTHER_NODE_ADDRESS))
        wait_for_truth()
    rows = contents(agent.pin_folder)["frontends"]
    assert {row.address.split(":")[0] for row in rows if row.kind == "NodePort"} == {OTHER_NODE_ADDRESS}


def test_agent_is_killed_at_any_moment(
    cluster: Cluster, agent: AgentProcess, traffic: Background, wait_for_truth: Truth
) -> None:
    """Each agent dies a few steps later than the one before it, until one of them has not so many to take."""
    deaths, step, next_step = 0, 0, 1
    with undisturbed(traffic):
        agent.kill()
        while True:
            replace_some(cluster, deaths)
            agent.program = (str(MORTAL_AGENT), str(step))
            agent.launch()
            if not agent.dies_before(READY):
                break
            deaths += 1
            step, next_step = next_step, step + next_step
        wait_for_truth()
    assert deaths > FEWEST_DEATHS


def replace_some(cluster: Cluster, number: int) -> None:
    """Give some Services other addresses and endpoints than last time."""
    for which in range(A_FEW):
        name, address = f"s{which}", f"10.96.{number + 1}.{which + 1}"
        endpoints = [FIRST, SECOND][: 1 + (number + which) % 2]
        if number:
            cluster.remove(service(name, address))
        cluster.put(service(name, address), endpoint_slice(name, endpoints))
