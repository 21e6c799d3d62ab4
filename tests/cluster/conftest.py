# SPDX-License-Identifier: Apache-2.0
"""What cluster tests stand on: one real API server for all of them, and a node of each test's own in front of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.faulty_proxy import FaultyProxy
from tests.cluster.maps import contents, differences
from tests.kernel.agent_process import AgentProcess, Manifests, endpoint_slice, node, service, wait_until
from tests.kernel.clients import after, connect_without_end
from tests.kernel.namespaces import Namespace, join
from tests.kernel.processes import Background
from tests.kernel.scratch import PodFactory, Starter
from tests.kernel.servers import tcp_server
from tools.kubernetes.build import find
from tools.kubernetes.control_plane import ControlPlane, Settings, control_plane
from tools.kubernetes.credentials import NODE_PROXIER

CLUSTER_TESTS = Path(__file__).parent
CONTROL_ADDRESS, PROXY_PORT = "172.31.0.1", 7443
NODE_ADDRESS, OTHER_NODE_ADDRESS, CLIENT = "10.1.0.1", "10.1.0.2", "10.1.0.10"
FIRST, SECOND = "10.1.0.21", "10.1.0.22"
SERVERS = {FIRST: "first", SECOND: "second"}
CONTROL_IP = "10.96.0.20"
"""The ClusterIP of a Service that no fault may touch."""
SMALL_MAPS = ",".join(
    f"{name}=8192"
    for name in (
        "addresses",
        "frontends",
        "services",
        "slots",
        "backends",
        "origins",
        "service_names",
        "affinity",
        "peer_names",
        "socket_origins_overflow",
        "service_counters",
    )
)
"""Enough for a thousand Services, and read a dozen times as fast as the usual ones."""

AgentFactory = Callable[[Path | Manifests], AgentProcess]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder as a cluster test."""
    for item in items:
        if item.path.is_relative_to(CLUSTER_TESTS):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def control_namespace() -> Iterator[Namespace]:
    """Return the namespace that the control plane is in; nodes are joined to it."""
    namespace = Namespace.create("control")
    namespace.run("ip", "address", "add", f"{CONTROL_ADDRESS}/32", "dev", "lo")
    namespace.sysctl("net.ipv4.ip_forward", 1)
    yield namespace
    namespace.delete()


@pytest.fixture(scope="session")
def plane(control_namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Return a control plane that runs, and that writes down every request."""
    settings = Settings(
        programs=find(),
        folder=tmp_path_factory.mktemp("control-plane"),
        namespace=Path(f"/proc/{control_namespace.pid}/ns/net"),
        address=CONTROL_ADDRESS,
        is_audited=True,
    )
    with control_plane(settings) as plane:
        yield plane


@pytest.fixture
def cluster(plane: ControlPlane) -> Iterator[Cluster]:
    """Return the objects in the API server: this test's Node, the control Service with one endpoint, and no others."""
    with closing(Cluster(plane)) as cluster:
        cluster.clear()
        cluster.put(node(NODE_ADDRESS), service("control", CONTROL_IP), endpoint_slice("control", [FIRST]))
        yield cluster
        cluster.clear()


@pytest.fixture
def node_namespace(control_namespace: Namespace, make_namespace: Callable[..., Namespace]) -> Namespace:
    """Return the node's host namespace, from which the API server can be reached."""
    namespace: Namespace = make_namespace("node", NODE_ADDRESS)
    namespace.sysctl("net.ipv4.ip_forward", 1)
    join(control_namespace, namespace)
    return namespace


@pytest.fixture
def make_agent(
    node_namespace: Namespace,
    make_cgroup: Callable[[], Path],
    make_bpffs: Callable[[], Path],
    tmp_path: Path,
) -> Iterator[AgentFactory]:
    """Make agents that are not started yet, on a kubeconfig or on manifests; each has a cgroup and maps of its own."""
    made: list[AgentProcess] = []

    def make(source: Path | Manifests) -> AgentProcess:
        log = tmp_path / f"agent-{len(made)}.log"
        made.append(
            AgentProcess(
                node_namespace, make_cgroup(), make_bpffs(), source, log, arguments=(f"--map-sizes={SMALL_MAPS}",)
            )
        )
        return made[-1]

    yield make
    for agent in made:
        agent.kill()
        sys.stdout.write(agent.log.read_text() if agent.log.exists() else "no log\n")


@pytest.fixture
def proxy(plane: ControlPlane, control_namespace: Namespace) -> Iterator[FaultyProxy]:
    """Return a proxy in front of the API server that can be told to spoil things."""
    proxy = FaultyProxy.start(plane, control_namespace, PROXY_PORT)
    yield proxy
    proxy.stop()


@pytest.fixture
def agent(cluster: Cluster, proxy: FaultyProxy, make_agent: AgentFactory) -> AgentProcess:
    """Return an agent behind the proxy, with the rights of kube-proxy and no others, that is not started yet."""
    return make_agent(cluster.plane.kubeconfig(NODE_PROXIER, server=proxy.url))


@pytest.fixture
def client(pod_namespace: PodFactory, agent: AgentProcess, background: Starter) -> Namespace:
    """Return a client pod beside two server pods that say which they are."""
    for address, name in SERVERS.items():
        background(pod_namespace(name, address), agent.cgroup, tcp_server, name, address, 8080)
    client = pod_namespace("client", CLIENT)
    client.run("ip", "route", "add", "unreachable", "10.96.0.0/12")  # what is not translated fails at once
    return client


@pytest.fixture
def traffic(agent: AgentProcess, client: Namespace, background: Starter) -> Background:
    """Start the agent, and connections to the control Service that never end."""
    agent.start()
    return background(client, agent.cgroup, connect_without_end, CONTROL_IP, 80)


@pytest.fixture
def wait_for_truth(agent: AgentProcess, plane: ControlPlane, make_agent: AgentFactory) -> Callable[[], None]:
    """Return a function that waits until the agent's maps say what those of a cold start say."""

    def wait() -> None:
        cold = make_agent(plane.kubeconfig(NODE_PROXIER))
        cold.start()
        expected = contents(cold.pin_folder)
        cold.kill()
        try:
            wait_until(lambda: contents(agent.pin_folder) == expected, "the maps of a cold start")
        except AssertionError:
            pytest.fail("\n".join(differences(contents(agent.pin_folder), expected)))

    return wait


@pytest.fixture
def changing(cluster: Cluster) -> Callable[[], None]:
    """Fill the cluster; return a function that changes what there is in every way."""
    old, new = service("again", "10.96.0.53"), service("again", "10.96.0.54")
    goes = service("goes", "10.96.0.51"), endpoint_slice("goes", [FIRST])
    moves = service("moves", "10.96.0.52"), endpoint_slice("moves", [FIRST])
    cluster.put(*goes, *moves, old, endpoint_slice("again", [FIRST]))

    def change() -> None:
        cluster.remove(*goes, old)
        cluster.put(
            new, service("new", "10.96.0.50"), endpoint_slice("new", [SECOND]), endpoint_slice("moves", [SECOND])
        )

    return change


@contextmanager
def undisturbed(traffic: Background) -> Iterator[None]:
    """Check that the control Service is served from now until the block ends."""
    yield
    assert after(traffic, time.monotonic()).answers.keys() == {"first"}
