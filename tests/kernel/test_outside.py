# SPDX-License-Identifier: Apache-2.0
"""Clients outside the node, served by the real agent: where its programs run, and what becomes of connections."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Packet
from scapy.utils import PcapNgReader

from kubeproxy_ebpf.datapath.device_hooks import DeviceHook, detach_filter, find_filter
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.kernel_types import DeviceAttachType
from kubeproxy_ebpf.datapath.netlink import RouteSocket
from tests.kernel.agent_process import PATIENCE, AgentProcess, Manifests, endpoint_slice, node, service, wait_until
from tests.kernel.clients import outcome, stream_without_end
from tests.kernel.namespaces import Namespace, join_by
from tests.kernel.packets.packet import ends
from tests.kernel.processes import run_in
from tests.kernel.scratch import PodFactory, Starter
from tests.kernel.servers import tcp_server
from tests.kernel.state import eventually

NODE, CLIENT, POD = "192.0.2.1", "192.0.2.2", "10.1.0.5"
SECOND_NODE, SECOND_CLIENT = "198.51.100.1", "198.51.100.2"
CLUSTER_IP, NODE_PORT = "10.96.0.10", 30080
pytestmark = pytest.mark.usefixtures("client", "server")
REFUSED = "ConnectionRefusedError"


@pytest.fixture
def client(node_namespace: Namespace, make_namespace: Callable[..., Namespace]) -> Namespace:
    """Return a client outside the node."""
    outside = make_namespace("client")
    join_by(node_namespace, outside, "uplink", NODE, CLIENT)
    outside.run("ip", "route", "add", "10.96.0.0/12", "via", NODE)
    return outside


@pytest.fixture
def manifests(tmp_path: Path) -> Manifests:
    """Return a folder with this node and a Service with a NodePort and an endpoint here."""
    folder = Manifests(tmp_path)
    folder.write("node.yaml", node(NODE))
    port = {"name": "tcp", "protocol": "TCP", "port": 80, "nodePort": NODE_PORT}
    folder.write("web.yaml", service("web", CLUSTER_IP, type="NodePort", ports=[port]))
    folder.write("web-endpoints.yaml", endpoint_slice("web", [POD]))
    return folder


@pytest.fixture
def server(pod_namespace: PodFactory, scratch_cgroup: Path, background: Starter) -> Namespace:
    """Return a pod of the node with a server in it."""
    pod = pod_namespace("server", POD)
    background(pod, scratch_cgroup, tcp_server, "server", POD, 8080)
    return pod


@pytest.fixture
def agent(
    node_namespace: Namespace, scratch_cgroup: Path, bpffs: Path, manifests: Manifests, tmp_path: Path
) -> Iterator[AgentProcess]:
    """Return an agent that is not started yet; it is killed at the end, and its log shown if the test fails."""
    process = AgentProcess(node_namespace, scratch_cgroup, bpffs, manifests, tmp_path / "agent.log")
    yield process
    process.kill()
    sys.stdout.write(process.log.read_text() if process.log.exists() else "no log")


class Tunnel:
    """The other end of a device whose packets have no Ethernet header, in the namespace that it is made in."""

    def __init__(self, name: str) -> None:
        """Create it (linux/if_tun.h: TUNSETIFF, IFF_TUN, IFF_NO_PI)."""
        self._descriptor = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self._descriptor, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0001 | 0x1000))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def write(self, packet: bytes) -> None:
        """Send a packet to the node."""
        os.write(self._descriptor, packet)

    def read_from(self, source: str) -> Packet:
        """Return the next packet of the node's with this source."""
        while True:
            assert select.select([self._descriptor], [], [], PATIENCE)[0], "nothing came"
            data = os.read(self._descriptor, 65536)
            if data[0] >> 4 == 4 and IP(data).src == source:
                return IP(data)


def ask(client: Namespace, address: str = NODE, port: int = NODE_PORT) -> str:
    """Connect from outside: the server's name, or the name of the error."""
    return run_in(client, None, outcome, address, port)


