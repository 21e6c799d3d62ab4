# SPDX-License-Identifier: Apache-2.0
"""The real agent with an API server as its source, judged by its maps."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api_server import NODES, SERVICES, SLICES, ApiServer
from tests.kernel.agent_process import ONLY_SOCKETS, AgentProcess, Manifests, endpoint_slice, node, service, wait_until
from tests.kernel.namespaces import Namespace
from tests.kernel.test_agent import contents

NODE_ADDRESS = "10.1.0.1"


@pytest.fixture
def server(node_namespace: Namespace) -> Iterator[ApiServer]:
    """Return an API server on the node, with the Node and a Service."""
    node_namespace.run("ip", "address", "add", f"{NODE_ADDRESS}/32", "dev", "lo")
    with ApiServer(enter=node_namespace.enter) as server:
        server.put(NODES, node(NODE_ADDRESS), "node")
        server.put(SERVICES, service("web", "10.96.0.10"), "web")
        server.put(SLICES, endpoint_slice("web", ["10.1.0.21"]), "web-endpoints")
        yield server


@pytest.fixture
def agent(
    server: ApiServer, node_namespace: Namespace, scratch_cgroup: Path, bpffs: Path, tmp_path: Path
) -> Iterator[AgentProcess]:
    """Return an agent on the API server that is not started yet."""
    log, kubeconfig = tmp_path / "agent.log", server.kubeconfig(tmp_path)
    process = AgentProcess(node_namespace, scratch_cgroup, bpffs, kubeconfig, log, arguments=ONLY_SOCKETS)
    yield process
    process.kill()
    sys.stdout.write(log.read_text() if log.exists() else "no log")


def test_a_restart_writes_nothing(agent: AgentProcess) -> None:
    """What an agent before it wrote is what the server says."""
    agent.start()
    assert agent.writes() > 0
    before = contents(agent.pin_folder)
    agent.kill()
    agent.start()
    assert agent.writes() == 0
    assert contents(agent.pin_folder) == before


def test_sigterm_ends_it_at_once(agent: AgentProcess) -> None:
    """Whatever still waits for the server is left behind."""
    launched = time.monotonic()
    agent.start()
    limit = max(2.0, (time.monotonic() - launched) / 2)  # as in test_agent
    assert agent.process is not None
    agent.process.terminate()
    assert agent.process.wait(timeout=limit) == 0


def test_nothing_is_written_before_the_node_is_known(agent: AgentProcess, server: ApiServer) -> None:
    """Without it nobody knows where NodePorts answer and which endpoints are near."""
    server.delete(NODES, "node")
    agent.launch()
    wait_until(lambda: server.watches(SERVICES) and server.watches(SLICES) and server.watches(NODES), "all watches")
    server.put(NODES, node(), "node")  # it has no address yet
    wait_until(lambda: server.watches(NODES), "the Node to be watched")
    assert not any(event["event"] == "agent_ready" for event in agent.events())
    server.put(NODES, node(NODE_ADDRESS), "node")
    agent.wait_for("agent_ready")


def test_both_sources_write_the_same(agent: AgentProcess, bpffs: Path, tmp_path: Path) -> None:
    """The same objects in files and from the server lead to the same maps."""
    agent.start()
    from_server = contents(agent.pin_folder)
    agent.kill()
    assert agent.run("unload", f"--bpffs={bpffs}").returncode == 0
    agent.source = manifests = Manifests(tmp_path)
    for name, raw in (
        ("node", node(NODE_ADDRESS)),
        ("web", service("web", "10.96.0.10")),
        ("web-endpoints", endpoint_slice("web", ["10.1.0.21"])),
    ):
        manifests.write(f"{name}.yaml", raw)
    agent.start()
    assert contents(agent.pin_folder) == from_server
