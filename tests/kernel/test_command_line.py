# SPDX-License-Identifier: Apache-2.0
"""The verbs that look at a node and clean it up, as an operator runs them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.agent_process import AgentProcess, Manifests, endpoint_slice, node, service
from tests.kernel.namespaces import Namespace
from tests.kernel.processes import run_in
from tests.kernel.scratch import PodFactory, Starter
from tests.kernel.servers import tcp_server

NODE_ADDRESS, POD, CLIENT, CLUSTER_IP = "192.0.2.1", "10.244.0.5", "10.244.0.9", "10.96.0.10"


@pytest.fixture
def agent(node_namespace: Namespace, scratch_cgroup: Path, bpffs: Path, tmp_path: Path) -> Iterator[AgentProcess]:
    """Return an agent that is not started yet, for one Service with affinity and a NodePort."""
    node_namespace.run("ip", "address", "add", f"{NODE_ADDRESS}/32", "dev", "lo")
    manifests = Manifests(tmp_path)
    ports = [{"name": "tcp", "port": 80, "nodePort": 30080}]
    web = service("web", CLUSTER_IP, type="NodePort", sessionAffinity="ClientIP", ports=ports)
    manifests.write("all.yaml", node(NODE_ADDRESS), web, endpoint_slice("web", [POD]), service("dns", "10.96.0.53"))
    process = AgentProcess(node_namespace, scratch_cgroup, bpffs, manifests, tmp_path / "agent.log")
    yield process
    process.kill()


def data(agent: AgentProcess, *arguments: str) -> Any:
    """Run a verb that succeeds, and return its JSON: standard output has nothing else."""
    result = agent.run(*arguments, "--json", f"--bpffs={agent.bpffs}")
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout)


def connect(address: str, port: int) -> None:
    """Connect, and wait for the greeting."""
    with socket.create_connection((address, port), timeout=5) as connection:
        assert connection.recv(100)


def check_all(agent: AgentProcess) -> dict[str, Any]:
    """Run check, in which nothing that is required may fail; return the findings by name."""
    return {found["name"]: found for found in data(agent, "check", f"--cgroup={agent.cgroup}")}


def test_check_before_and_beside_the_agent(agent: AgentProcess) -> None:
    """Check makes connections through the hooks: its own for a moment, or the agent's."""
    assert check_all(agent)["self_test_tcp_ipv4"]["ok"]
    assert not agent.pin_folder.exists()
    agent.start()
    findings = check_all(agent)
    assert findings["self_test_udp_ipv6"]["ok"]
    assert findings["hooks"]["detail"] == f"all attached to {agent.cgroup}"


def test_check_fails_where_no_bpffs_is(agent: AgentProcess, tmp_path: Path) -> None:
    """What is missing is named with its remedy, and the exit code says so."""
    result = agent.run("check", f"--bpffs={tmp_path}", f"--cgroup={agent.cgroup}")
    assert result.returncode == 1
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("bpffs "))
    assert "failed" in line
    assert "mount -t bpf" in line


def test_dump_with_and_without_an_agent(
    agent: AgentProcess, pod_namespace: PodFactory, background: Starter, scratch_cgroup: Path
) -> None:
    """What the kernel holds is the same to see after the agent was killed, and what was counted goes on."""
    background(pod_namespace("server", POD), scratch_cgroup, tcp_server, "server", POD, 8080)
    client = pod_namespace("client", CLIENT)
    agent.start()
    run_in(client, scratch_cgroup, connect, CLUSTER_IP, 80)
    before = {what: data(agent, "dump", what) for what in ("services", "frontends", "backends", "sets")}
    agent.kill()
    assert before == {what: data(agent, "dump", what) for what in before}
    assert [(row["name"], row["cluster_ip"], row["endpoints"]) for row in before["services"]] == [
        ("dns", "10.96.0.53:80", 0),
        ("web", f"{CLUSTER_IP}:80", 1),
    ]
    web = [row["address"] for row in before["frontends"] if row["name"] == "web"]
    assert web == [f"{CLUSTER_IP}:80", f"{NODE_ADDRESS}:30080"]
    (backend,) = before["backends"]
    assert (backend["endpoint"], backend["on_this_node"], backend["in_cluster_set"]) == (f"{POD}:8080", True, True)
    (record,) = data(agent, "dump", "affinity")
    assert (record["endpoint"], record["in_effect"]) == (f"{POD}:8080", True)
    run_in(client, scratch_cgroup, connect, CLUSTER_IP, 80)
    assert data(agent, "dump", "counters")["services"] == [
        {"namespace": "default", "name": "web", "port": "tcp", "protocol": "TCP/IPv4", "connections": 2, "refused": 0}
    ]