def attached(host: Namespace, device: str) -> set[str]:
    """Return at which hooks of a device there is a program of TCX or a filter in our place."""
    with host.entered(), closing(RouteSocket()) as kernel:
        index = socket.if_nametoindex(device)
        found = {hook for hook in DeviceHook if find_filter(kernel, index, hook)}
        for hook, attach_type in (
            (DeviceHook.INGRESS, DeviceAttachType.TCX_INGRESS),
            (DeviceHook.EGRESS, DeviceAttachType.TCX_EGRESS),
        ):
            try:
                if syscalls.program_query(index, attach_type):
                    found.add(hook)
            except OSError:  # no TCX
                continue
    return {hook.value for hook in found}


def addresses_without_end() -> Iterator[None]:
    """Give the loopback device an address and take it away, again and again."""
    yield None
    while True:
        for verb in ("add", "delete"):
            subprocess.run(("ip", "address", verb, "127.0.0.9/32", "dev", "lo"), check=True)


CHECK = ("check", "--json")
BOTH = {"ingress", "egress"}


def test_clients_outside_are_served_by_every_frontend(agent: AgentProcess, client: Namespace) -> None:
    """By NodePort and by ClusterIP; an unknown port of the ClusterIP is refused, one of the node is the node's."""
    agent.start()
    assert ask(client) == "server"
    assert ask(client, CLUSTER_IP, 80) == "server"
    assert ask(client, CLUSTER_IP, 81) == REFUSED
    assert ask(client, NODE, NODE_PORT + 1) == REFUSED


def test_devices_to_others_run_the_programs_and_pods_do_not(agent: AgentProcess, node_namespace: Namespace) -> None:
    """Where the node's address is; not on the pod's device. `check` says so."""
    agent.start()
    findings = {finding["name"]: finding for finding in json.loads(agent.run(*CHECK, f"--bpffs={agent.bpffs}").stdout)}
    assert findings["packet_path"]["detail"] == "on uplink"
    assert attached(node_namespace, "uplink") == BOTH
    with node_namespace.entered():
        pods = [name for _, name in socket.if_nameindex() if name.startswith("pod")]
    assert [attached(node_namespace, name) for name in pods] == [set()]


def test_a_connection_outlives_agents(agent: AgentProcess, client: Namespace, background: Starter) -> None:
    """SIGKILL, a start, an end and another start: the stream goes on, and new connections come through meanwhile."""
    agent.start()
    stream = background(client, None, stream_without_end, NODE, NODE_PORT)
    assert stream.ready
    for signal_ in (signal.SIGKILL, signal.SIGTERM):
        os.kill(agent.pid, signal_)
        assert agent.process is not None
        agent.process.wait()
        assert ask(client) == "server"
        agent.start()
        assert ask(client) == "server"
    assert stream.alive
    assert stream.next()


def test_an_agent_that_is_ready_serves_although_the_network_changes(
    agent: AgentProcess, node_namespace: Namespace, background: Starter
) -> None:
    """Pods come and go on every node at any time."""
    background(node_namespace, None, addresses_without_end)
    for _ in range(3):
        agent.start()
        names = [event["event"] for event in agent.events()]
        assert names.index("packet_programs_attached") < names.index("agent_ready")
        agent.kill()


def test_connections_are_listed(agent: AgentProcess, client: Namespace, background: Starter) -> None:
    """While one stands; by address; without an agent, too."""
    agent.start()
    stream = background(client, None, stream_without_end, NODE, NODE_PORT)
    assert stream.ready
    agent.kill()

    def flows(*arguments: str) -> list[dict[str, str]]:
        shown = agent.run("dump", "flows", "--json", f"--bpffs={agent.bpffs}", *arguments)
        assert shown.returncode == 0, shown.stderr
        rows: list[dict[str, str]] = json.loads(shown.stdout)
        return rows

    (row,) = flows()
    assert row.pop("client") == row.pop("source")
    assert row == {
        "namespace": "default",
        "name": "web",
        "port": "tcp",
        "protocol": "TCP/IPv4",
        "frontend": f"{NODE}:{NODE_PORT}",
        "endpoint": f"{POD}:8080",
        "state": "established",
    }
    for address, count in ((CLIENT, 1), (NODE, 1), (POD, 1), (SECOND_NODE, 0)):
        assert len(flows(f"--address={address}")) == count


