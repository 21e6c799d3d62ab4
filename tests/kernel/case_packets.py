# SPDX-License-Identifier: Apache-2.0
"""Behaviour cases from outside: what the packet programs make of a client's first packet, from port after port."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

from kubeproxy_ebpf.datapath.device_attachments import program_name
from kubeproxy_ebpf.datapath.device_hooks import DeviceHook
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.pins import PinFolder, close_all
from kubeproxy_ebpf.map_schema import pack_device, pack_device_key
from kubeproxy_ebpf.model.address import Family, format_address, parse_address
from kubeproxy_ebpf.model.objects import Protocol
from kubeproxy_ebpf.plan.service_plan import Source, Verdict
from tests.behaviour import USUAL_SOURCES, Flow
from tests.kernel.case_world import World
from tests.kernel.connections import Place
from tests.kernel.packets.packet import UNSPEC, Endpoint, Packet, ends, parsed, tcp, udp, with_right_checksums

MASQUERADED = 0x1000
"""The mark of packets that get an address of this node on their way out."""
DEVICE = 1
"""The device by which packets of a test's own seem to come in: loopback."""
MOST_PACKETS = 400
"""After which every endpoint of a case has been picked: it has a few."""
REFUSING_PORT = 0
_ports = count()


class PacketOutcome(NamedTuple):
    """What became of packets."""

    endpoints: set[Place]
    masqueraded: set[Place]
    """Those endpoints for which a packet was marked."""
    refused: int
    dropped: int
    passed: int


def send(world: World, flow: Flow) -> PacketOutcome:
    """Send a flow's first packet until all of its endpoints have been picked."""
    programs = PinFolder(world.pin_folder).open_programs()
    try:
        _name_device(world)
        program = programs[program_name(DeviceHook.INGRESS, has_ethernet=True)]
        return _send(program, flow, wanted=set() if flow.affinity else set(flow.endpoints))
    finally:
        close_all(programs.values())


def _name_device(world: World) -> None:
    """Give the device that packets come in by the node's addresses: refusals are answered from there."""
    own = USUAL_SOURCES[Source.NODE]
    sources = pack_device(*(parse_address(own[family]) for family in (Family.IPV4, Family.IPV6)))
    syscalls.map_update(world.datapath.store.descriptor("devices"), pack_device_key(DEVICE), sources)


def _send(program: int, flow: Flow, *, wanted: set[Place]) -> PacketOutcome:
    outcome = PacketOutcome(set(), set(), 0, 0, 0)
    for sent, packet in enumerate(_packets(flow), 1):
        run = syscalls.program_test_run(program, bytes(packet))
        if run.action != UNSPEC:
            outcome = outcome._replace(dropped=outcome.dropped + 1)
        elif run.packet == bytes(packet):
            outcome = outcome._replace(passed=outcome.passed + 1)
        else:
            assert outcome.endpoints or run.packet == with_right_checksums(run.packet), flow.text
            host, port = ends(parsed(run.packet))[1]
            if port == REFUSING_PORT:
                outcome = outcome._replace(refused=outcome.refused + 1)
            else:
                place = parse_address(host), port
                outcome.endpoints.add(place)
                outcome.masqueraded.update({place} if run.mark & MASQUERADED else ())
        if sent >= MOST_PACKETS or (sent >= len(wanted) + 2 and wanted <= outcome.endpoints):
            return outcome
    raise AssertionError


def _packets(flow: Flow) -> Iterator[Packet]:
    """Yield the first packets of connections from ports that no case before has used."""
    make = tcp if flow.destination.protocol is Protocol.TCP else udp
    destination: Endpoint = (format_address(flow.destination.address), flow.destination.port)
    for number in _ports:
        yield make((format_address(flow.source_address), 1024 + number % 64000), destination)


def judge_packets(flow: Flow, outcome: PacketOutcome) -> str | None:
    """Return what is wrong with an outcome."""
    kinds = {Verdict.REJECT: outcome.refused, Verdict.DROP: outcome.dropped, Verdict.PASS: outcome.passed}
    others = sum(number for verdict, number in kinds.items() if verdict is not flow.verdict)
    if others:
        return f"meets another verdict {others} times"
    if flow.verdict is not Verdict.DNAT:
        return "is translated" if outcome.endpoints else None
    if flow.affinity:
        kept = len(outcome.endpoints) == 1 and outcome.endpoints <= set(flow.endpoints)
        return None if kept else "leaves its endpoint"
    return None if outcome.endpoints == set(flow.endpoints) else "goes elsewhere"
