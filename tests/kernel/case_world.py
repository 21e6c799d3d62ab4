# SPDX-License-Identifier: Apache-2.0
"""Behaviour cases through real sockets of a pod and of the node, whoever has said which objects there are."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.cgroups import find_cgroup_root
from kubeproxy_ebpf.datapath.loader import Datapath
from kubeproxy_ebpf.datapath.map_sizes import MapSizes
from kubeproxy_ebpf.datapath.netns_cookie import host_netns_cookie
from kubeproxy_ebpf.datapath.trace import Tracer
from kubeproxy_ebpf.datapath.verdict_form import VerdictForm, probe_verdict_form
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.layout.layout import Layout
from kubeproxy_ebpf.map_schema import SettingsEntry
from kubeproxy_ebpf.model.address import LOCALHOST_IPV4, Address, Family, family_of, format_address, parse_address
from kubeproxy_ebpf.model.objects import Protocol
from kubeproxy_ebpf.plan.cluster import ClusterState
from kubeproxy_ebpf.plan.service_plan import Source, Verdict
from kubeproxy_ebpf.reconciler import Reconciler
from tests.behaviour import USUAL_SOURCES, Case, Flow, Step
from tests.kernel.connections import Attempt, Outcome, Place, connect_all, listen
from tests.kernel.namespaces import Namespace, join
from tests.kernel.processes import run_in, start_in

LOOPBACKS = {LOCALHOST_IPV4, parse_address("::1")}
NODE = tuple(USUAL_SOURCES[Source.NODE].values())
POD = tuple(USUAL_SOURCES[Source.POD].values())
SIZES = MapSizes(
    **dict.fromkeys(("services", "slots", "backends", "origins", "affinity", "peer_names", "service_counters"), 4096),
    **dict.fromkeys(("addresses", "frontends", "source_ranges", "service_names", "socket_origins_overflow"), 4096),
    **dict.fromkeys(("flows", "opening_flows"), 4096),
)
"""Of maps that are made as large as they may become, or are read as a whole."""


@dataclass
class World:
    """A node with one pod, and a way out that nobody answers on: a connection stays where it was sent."""

    cgroup: Path
    pin_folder: Path
    datapath: Datapath
    layout: Layout
    node: Namespace
    pod: Namespace
    netns_cookie: int
    pod_cookie: int
    tracer: Tracer
    addresses: dict[str, set[Address]]

    def namespace(self, source: Source) -> Namespace:
        """Return where connections from a source are made."""
        return self.pod if source is Source.POD else self.node

    def give(self, source: Source, address: Address) -> None:
        """Give the namespace of a source an address, if it has not got it yet."""
        namespace = self.namespace(source)
        known = self.addresses[namespace.name]
        if address in known | LOOPBACKS:
            return
        known.add(address)
        length = 32 if family_of(address) is Family.IPV4 else 128
        extra = ("nodad",) if length == 128 else ()
        device = "eth0" if source is Source.POD else "uplink"
        namespace.run("ip", "address", "add", f"{format_address(address)}/{length}", "dev", device, *extra)


@contextmanager
def case_world(bpffs: Path) -> Iterator[World]:
    """Build a node; ``bpffs`` is an empty folder to mount a BPF file system at."""
    cgroup = find_cgroup_root() / f"kubeproxy-ebpf-test-cases-{os.getpid()}"
    names = [Namespace.create(name) for name in ("node", "outside")]
    pod = Namespace.create("pod", tuple(map(format_address_of, POD)))
    cgroup.mkdir()
    subprocess.run(("mount", "-t", "bpf", "bpf", bpffs), check=True)
    try:
        node, outside = names
        _uplink(node, outside)
        join(node, pod)
        pin_folder, packets = bpffs / "pins", loader.PACKET_OBJECTS
        with (
            loader.load(
                pin_folder=pin_folder, cgroup=cgroup, sizes=SIZES, lock_timeout=0, packet_objects=packets
            ) as datapath,
            closing(Tracer(datapath.store)) as tracer,
        ):
            capacities = {name: datapath.store.capacity(name) for name in (*ArrayMap, *HashMap)}
            cookie, pod_cookie = (run_in(namespace, cgroup, host_netns_cookie) for namespace in (node, pod))
            known = {"node": set(map(parse_address, NODE)), "pod": set(map(parse_address, POD))}
            layout = Layout(capacities)
            yield World(cgroup, pin_folder, datapath, layout, node, pod, cookie, pod_cookie, tracer, known)
    finally:
        subprocess.run(("umount", "--lazy", bpffs), check=True)
        for namespace in (*names, pod):
            namespace.delete()
        cgroup.rmdir()


def format_address_of(text: str) -> str:
    """Return an address as the table writes it, as the kernel does."""
    return format_address(parse_address(text))


def _uplink(node: Namespace, outside: Namespace) -> None:
    node.sysctl("net.ipv4.ip_forward", 1)
    node.sysctl("net.ipv6.conf.all.forwarding", 1)
    node.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", str(outside.pid))
    outside.run("ip", "link", "set", "eth0", "up", "arp", "off")
    node.run("ip", "link", "set", "uplink", "up")
    for text, gateway, length in ((NODE[0], "192.0.2.1", 24), (NODE[1], "2001:db8::1", 64)):
        extra = ("nodad",) if length == 64 else ()
        node.run("ip", "address", "add", f"{text}/{length}", "dev", "uplink", *extra)
        node.run("ip", "neighbour", "add", gateway, "lladdr", "02:00:00:00:00:99", "dev", "uplink", "nud", "permanent")
        node.run("ip", "route", "add", "default", "via", gateway, "dev", "uplink")


def sync(world: World, reconciler: Reconciler) -> None:
    """Write the step, and clear away what the case before this one left."""
    reconciler.sync()
    world.datapath.store.wait_for_readers()
    reconciler.readers_are_gone()


def reconciler_of(world: World, cluster: ClusterState) -> Reconciler:
    """Return what writes a case into the world's maps."""
    return Reconciler(
        cluster=cluster,
        layout=world.layout,
        store=world.datapath.store,
        clock=lambda: 0.0,
        start_grace_period=lambda: None,
    )