def test_a_connection_is_deleted(agent: AgentProcess, client: Namespace, background: Starter) -> None:
    """The one that was named: it is over at once, and others begin as before."""
    agent.start()
    stream = background(client, None, stream_without_end, NODE, NODE_PORT)
    assert stream.ready

    def delete(*arguments: str) -> str:
        shown = agent.run("flows", "delete", f"--bpffs={agent.bpffs}", *arguments)
        return shown.stdout or shown.stderr

    assert delete("--name=nobody") == "deleted 0\n"
    assert "say which" in delete()
    assert delete(f"--address={CLIENT}") == "deleted 1\n"
    with pytest.raises(ConnectionResetError):  # after what it had reported until then
        deque(iter(stream.next, None), maxlen=0)
    assert delete("--all") == "deleted 0\n"
    assert ask(client) == "server"


def monitored(agent: AgentProcess, cause: Callable[[], object], *arguments: str) -> dict[str, str]:
    """Return the first event that `monitor` shows while something happens again and again."""
    command = agent.command("monitor", "--json", "--count=1", f"--bpffs={agent.bpffs}", *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            cause()
        process.kill()
        shown, errors = process.communicate()
    assert shown, errors
    row: dict[str, str] = json.loads(shown)
    return row


def test_decisions_are_shown_as_they_are_taken(agent: AgentProcess, client: Namespace, tmp_path: Path) -> None:
    """About packets from outside: those that get an endpoint, as packets too; those that do not, with the reason."""
    agent.start()
    seen = monitored(agent, lambda: ask(client), "--name=web", f"--write={tmp_path / 'packets'}")
    with closing(PcapNgReader(str(tmp_path / "packets"))) as reader:
        (packet,) = reader
    assert ends(packet)[1] == (NODE, NODE_PORT), "as it came"
    assert f"{CLIENT}:{ends(packet)[0][1]}" == seen["source"]
    assert (packet[TCP].flags, packet.sniffed_on) == ("S", "uplink")
    assert (packet.comment or b"").decode().endswith(f" default/web:tcp DNAT {POD}:8080 (uplink)")
    assert seen.pop("source").startswith(f"{CLIENT}:")
    assert seen.pop("time")
    assert seen == {
        "destination": f"{NODE}:{NODE_PORT}",
        "protocol": "TCP",
        "namespace": "default",
        "name": "web",
        "port": "tcp",
        "verdict": "DNAT",
        "endpoint": f"{POD}:8080",
        "reason": "",
        "device": "uplink",
    }

    def ask_both() -> None:
        ask(client)
        ask(client, CLUSTER_IP, 81)

    refused = monitored(agent, ask_both, "--refused", f"--address={CLIENT}")
    assert (refused["destination"], refused["verdict"]) == (f"{CLUSTER_IP}:81", "REJECT")
    assert (refused["reason"], refused["name"], refused["endpoint"]) == ("unknown_port", "", "")


def test_a_device_that_comes_is_attached_and_one_that_goes_is_forgotten(
    agent: AgentProcess, client: Namespace, node_namespace: Namespace, make_namespace: Callable[..., Namespace]
) -> None:
    """As soon as it leads to others; again after it went and came back."""
    agent.start()
    other = make_namespace("other")
    for _ in range(2):
        join_by(node_namespace, other, "second", SECOND_NODE, SECOND_CLIENT)
        node_namespace.run("ip", "route", "add", "203.0.113.0/24", "via", SECOND_CLIENT)
        other.run("ip", "route", "add", "10.96.0.0/12", "via", SECOND_NODE)
        wait_until(lambda: attached(node_namespace, "second") == BOTH, "the programs on the second device")
        assert ask(other, CLUSTER_IP, 80) == "server"
        node_namespace.run("ip", "link", "delete", "second")
    assert ask(client) == "server"
    node_namespace.run("ip", "link", "delete", "uplink")
    links = agent.pin_folder / "layout_1" / "device_links"
    wait_until(lambda: not list(links.iterdir()), "the links of devices that are gone to be removed")


def test_programs_that_somebody_detached_come_back(
    agent: AgentProcess, client: Namespace, node_namespace: Namespace
) -> None:
    """Within seconds."""
    agent.start()
    links = agent.pin_folder / "layout_1" / "device_links"
    for path in links.iterdir():
        link = syscalls.open_pinned(str(path))
        syscalls.link_detach(link)
    with node_namespace.entered(), closing(RouteSocket()) as kernel:
        index = socket.if_nametoindex("uplink")
        for hook in DeviceHook:
            detach_filter(kernel, index, hook)
    agent.wait_for("packet_programs_attached_again")
    wait_until(lambda: attached(node_namespace, "uplink") == BOTH, "the programs to be back")
    assert ask(client) == "server"


def test_unload_takes_the_programs_from_the_devices(
    agent: AgentProcess, client: Namespace, node_namespace: Namespace
) -> None:
    """And nobody is served any more."""
    agent.start()
    agent.kill()
    assert attached(node_namespace, "uplink") == BOTH
    assert agent.run("unload", f"--bpffs={agent.bpffs}").returncode == 0
    assert attached(node_namespace, "uplink") == set()
    assert ask(client) == REFUSED


def test_without_the_packet_path_a_restart_removes_it(
    agent: AgentProcess, client: Namespace, node_namespace: Namespace, scratch_cgroup: Path
) -> None:
    """The node's own processes are served on."""
    agent.start()
    agent.kill()
    agent.start("--no-packet-path")
    assert eventually(lambda: attached(node_namespace, "uplink") == set())
    assert ask(client) == REFUSED
    assert run_in(node_namespace, scratch_cgroup, outcome, CLUSTER_IP, 80) == "server"


def test_devices_without_ethernet_are_served(agent: AgentProcess, node_namespace: Namespace) -> None:
    """A tunnel whose other end is played: the answer to an opening comes back from the frontend that was asked."""
    with node_namespace.entered(), Tunnel("tunnel0") as tunnel:
        node_namespace.ip(
            "link set tunnel0 up",
            f"address add {SECOND_NODE}/32 dev tunnel0",
            f"route add {SECOND_CLIENT} dev tunnel0",
            "route add 203.0.113.0/24 dev tunnel0",
        )
        agent.start()
        assert attached(node_namespace, "tunnel0") == BOTH
        tunnel.write(bytes(IP(src=SECOND_CLIENT, dst=CLUSTER_IP) / TCP(sport=40000, dport=80, flags="S", seq=7)))
        answer = tunnel.read_from(CLUSTER_IP)
        assert (answer[TCP].sport, answer[TCP].dport, str(answer[TCP].flags)) == (80, 40000, "SA")
        assert answer[TCP].ack == 8


def test_named_devices_alone_are_attached(
    agent: AgentProcess, client: Namespace, node_namespace: Namespace, make_namespace: Callable[..., Namespace]
) -> None:
    """Others are left alone; a name that no device has stops the start, and says which there are."""
    join_by(node_namespace, make_namespace("other"), "second", SECOND_NODE, SECOND_CLIENT)
    refused = agent.run(*agent.run_arguments("--devices=eth*"))
    assert refused.returncode != 0
    assert "no network device is called eth*; there are" in refused.stderr
    assert "second, uplink" in refused.stderr
    agent.start("--devices=sec*")
    assert attached(node_namespace, "second") == BOTH
    assert attached(node_namespace, "uplink") == set()
    assert ask(client) == REFUSED
