# SPDX-License-Identifier: Apache-2.0
"""The real agent on a folder of manifests, judged by real sockets, by its maps and by its system calls."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.layout.changes import ArrayMap, DeleteEntry, HashMap, Phase
from tests.kernel.agent_process import ONLY_SOCKETS, AgentProcess, Manifests, endpoint_slice, node, service, wait_until
from tests.kernel.clients import after, connect_without_end, outcome, stream_without_end
from tests.kernel.namespaces import Namespace
from tests.kernel.processes import run_in
from tests.kernel.scratch import PodFactory, Starter
from tests.kernel.servers import tcp_server
from tests.kernel.state import Listing, attached_programs, eventually, pinned_ids

NODE_ADDRESS, OTHER_NODE_ADDRESS = "10.1.0.1", "10.1.0.2"
CLIENT, FIRST, SECOND = "10.1.0.10", "10.1.0.21", "10.1.0.22"
CLUSTER_IP, OTHER_IP = "10.96.0.10", "10.96.0.11"
SERVERS = {FIRST: "first", SECOND: "second"}
MANY = 40
"""Connections after which an endpoint in use has shown: the chance that one of two has not is one in 10**12."""


@pytest.fixture
def client(
    pod_namespace: PodFactory, scratch_cgroup: Path, background: Starter, node_namespace: Namespace
) -> Namespace:
    """Return a client pod beside two server pods that say which they are."""
    for address in (NODE_ADDRESS, OTHER_NODE_ADDRESS):
        node_namespace.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    for address, name in SERVERS.items():
        background(pod_namespace(name, address), scratch_cgroup, tcp_server, name, address, 8080)
    client = pod_namespace("client", CLIENT)
    client.run("ip", "route", "add", "unreachable", "10.96.0.0/12")  # what is not translated fails at once
    return client


@pytest.fixture
def manifests(tmp_path: Path) -> Manifests:
    """Return a folder with this node and a Service with one endpoint."""
    folder = Manifests(tmp_path)
    folder.write("node.yaml", node(NODE_ADDRESS))
    folder.write("web.yaml", service("web", CLUSTER_IP))
    folder.write("web-endpoints.yaml", endpoint_slice("web", [FIRST]))
    return folder


@pytest.fixture
def agent(
    node_namespace: Namespace, scratch_cgroup: Path, bpffs: Path, manifests: Manifests, tmp_path: Path
) -> Iterator[AgentProcess]:
    """Return an agent that is not started yet; it is killed at the end, and its log shown if the test fails."""
    process = AgentProcess(
        node_namespace, scratch_cgroup, bpffs, manifests, tmp_path / "agent.log", arguments=ONLY_SOCKETS
    )
    yield process
    process.kill()
    sys.stdout.write(process.log.read_text() if process.log.exists() else "no log")


Ask = Callable[..., str]


@pytest.fixture
def ask(client: Namespace, scratch_cgroup: Path) -> Ask:
    """Return a function that connects from the client pod: the server's name, or the name of the error."""

    def ask_(address: str = CLUSTER_IP, port: int = 80) -> str:
        return run_in(client, scratch_cgroup, outcome, address, port)

    return ask_


def answers(client: Namespace, cgroup: Path, count: int = MANY) -> set[str]:
    """Return everything that came of some connections to the Service, from one process in the client pod."""

    def collect() -> set[str]:
        return {outcome(CLUSTER_IP, 80) for _ in range(count)}

    return run_in(client, cgroup, collect)


def wait_for_answers(client: Namespace, cgroup: Path, expected: set[str]) -> None:
    """Return when connections meet exactly these servers or errors."""
    wait_until(lambda: answers(client, cgroup) == expected, f"answers from {expected}")


def contents(pin_folder: Path) -> dict[str, str]:
    """Return a digest of each map that the agent writes, as it is in the kernel."""
    with loader.open_pinned(pin_folder) as store:
        digests = {array.value: hashlib.sha256(store.read(array)).hexdigest() for array in ArrayMap}
        for name in HashMap:
            entries = b"".join(key + value for key, value in sorted(store.entries(name)))
            digests[name.value] = hashlib.sha256(entries).hexdigest()
        return digests


@pytest.mark.parametrize("restarts", [False, True], ids=["cold start", "restart"])
def test_nobody_meets_a_half_read_folder(
    agent: AgentProcess,
    manifests: Manifests,
    client: Namespace,
    scratch_cgroup: Path,
    background: Starter,
    *,
    restarts: bool,
) -> None:
    """While many files are read, no Service is seen without the endpoints that are in a later one of them."""
    manifests.remove("web.yaml")
    manifests.write("a.yaml", service("web", CLUSTER_IP))  # its endpoints come last
    for number in range(300):
        name, address = f"m{number}", f"10.97.{number // 250}.{number % 250 + 1}"
        manifests.write(f"{name}.yaml", service(name, address), endpoint_slice(name, [SECOND]))
    if restarts:
        agent.start()
        agent.kill()
    connections = background(client, scratch_cgroup, connect_without_end, CLUSTER_IP, 80)
    agent.start()
    seen = after(connections, time.monotonic()).answers
    assert seen["first"]
    assert "ConnectionRefusedError" not in seen
    assert restarts == (seen.keys() == {"first"}), "a restart is not noticed; before a cold start nobody answers"