def check_sockets(world: World, reconciler: Reconciler, case: Case, step: Step) -> None:
    """Check that every flow that a socket can show gets its verdict, its endpoints and its name."""
    for flow in step.flows:
        if flow.sockets:
            reconciler.apply_settings(settings_of(case, world, flow))
            check_socket(world, case, flow)


def check_socket(world: World, case: Case, flow: Flow) -> Outcome:
    """Check one flow under the settings that are in effect."""
    outcome = _try(world, flow)
    problem = judge(flow, outcome)
    assert problem is None, f"{case.id}: {flow.text}: {problem}; {outcome}"
    return outcome


def settings_of(case: Case, world: World, flow: Flow) -> SettingsEntry:
    """Return the settings of a case, on a node that sends from the flow's source."""
    sources = {family: parse_address(text) for family, text in USUAL_SOURCES[Source.NODE].items()}
    if flow.source is Source.NODE:
        sources[family_of(flow.source_address)] = flow.source_address
    return SettingsEntry(
        flags=map_schema.SETTINGS_LOCALHOST_NODE_PORTS if case.settings.has_localhost_node_ports else 0,
        service_cidrs=case.settings.service_cidrs,
        excluded_cidrs=case.settings.exclude_cidrs,
        host_netns_cookie=world.netns_cookie,
        host_source_ipv4=sources[Family.IPV4],
        host_source_ipv6=sources[Family.IPV6],
    )


def _try(world: World, flow: Flow) -> Outcome:
    """Make the flow's connections, with somebody listening where they could be refused for want of one."""
    usual = parse_address(USUAL_SOURCES[flow.source][family_of(flow.destination.address)])
    source = flow.source_address if flow.source_address != usual else None
    world.give(flow.source, flow.source_address)
    destination = flow.destination.address, flow.destination.port
    wanted = frozenset(flow.endpoints) if flow.verdict is Verdict.DNAT else frozenset({destination})
    servers = []
    if flow.destination.protocol is Protocol.TCP and flow.verdict in {Verdict.DNAT, Verdict.PASS}:
        for namespace in (world.node, world.pod):
            own = [place for place in wanted if place[0] in world.addresses[namespace.name] | LOOPBACKS]
            if own:
                servers.append(start_in(namespace, None, listen, own))
    try:
        attempt = Attempt(flow.destination.protocol, destination, source, _one_of(wanted, flow))
        return run_in(world.namespace(flow.source), world.cgroup, connect_all, [attempt])[0]
    finally:
        for server in servers:
            server.kill()


def _one_of(wanted: frozenset[Place], flow: Flow) -> frozenset[Place]:
    """With session affinity a client meets only one of the endpoints."""
    return frozenset() if flow.affinity else wanted


def judge(flow: Flow, outcome: Outcome) -> str | None:
    """Return what is wrong with an outcome."""
    match flow.verdict:
        case Verdict.DROP:
            return None if _is_dropped(outcome) else "is not dropped"
        case Verdict.REJECT:
            return None if _is_refused(outcome) else "is not refused"
        case Verdict.PASS:
            untouched = outcome.peers == {(flow.destination.address, flow.destination.port)}
            return None if untouched and not outcome.errors else "is touched"
        case Verdict.DNAT:
            return _judge_translation(flow, outcome)


def _is_dropped(outcome: Outcome) -> bool:
    expected = errno.ETIMEDOUT if probe_verdict_form() is VerdictForm.RETVAL else errno.EPERM
    return outcome.errors == {expected} and not outcome.peers


def _is_refused(outcome: Outcome) -> bool:
    """Without named errors a socket is led to a closed port of the loopback instead."""
    if outcome.errors == {errno.ECONNREFUSED} and not outcome.peers:
        return True
    led_away = not outcome.errors and {address for address, _ in outcome.peers} <= LOOPBACKS
    return led_away and probe_verdict_form() is VerdictForm.LOOPBACK


def _judge_translation(flow: Flow, outcome: Outcome) -> str | None:
    if outcome.errors:
        return "fails"
    if flow.affinity:
        return None if len(outcome.peers) == 1 and outcome.peers <= set(flow.endpoints) else "leaves its endpoint"
    if outcome.peers != set(flow.endpoints):
        return "goes elsewhere"
    shown = {(flow.destination.address, flow.destination.port)}
    return None if outcome.names <= shown else "shows another peer than was asked for"
