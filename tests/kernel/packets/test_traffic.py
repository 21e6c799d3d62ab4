# SPDX-License-Identifier: Apache-2.0
"""Real connections from outside through the packet programs, the stack's routes, and real devices' offloads."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pytest
from scapy.layers.inet import fragment

from kubeproxy_ebpf.datapath.device_hooks import DeviceHook, attach_filter, attach_link, detach_filter
from kubeproxy_ebpf.datapath.netlink import RouteSocket
from tests.kernel.namespaces import Namespace
from tests.kernel.packets.conftest import Forward
from tests.kernel.packets.packet import IP, Ether, udp
from tests.kernel.processes import run_in
from tests.kernel.programs.service_maps import EXTERNAL_IP, NODE_PORT, TCP, UDP
from tests.kernel.scratch import PodFactory, Starter
from tests.kernel.servers import tcp_ask, tcp_server, udp_ask, udp_server
from tests.kernel.transfers import digest_of, exchange

NODE, CLIENT = {4: "192.0.2.1", 6: "2001:db8::1"}, {4: "192.0.2.2", 6: "2001:db8::2"}
NODE_THERE, OTHER_NODE = {4: "198.51.100.1", 6: "2001:db8:1::1"}, {4: "198.51.100.2", 6: "2001:db8:1::2"}
EXTERNAL = {4: "203.0.113.10", 6: "2001:db8:2::10"}
POD_HERE, POD_THERE = {4: "10.1.0.5", 6: "fd00:1::5"}, {4: "10.2.0.5", 6: "fd00:2::5"}
ETHERNET_HEADER, UDP_HEADER = 14, 8
SOL_PACKET, PACKET_VNET_HDR = 263, 15
"""linux/socket.h, linux/if_packet.h."""
UPLINK_MAC = "02:00:00:00:00:fe"
PATIENCE = 10
"""Seconds for an answer."""
families = pytest.mark.parametrize("family", [4, 6])


@dataclass
class World:
    """A node between a client outside and another node."""

    forward: Forward
    node: Namespace
    client: Namespace
    other: Namespace

    @property
    def pod_device(self) -> str:
        """The node's end of the pod's link."""
        with self.node.entered():
            return next(name for _, name in socket.if_nameindex() if name.startswith("pod"))


def link(node: Namespace, device: str, there: Namespace, here: dict[int, str], theirs: dict[int, str]) -> None:
    """Join the node to somebody."""
    node.ip(
        f"link add {device} type veth peer name eth0 netns {there.pid}",
        f"address add {here[4]}/24 dev {device}",
        f"address add {here[6]}/64 dev {device} nodad",
        f"link set {device} up",
    )
    there.ip(
        f"address add {theirs[4]}/24 dev eth0",
        f"address add {theirs[6]}/64 dev eth0 nodad",
        "link set eth0 up",
        f"route add default via {here[4]}",
        f"route add default via {here[6]}",
    )


@pytest.fixture
def neighbours(
    node_namespace: Namespace, make_namespace: Callable[..., Namespace], pod_namespace: PodFactory, background: Starter
) -> tuple[Namespace, Namespace]:
    """Return a client and another node, each at a device of its own; servers run there and in a pod of this node."""
    client, other = make_namespace("client"), make_namespace("other")
    link(node_namespace, "uplink", client, NODE, CLIENT)
    link(node_namespace, "backbone", other, NODE_THERE, OTHER_NODE)
    for family in (4, 6):
        node_namespace.run("ip", "route", "add", POD_THERE[family], "via", OTHER_NODE[family])
        other.run("ip", "address", "add", POD_THERE[family], "dev", "lo")
    for namespace, addresses in ((pod_namespace("pod", *POD_HERE.values()), POD_HERE), (other, POD_THERE)):
        for family in (4, 6):
            background(namespace, None, tcp_server, "pod", addresses[family], 8080)
            background(namespace, None, udp_server, "pod", addresses[family], 5353)
    return client, other


@pytest.fixture
def attached_by() -> str:
    """Return the way in which programs get to the devices: the best that the kernel has."""
    return "TCX, else a filter"


@pytest.fixture
def world(
    forward: Forward, attached_by: str, node_namespace: Namespace, neighbours: tuple[Namespace, Namespace]
) -> Iterator[World]:
    """Attach the programs to the devices that lead to others."""
    client, other = neighbours
    with ExitStack() as stack:
        with node_namespace.entered():
            kernel = stack.enter_context(closing(RouteSocket()))
            for device, sources in (("uplink", NODE), ("backbone", NODE_THERE)):
                index = socket.if_nametoindex(device)
                forward.device(sources[4], sources[6], index)
                for hook in DeviceHook:
                    attach(stack, kernel, attached_by, index, hook=hook, program=forward.program(hook))
        yield World(forward, node_namespace, client, other)


def attach(stack: ExitStack, kernel: RouteSocket, way: str, index: int, *, hook: DeviceHook, program: int) -> None:
    """Attach a program to a device."""
    link = attach_link(index, hook, program) if way.startswith("TCX") else None
    if link is not None:
        stack.callback(os.close, link)
    elif way == "TCX":
        pytest.skip("kernel: no TCX")
    else:
        attach_filter(kernel, index, hook, program, "kubeproxy-ebpf")


def serve(world: World, family: int, *, elsewhere: bool) -> None:
    """Give a NodePort and an externalIP an endpoint."""
    address = (POD_THERE if elsewhere else POD_HERE)[family]
    for protocol, port in ((TCP, 8080), (UDP, 5353)):
        endpoint = (address, port)
        service = world.forward.maps.service([endpoint], elsewhere=[endpoint] if elsewhere else [])
        world.forward.maps.frontend(service, NODE[family], 30080, protocol, NODE_PORT)
        world.forward.maps.frontend(service, EXTERNAL[family], 80, protocol, EXTERNAL_IP)


@families
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
@pytest.mark.parametrize("ask", [tcp_ask, udp_ask], ids=["TCP", "UDP"])
def test_clients_outside_reach_endpoints(
    world: World, family: int, ask: Callable[..., str], *, elsewhere: bool
) -> None:
    """By NodePort and by externalIP; an endpoint here sees the client, one elsewhere this node."""
    serve(world, family, elsewhere=elsewhere)
    for frontend in ((NODE[family], 30080), (EXTERNAL[family], 80)):
        name, source, *_ = run_in(world.client, None, ask, *frontend, PATIENCE).split()
        assert name == "pod"
        assert source == (NODE_THERE if elsewhere else CLIENT)[family]


@pytest.mark.parametrize("attached_by", ["TCX", "a filter"])
def test_ways_to_attach(world: World) -> None:
    """Both serve; a filter takes the place of its predecessor, and is gone when it is deleted."""
    serve(world, 4, elsewhere=True)
    assert run_in(world.client, None, tcp_ask, NODE[4], 30080, PATIENCE).split()[1] == NODE_THERE[4]
    with world.node.entered(), closing(RouteSocket()) as kernel:
        index = socket.if_nametoindex("uplink")
        for _ in range(2):
            attach_filter(
                kernel, index, DeviceHook.INGRESS, world.forward.program(DeviceHook.INGRESS), "kubeproxy-ebpf"
            )
        shown = world.node.run("tc", "filter", "show", "dev", "uplink", "ingress")
        assert shown.count("direct-action") == 1
        assert "kubeproxy-ebpf direct-action" in shown
        assert detach_filter(kernel, index, DeviceHook.INGRESS)
        assert not detach_filter(kernel, index, DeviceHook.INGRESS)
        assert "direct-action" not in world.node.run("tc", "filter", "show", "dev", "uplink", "ingress")


@families
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
@pytest.mark.parametrize("offloads", ["on", "off"])
def test_large_transfers(world: World, family: int, offloads: str, *, elsewhere: bool) -> None:
    """Nothing of ten megabytes is lost or spoilt, whoever computes checksums and cuts segments."""
    for namespace, device in ((world.node, "uplink"), (world.node, "backbone"), (world.client, "eth0")):
        namespace.run("ethtool", "-K", device, "tx", offloads, "rx", offloads, "tso", offloads, "gro", offloads)
    serve(world, family, elsewhere=elsewhere)
    size = 10_000_000
    assert run_in(world.client, None, exchange, NODE[family], 30080, size) == digest_of(size)


@families
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_a_narrow_link_behind_the_node(world: World, family: int, *, elsewhere: bool) -> None:
    """The client learns how large its packets may be, from errors about packets that it did not send."""
    # By the route: a device that is narrower than its peer drops what the peer sends.
    way = ("via", OTHER_NODE[family]) if elsewhere else ("dev", world.pod_device)
    pod = (POD_THERE if elsewhere else POD_HERE)[family]
    world.node.run("ip", "route", "change", pod, *way, "mtu", "lock", "1280")
    world.client.run("ethtool", "-K", "eth0", "tso", "off", "gso", "off")
    serve(world, family, elsewhere=elsewhere)
    size = 1_000_000
    assert run_in(world.client, None, exchange, EXTERNAL[family], 80, size) == digest_of(size)
    assert "mtu 1280" in world.client.run("ip", "route", "get", EXTERNAL[family])


def refusal(address: str, port: int) -> str:
    """Return the name of the error that a datagram gets."""
    try:
        udp_ask(address, port, PATIENCE)
    except OSError as error:
        return type(error).__name__
    return "an answer"


@families
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_a_closed_port_of_an_endpoint_is_heard_of(world: World, family: int, *, elsewhere: bool) -> None:
    """The endpoint's kernel refuses a datagram, and the client's socket gets that refusal."""
    endpoint = ((POD_THERE if elsewhere else POD_HERE)[family], 9)
    service = world.forward.maps.service([endpoint], elsewhere=[endpoint] if elsewhere else [])
    world.forward.maps.frontend(service, EXTERNAL[family], 80, UDP, EXTERNAL_IP)
    assert run_in(world.client, None, refusal, EXTERNAL[family], 80) == "ConnectionRefusedError"


def ask_in_raw_pieces(size: int) -> str:
    """Send a datagram in fragments of which next to nothing is in the packets' first part; return the answer.

    With a virtio header, a packet socket takes that many bytes only for the first part, if there is more than a page.
    """
    source, port = CLIENT[4], 40000
    header = struct.pack("=BBHHHH", 0, 0, ETHERNET_HEADER, 0, 0, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((source, port))
        client.settimeout(PATIENCE)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            raw.bind(("eth0", 0))
            whole = IP(bytes(udp((source, port), (NODE[4], 30080), bytes(size))[IP]))
            for piece in fragment(whole, (UDP_HEADER + size) // 2):  # type: ignore[no-untyped-call]
                frame = bytes(Ether(src=raw.getsockname()[4], dst=UPLINK_MAC, type=0x0800) / piece)
                assert len(frame) > os.sysconf("SC_PAGE_SIZE")
                raw.send(header + frame)
        return client.recv(65536).decode()


def test_fragments_whose_headers_are_elsewhere(world: World) -> None:
    """As drivers hand them over who leave to others what they have no need to read themselves."""
    world.node.ip("link set uplink mtu 9000", f"link set uplink address {UPLINK_MAC}")
    world.client.ip("link set eth0 mtu 9000")
    serve(world, 4, elsewhere=False)
    assert run_in(world.client, None, ask_in_raw_pieces, 12_000 - UDP_HEADER) == f"pod {CLIENT[4]} 40000"
