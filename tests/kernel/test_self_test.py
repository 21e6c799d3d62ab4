# SPDX-License-Identifier: Apache-2.0
"""The self-test sees what works and what does not, and leaves the maps as they were."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath.errors import NotLoadedError
from kubeproxy_ebpf.datapath.features import Probe
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.kernel_types import AttachType
from kubeproxy_ebpf.datapath.libbpf.programs import leave, load_instructions, move_immediate
from kubeproxy_ebpf.datapath.loader import Datapath
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.datapath.self_test import self_test
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap, InsertEntry, Phase
from kubeproxy_ebpf.map_schema import pack_u32
from kubeproxy_ebpf.model.address import parse_address
from tests.kernel.conftest import Loader
from tests.kernel.namespaces import Namespace
from tests.kernel.processes import run_in

CONNECTIONS = ["self_test_tcp_ipv4", "self_test_udp_ipv4", "self_test_tcp_ipv6", "self_test_udp_ipv6"]


def contents(store: KernelMapStore) -> tuple[object, ...]:
    """Return everything that the agent writes."""
    arrays = [store.read(array) for array in ArrayMap]
    return (*arrays, *(sorted(store.entries(name)) for name in HashMap))


def passed(probes: tuple[Probe, ...]) -> dict[str, bool]:
    """Return the verdicts by name."""
    return {probe.name: probe.ok for probe in probes}


def test_every_connection_works_and_nothing_stays(
    datapath: Datapath, scratch_cgroup: Path, pin_folder: Path, node_namespace: Namespace
) -> None:
    """TCP and UDP over both families, through the real hooks; afterwards the maps are what they were."""
    before = contents(datapath.store)
    probes = run_in(node_namespace, scratch_cgroup, self_test, pin_folder)
    assert [(probe.name, probe.ok) for probe in probes] == [(name, True) for name in CONNECTIONS]
    assert all(probe.required for probe in probes)
    assert contents(datapath.store) == before


def test_process_outside_the_cgroup_is_told_so(datapath: Datapath, pin_folder: Path, node_namespace: Namespace) -> None:
    """Where no hook sees the process every connection fails, with a remedy, and nothing stays either."""
    before = contents(datapath.store)
    probes = run_in(node_namespace, None, self_test, pin_folder)
    assert passed(probes) == dict.fromkeys(CONNECTIONS, False)
    assert all("cgroup" in probe.remedy for probe in probes)
    assert contents(datapath.store) == before


def test_programs_that_do_nothing_are_found_out(
    load: Loader, scratch_cgroup: Path, pin_folder: Path, node_namespace: Namespace
) -> None:
    """Hooks that are attached but translate nothing do not pass."""
    load()
    probes = run_in(node_namespace, scratch_cgroup, self_test, pin_folder)
    assert passed(probes) == dict.fromkeys(CONNECTIONS, False)


def test_program_that_undoes_ours_is_found_out(
    datapath: Datapath, scratch_cgroup: Path, pin_folder: Path, node_namespace: Namespace
) -> None:
    """Somebody else's program that refuses connections makes that family's TCP and UDP fail."""
    cgroup = os.open(scratch_cgroup, os.O_RDONLY)
    program = load_instructions(AttachType.CONNECT4, "spoilsport", (move_immediate(0, 0), leave()))
    link = syscalls.link_create(program, cgroup, AttachType.CONNECT4)
    probes = run_in(node_namespace, scratch_cgroup, self_test, pin_folder)
    assert passed(probes) == {name: "ipv6" in name for name in CONNECTIONS}
    assert datapath.store.capacity(HashMap.FRONTENDS)
    for fd in (link, program, cgroup):
        os.close(fd)


def test_addresses_of_services_are_not_borrowed(
    datapath: Datapath, scratch_cgroup: Path, pin_folder: Path, node_namespace: Namespace
) -> None:
    """Documentation addresses that Services have all the same stay theirs."""
    taken = [parse_address(f"198.51.100.{number}") for number in range(1, 255) if number % 8]
    entries = [InsertEntry(Phase.ANNOUNCE, HashMap.ADDRESSES, address, pack_u32(2)) for address in taken[:60]]
    assert datapath.store.insert(entries) == []
    before = contents(datapath.store)
    probes = run_in(node_namespace, scratch_cgroup, self_test, pin_folder)
    assert all(passed(probes).values())
    assert contents(datapath.store) == before


def test_full_map_is_a_failure_with_its_name(
    datapath: Datapath, scratch_cgroup: Path, pin_folder: Path, node_namespace: Namespace
) -> None:
    """When nothing fits in any more, that is what it says."""
    size = datapath.store.capacity(HashMap.FRONTENDS)
    entries = [InsertEntry(Phase.EXPOSE, HashMap.FRONTENDS, bytes([i]) * 20, bytes(4)) for i in range(size)]
    assert datapath.store.insert(entries) == []
    before = contents(datapath.store)
    probes = run_in(node_namespace, scratch_cgroup, self_test, pin_folder)
    assert not any(passed(probes).values())
    assert "frontends is full" in probes[0].detail
    assert contents(datapath.store) == before


def test_nothing_to_test_where_nothing_is_loaded(bpffs: Path) -> None:
    """Without hooks there is no self-test, and the message says how to get them."""
    with pytest.raises(NotLoadedError, match="kubeproxy-ebpf run"):
        self_test(bpffs / "kubeproxy-ebpf")


def test_node_without_ipv6_is_no_failure(
    datapath: Datapath, scratch_cgroup: Path, pin_folder: Path, node_namespace: Namespace
) -> None:
    """A family that the node does not have is not tried, and says so."""
    assert datapath.store
    node_namespace.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    probes = run_in(node_namespace, scratch_cgroup, self_test, pin_folder)
    assert all(passed(probes).values())
    assert [probe.required for probe in probes] == [True, True, False, False]
    assert "not tried" in probes[2].detail
