# SPDX-License-Identifier: Apache-2.0
"""The demo's network: a node with its pods, another machine outside with one more, wired with veth pairs and bridges.

The node and its pods are in one cgroup, which is where the agent attaches. The other machine and its pod stay out of
it: they are the world outside this node.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from demo import cgroups
from demo.processes import Pod, in_namespace
from demo.waiting import wait_until

PORT = 8080
"""Where every pod's server listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A node: its own addresses, and the networks of its pods. ``{}`` stands for an address' last part."""

    name: str
    ipv4: str
    ipv6: str
    pod_ipv4: str
    pod_ipv6: str
    pods: dict[str, int]
    """Name of a pod -> last part of its addresses."""

    def pod_addresses(self, pod: str) -> tuple[str, str]:
        """Return a pod's IPv4 and IPv6 address."""
        return self.addresses(self.pods[pod])

    def addresses(self, number: int) -> tuple[str, str]:
        """Return the IPv4 and IPv6 address in the pods' networks with a last part."""
        return self.pod_ipv4.format(number), self.pod_ipv6.format(number)


NODE = Machine(
    name="node",
    ipv4="192.0.2.10",
    ipv6="2001:db8:1::10",
    pod_ipv4="10.244.1.{}",
    pod_ipv6="fd00:10:244:1::{}",
    pods={"client-1": 11, "client-2": 12, "web-1": 21, "web-2": 22, "web-4": 24},
)
OUTSIDE = Machine(
    name="outside",
    ipv4="192.0.2.20",
    ipv6="2001:db8:1::20",
    pod_ipv4="10.244.2.{}",
    pod_ipv6="fd00:10:244:2::{}",
    pods={"web-3": 23},
)


class World:
    """The processes by name: two machines and every pod."""

    def __init__(self, cgroup: Path, node: Machine = NODE, outside: Machine = OUTSIDE) -> None:
        """Start all processes below a cgroup and wire their namespaces."""
        self._node, self._outside = node, outside
        self.node_cgroup = cgroups.make(cgroup / "node")
        self.system_cgroup = cgroups.make(self.node_cgroup / "system")
        self._outside_cgroup = cgroups.make(cgroup / "outside")
        self.processes = {
            node.name: Pod(node.name, self.system_cgroup, PORT),
            outside.name: Pod(outside.name, self._outside_cgroup, PORT),
        }
        for pod in node.pods:
            self.processes[pod] = Pod(pod, self._make_pod_cgroup(pod), PORT)
        for pod in outside.pods:
            self.processes[pod] = Pod(pod, self._outside_cgroup, PORT)
        for process in self.processes.values():
            process.wait()
        self._wire()

    def __getitem__(self, name: str) -> Pod:
        """Return a process by name."""
        return self.processes[name]

    def add_pod(self, name: str, number: int) -> tuple[str, str]:
        """Start one more pod on the node; return its IPv4 and IPv6 address, of which the last part is given."""
        pod = Pod(name, self._make_pod_cgroup(name), PORT)
        pod.wait()
        self.processes[name] = pod
        self._wire_pod(self._node, name, number)
        return self._node.addresses(number)

    def remove_pod(self, name: str) -> None:
        """End a pod of the node; its namespace and its addresses go with it."""
        self.processes.pop(name).end()
        cgroups.remove(self._pod_cgroup(name))

    def _pod_cgroup(self, pod: str) -> Path:
        return self.node_cgroup / "pods" / pod

    def _make_pod_cgroup(self, pod: str) -> Path:
        return cgroups.make(self._pod_cgroup(pod))

    def _wire(self) -> None:
        node, outside = self._node, self._outside
        uplink = f"link add uplink type veth peer name uplink netns {self[outside.name].process}"
        self._ip(node.name, uplink)
        for machine, peer in ((node, outside), (outside, node)):
            self._forward(machine.name)
            self._ip(machine.name, *_machine_links(machine), *_routes_to(peer))
            for pod, number in machine.pods.items():
                self._wire_pod(machine, pod, number)
        self._wait_for_reachability()

    def _wire_pod(self, machine: Machine, pod: str, number: int) -> None:
        device = f"pod{number}"
        self._ip(
            machine.name,
            f"link add {device} type veth peer name eth0 netns {self[pod].process}",
            f"link set {device} master pods up",
        )
        self._ip(pod, *_pod_links(machine, number))

    def _ip(self, name: str, *commands: str) -> None:
        """Run ip commands in the namespace of a process."""
        command = in_namespace(self[name].process, "ip", "-batch", "-")
        subprocess.run(command, input="\n".join(commands), text=True, check=True)

    def _forward(self, name: str) -> None:
        switches = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
        script = "".join(f"echo 1 >/proc/sys/net/{switch};" for switch in switches)
        subprocess.run(in_namespace(self[name].process, "sh", "-ec", script), check=True)

    def _wait_for_reachability(self) -> None:
        for machine in (self._node, self._outside):
            for pod in machine.pods:
                for address in machine.pod_addresses(pod):
                    for source in (self._node.name, next(iter(self._node.pods))):
                        self._wait_for_answer(source, address, pod)

    def _wait_for_answer(self, source: str, address: str, pod: str) -> None:
        def answered() -> bool:
            return pod in self[source].connect(address, PORT).answers

        wait_until(answered, f"{source} to reach {pod} at {address}")


def _machine_links(machine: Machine) -> list[str]:
    return [
        "link set lo up",
        "link add pods type bridge",
        f"address add {machine.pod_ipv4.format(1)}/24 dev pods",
        f"address add {machine.pod_ipv6.format(1)}/64 dev pods nodad",
        "link set pods up",
        f"address add {machine.ipv4}/24 dev uplink",
        f"address add {machine.ipv6}/64 dev uplink nodad",
        "link set uplink up",
    ]


def _routes_to(peer: Machine) -> list[str]:
    return [
        f"route add {peer.pod_ipv4.format(0)}/24 via {peer.ipv4}",
        f"route add {peer.pod_ipv6.format(0)}/64 via {peer.ipv6}",
    ]


def _pod_links(machine: Machine, number: int) -> list[str]:
    ipv4, ipv6 = machine.addresses(number)
    return [
        "link set lo up",
        f"address add {ipv4}/24 dev eth0",
        f"address add {ipv6}/64 dev eth0 nodad",
        "link set eth0 up",
        f"route add default via {machine.pod_ipv4.format(1)}",
        f"route add default via {machine.pod_ipv6.format(1)}",
    ]