def test_node_ports_follow_the_node(agent: AgentProcess, manifests: Manifests, ask: Ask) -> None:
    """NodePorts answer on this node's address from the start, and move when the Node object says another one."""
    ports = [{"name": "tcp", "protocol": "TCP", "port": 80, "nodePort": 30080}]
    manifests.write("web.yaml", service("web", CLUSTER_IP, type="NodePort", ports=ports))
    agent.start()
    assert ask(NODE_ADDRESS, 30080) == "first"
    manifests.write("node.yaml", node(OTHER_NODE_ADDRESS))
    wait_until(lambda: ask(OTHER_NODE_ADDRESS, 30080) == "first", "the NodePort on the node's new address")
    assert ask(NODE_ADDRESS, 30080) != "first"


def test_changes_take_effect(
    agent: AgentProcess, manifests: Manifests, client: Namespace, scratch_cgroup: Path, ask: Ask
) -> None:
    """Endpoints and Services that come, move and go are what new connections meet."""
    agent.start()
    assert answers(client, scratch_cgroup) == {"first"}
    manifests.write("web-endpoints.yaml", endpoint_slice("web", [FIRST, SECOND]))
    wait_for_answers(client, scratch_cgroup, {"first", "second"})
    manifests.write("web-endpoints.yaml", endpoint_slice("web", [SECOND]))
    wait_for_answers(client, scratch_cgroup, {"second"})
    manifests.write("web-endpoints.yaml", endpoint_slice("web", []))
    wait_until(lambda: ask() == "ConnectionRefusedError", "a Service without endpoints to refuse")
    manifests.write("other.yaml", service("other", OTHER_IP), endpoint_slice("other", [FIRST]))
    wait_until(lambda: ask(OTHER_IP) == "first", "the Service that was added")
    manifests.write("other.yaml", service("other", OTHER_IP, port=81), endpoint_slice("other", [FIRST]))
    wait_until(lambda: ask(OTHER_IP, 81) == "first", "the port that was changed")
    assert ask(OTHER_IP) == "ConnectionRefusedError"
    manifests.remove("other.yaml")
    wait_until(lambda: ask(OTHER_IP, 81) not in {"first", "ConnectionRefusedError"}, "the Service that was removed")


@pytest.mark.parametrize(
    "text",
    ["kind: Service\n  metadata: {", "kind: Service\napiVersion: v1\nmetadata: {name: web}\nspec: []\n"],
    ids=["not yaml", "malformed"],
)
def test_bad_file_keeps_the_last_good_state(agent: AgentProcess, manifests: Manifests, ask: Ask, text: str) -> None:
    """A file that cannot be read costs nothing but itself, and counts again once it is mended."""
    agent.start()
    manifests.write_text("web.yaml", text)
    agent.wait_for("manifest_refused")
    assert ask() == "first"
    manifests.write("other.yaml", service("other", OTHER_IP), endpoint_slice("other", [SECOND]))
    wait_until(lambda: ask(OTHER_IP) == "second", "another file's Service")
    assert ask() == "first"
    manifests.write("web.yaml", service("web", CLUSTER_IP, port=82))
    wait_until(lambda: ask(CLUSTER_IP, 82) == "first", "the file that was mended")


def test_sigterm_leaves_the_data_plane(agent: AgentProcess, ask: Ask, scratch_cgroup: Path) -> None:
    """The agent ends by itself within two seconds, and Services work on without it.

    On an emulated machine, where it needs half a minute to start, it may take half that.
    """
    launched = time.monotonic()
    agent.start()
    limit = max(2.0, (time.monotonic() - launched) / 2)
    before = (attached_programs(scratch_cgroup), pinned_ids(agent.pin_folder), contents(agent.pin_folder))
    assert agent.process is not None
    agent.process.terminate()
    assert agent.process.wait(timeout=limit) == 0
    assert (attached_programs(scratch_cgroup), pinned_ids(agent.pin_folder), contents(agent.pin_folder)) == before
    assert ask() == "first"


def test_nobody_notices_a_killed_agent(
    agent: AgentProcess, manifests: Manifests, client: Namespace, scratch_cgroup: Path, background: Starter
) -> None:
    """Through kill -9 and restart a stream and new connections go on, and the restart changes nothing in the maps."""
    manifests.write("web-endpoints.yaml", endpoint_slice("web", [FIRST, SECOND]))
    agent.start()
    stream = background(client, scratch_cgroup, stream_without_end, CLUSTER_IP, 80)
    connections = background(client, scratch_cgroup, connect_without_end, CLUSTER_IP, 80)
    agent.kill()
    killed = time.monotonic()
    before = contents(agent.pin_folder)
    after(stream, killed)
    after(connections, killed)
    agent.start()
    restarted = time.monotonic()
    assert agent.writes() == 0
    assert contents(agent.pin_folder) == before
    assert len(after(stream, restarted).answers) == 1
    assert after(connections, restarted).answers.keys() == {"first", "second"}