def test_trace_with_and_without_an_agent(
    agent: AgentProcess, pod_namespace: PodFactory, background: Starter, scratch_cgroup: Path
) -> None:
    """Every frontend of a Service from every kind of source, without an agent too, and where affinity keeps a pod."""
    background(pod_namespace("server", POD), scratch_cgroup, tcp_server, "server", POD, 8080)
    client = pod_namespace("client", CLIENT)
    agent.start()
    rows = data(agent, "trace", "default/web")
    agent.kill()
    assert rows == data(agent, "trace", "default/web")
    assert [(row["source"], row["destination"], row["verdict"], row["hooks"]) for row in rows] == [
        (source, f"{address}/TCP", "DNAT", hooks)
        for source, hooks in (("pod", ["connect4"]), ("node", ["connect4"]), ("outside", ["forward_ingress"]))
        for address in (f"{CLUSTER_IP}:80", f"{NODE_ADDRESS}:30080")
    ]
    assert {(row["service"], row["affinity_seconds"], row["affinity_endpoint"]) for row in rows} == {
        ("default/web:tcp", 10800, "")
    }
    assert rows[0]["because"] == "internalTrafficPolicy Cluster: endpoints that are ready"
    assert rows[0]["endpoints"] == [{"endpoint": f"{POD}:8080", "on_this_node": True, "masquerade": False}]
    run_in(client, scratch_cgroup, connect, CLUSTER_IP, 80)
    (record,) = data(agent, "dump", "affinity")
    netns = record["client"].removeprefix("netns ")
    (row,) = data(agent, "trace", "--from=pod", f"--netns={netns}", f"{CLUSTER_IP}:80/tcp")
    assert row["affinity_endpoint"] == f"{POD}:8080"


def test_trace_as_a_table(agent: AgentProcess) -> None:
    """One line a connection, and beside it what is not at work."""
    agent.start("--no-packet-path")
    result = agent.run("trace", "default/dns", f"--bpffs={agent.bpffs}", "--from=pod", "--from=outside")
    assert result.returncode == 0, result.stderr
    lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in result.stdout.splitlines()]
    assert lines[1] == [
        *("pod", "10.96.0.53:80/TCP", "ClusterIP", "default/dns:tcp"),
        *("REJECT", "no endpoint is usable anywhere", "connect4"),
    ]
    assert lines[2][0] == "outside"
    assert lines[2][-1] == "none"
    assert len(lines) == 3
    assert result.stderr.startswith("hook none: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("default/nothing",), "error: the Service default/nothing is not in the kernel's maps"),
        (("10.96.0.10",), "error: '10.96.0.10' cannot be traced: give an address"),
        (("--from=mars", "default/web"), "error: --from is 'mars': give pod, node or outside"),
        (("--from=pod=fd00::1", f"{CLUSTER_IP}:80/TCP"), "error: --from is pod=fd00::1, an IPv6 address"),
        (("--netns=-1", "default/web"), "Usage: "),
        (("--netns=18446744073709551616", "default/web"), "Usage: "),
        ((), "Usage: "),
    ],
)
def test_trace_says_what_it_cannot(agent: AgentProcess, arguments: tuple[str, ...], message: str) -> None:
    """What makes no question is one message with its remedy."""
    agent.start()
    result = agent.run("trace", *arguments, f"--bpffs={agent.bpffs}")
    assert result.returncode != 0
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [("dump", "services"), ("trace", "default/web")])
def test_where_nothing_is_loaded(agent: AgentProcess, arguments: tuple[str, ...]) -> None:
    """Nothing to show is one message with its remedy."""
    result = agent.run(*arguments, f"--bpffs={agent.bpffs}")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: nothing is loaded in {agent.pin_folder}: start the agent")
