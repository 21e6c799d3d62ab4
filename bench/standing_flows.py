# SPDX-License-Identifier: Apache-2.0
"""Connections that stand, in the tables of loaded packet programs: made by their packets, and by hand from these."""

from __future__ import annotations

from bench import world
from bench.frames import FAMILIES, segment
from kubeproxy_ebpf.datapath import batches
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.pins import PinFolder, close_all
from kubeproxy_ebpf.model.address import parse_address

_TUPLE = slice(0, 36)
"""Both addresses and both ports: at the same place in a key of ``flows`` and in what becomes of its packets."""
_OTHERS = slice(36, None)
_WAYS = 2


def make_standing(pins: PinFolder) -> None:
    """Let the first Service have a connection over IPv4, and one over IPv6 that nobody has opened.

    What a program makes of their packets is a packet of yet another connection, which it turns into the first one
    again: so that one packet can be run any number of times.

    Raises:
        world.WorldError: the programs do not let the connection stand.
    """
    programs, maps = pins.open_programs(), pins.open_maps()
    try:
        _open(programs)
        found = dict(batches.read(maps["flows"], syscalls.map_info(maps["flows"])))
        if len(found) != _WAYS:
            msg = f"{len(found)} entries in the table of flows after a handshake, {_WAYS} expected"
            raise world.WorldError(msg)
        for key, value in found.items():
            there = (key, value)
            back = (value[_TUPLE] + key[_OTHERS], key[_TUPLE] + value[_OTHERS])
            for entry in (back, _in_ipv6(there), _in_ipv6(back)):
                syscalls.map_update(maps["flows"], *entry)
    finally:
        close_all((*programs.values(), *maps.values()))


def _open(programs: dict[str, int]) -> None:
    ipv4 = FAMILIES[0]
    handshake = (
        ("ingress", segment(ipv4.client, ipv4.frontend, "S")),
        ("egress", segment(ipv4.endpoint, ipv4.client, "SA")),
        ("ingress", segment(ipv4.client, ipv4.frontend, "A")),
    )
    for hook, packet in handshake:
        syscalls.program_test_run(programs[f"forward_{hook}"], packet)


def _in_ipv6(entry: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    key, value = entry
    ipv4, ipv6 = FAMILIES
    for old, new in ((ipv4.client, ipv6.client), (ipv4.frontend, ipv6.frontend), (ipv4.endpoint, ipv6.endpoint)):
        before, after = parse_address(old[0]), parse_address(new[0])
        key, value = key.replace(before, after), value.replace(before, after)
    return key, value