def test_changes_missed_while_dead_are_made_good(agent: AgentProcess, manifests: Manifests, ask: Ask) -> None:
    """A new agent brings the maps to what the manifests say now, also what is gone from them."""
    manifests.write("other.yaml", service("other", OTHER_IP), endpoint_slice("other", [FIRST]))
    agent.start()
    assert ask(OTHER_IP) == "first"
    agent.kill()
    manifests.remove("other.yaml")
    manifests.write("web-endpoints.yaml", endpoint_slice("web", [SECOND]))
    agent.start()
    assert ask() == "second"
    assert ask(OTHER_IP) not in {"first", "second"}


def test_second_agent_is_refused_by_name(agent: AgentProcess, ask: Ask) -> None:
    """A second agent on the same pins gives up, says which process is in the way, and changes nothing."""
    agent.start()
    before = contents(agent.pin_folder)
    second = agent.run(*agent.run_arguments("--lock-timeout=200ms"))
    assert second.returncode != 0
    assert f"process {agent.pid} " in second.stderr
    assert contents(agent.pin_folder) == before
    assert agent.process is not None
    assert agent.process.poll() is None
    assert ask() == "first"


def test_endpoint_changes_make_no_bpf_system_call(
    agent: AgentProcess, manifests: Manifests, client: Namespace, scratch_cgroup: Path, ask: Ask
) -> None:
    """Endpoints come and go without bpf(2); a Service that appears needs it, which shows that it would be seen.

    In the thread that writes: another one waits for grace periods, and needs it where there is one processor.
    """
    agent.start("--audit-period=1h")  # an audit reads the keyed maps, which is another matter
    trace = manifests.path.parent / "trace"
    called = re.compile(rf"^{agent.pid} +bpf\(", re.MULTILINE)  # the ids are a column: short ones are padded
    command = ("strace", "-f", "-e", "trace=bpf", "-o", str(trace), "-p", str(agent.pid))
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: tracer_of(agent.pid) == tracer.pid, "strace to follow the agent")
        for addresses in ([FIRST, SECOND], [SECOND], [], [FIRST]):
            manifests.write("web-endpoints.yaml", endpoint_slice("web", addresses))
            expected = {SERVERS[address] for address in addresses} or {"ConnectionRefusedError"}
            wait_for_answers(client, scratch_cgroup, expected)
        assert not called.search(trace.read_text())
        manifests.write("other.yaml", service("other", OTHER_IP), endpoint_slice("other", [FIRST]))
        wait_until(lambda: ask(OTHER_IP) == "first", "the Service that was added")
        assert called.search(trace.read_text())
    finally:
        tracer.kill()
        tracer.wait()


def test_running_agent_mends_what_somebody_else_did(agent: AgentProcess, ask: Ask) -> None:
    """A frontend that is deleted and an array that is overwritten are as they were after the next audit, and again."""
    agent.start("--audit-period=1s")
    whole = contents(agent.pin_folder)
    for _ in range(2):
        with loader.open_pinned(agent.pin_folder, writable=True) as store:
            keys = [key for key, _ in store.entries(HashMap.FRONTENDS)]
            assert store.delete([DeleteEntry(Phase.WITHDRAW, HashMap.FRONTENDS, key) for key in keys]) == []
            store.write(ArrayMap.BACKENDS, 32, bytes(64))
        wait_until(lambda: contents(agent.pin_folder) == whole, "the maps to be mended")
        assert ask() == "first"


def tracer_of(pid: int) -> int:
    """Return which process traces all threads of another; 0: none, or not all of them."""
    tracers = {
        int(line.split()[1])
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("TracerPid:")
    }
    return tracers.pop() if len(tracers) == 1 else 0


def test_unload_leaves_nothing(agent: AgentProcess, ask: Ask, scratch_cgroup: Path) -> None:
    """Refused while an agent runs; afterwards no pin, no attached program and no map of it is left."""
    agent.start()
    refused = agent.run("unload", f"--bpffs={agent.bpffs}", "--lock-timeout=200ms")
    assert refused.returncode != 0
    assert f"process {agent.pid} " in refused.stderr
    assert ask() == "first"
    before = objects_of(agent.pin_folder, scratch_cgroup)
    assert all(before), before
    agent.kill()
    removed = agent.run("unload", f"--bpffs={agent.bpffs}")
    assert removed.returncode == 0, removed.stderr
    assert removed.stdout == f"removed what was in {agent.pin_folder}\n"
    assert not agent.pin_folder.exists()
    assert not attached_programs(scratch_cgroup)
    assert eventually(lambda: not any(own & now for own, now in zip(before, Listing.now(), strict=True)))
    assert ask() != "first"


def objects_of(pin_folder: Path, cgroup: Path) -> Listing:
    """Return the ids of all programs, maps and links of an agent."""
    pinned = pinned_ids(pin_folder)
    programs = {number for numbers in attached_programs(cgroup).values() for number in numbers}
    maps = {number for path, number in pinned.items() if "/maps/" in path}
    links = {number for path, number in pinned.items() if "/links/" in path}
    return Listing(frozenset(programs), frozenset(maps), frozenset(links))
