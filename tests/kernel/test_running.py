# SPDX-License-Identifier: Apache-2.0
"""What ``check`` says of the data plane: loaded or not, undone by others, attached elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from kubeproxy_ebpf.datapath.features import Probe
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.kernel_types import AttachType
from kubeproxy_ebpf.datapath.libbpf.programs import leave, load_instructions, move_immediate
from kubeproxy_ebpf.datapath.loader import Datapath
from kubeproxy_ebpf.datapath.running import probe_running
from tests.kernel.namespaces import Namespace
from tests.kernel.processes import run_in
from tests.kernel.state import attached_programs


def probe(namespace: Namespace, cgroup: Path, pin_folder: Path) -> dict[str, Probe]:
    """Probe as a process of the node."""
    probes = run_in(namespace, cgroup, lambda: probe_running(pin_folder=pin_folder, cgroup=cgroup))
    return {answer.name: answer for answer in probes}


def test_data_plane_that_works(
    datapath: Datapath, node_namespace: Namespace, scratch_cgroup: Path, pin_folder: Path
) -> None:
    """Attached everywhere, alone, and each connection arrives; nobody asked for packet programs."""
    probes = probe(node_namespace, scratch_cgroup, pin_folder)
    assert datapath.store
    assert len(probes) == 7
    assert [name for name, answer in probes.items() if not answer.ok] == ["packet_path"]
    assert not probes["packet_path"].required
    assert probes["packet_path"].detail.startswith("its programs are not loaded")


def test_a_node_that_does_not_forward_is_told_so(
    datapath: Datapath, node_namespace: Namespace, scratch_cgroup: Path, pin_folder: Path
) -> None:
    """By family, with what to set."""
    assert datapath.store
    node_namespace.sysctl("net.ipv6.conf.all.forwarding", 0)
    found = probe(node_namespace, scratch_cgroup, pin_folder)["forwarding"]
    assert (found.ok, found.required) == (False, False)
    assert found.detail.startswith("net.ipv6.conf.all.forwarding: 0")
    assert found.remedy == "sysctl -w net.ipv6.conf.all.forwarding=1"


def test_nothing_loaded_is_tried_out_and_taken_away(
    node_namespace: Namespace, scratch_cgroup: Path, bpffs: Path, pin_folder: Path
) -> None:
    """Before the first start the programs are tried all the same, and nothing stays."""
    files = sorted(bpffs.iterdir())
    probes = probe(node_namespace, scratch_cgroup, pin_folder)
    assert all(answer.ok for answer in probes.values())
    assert probes["data_plane"].detail.startswith("nothing is loaded")
    assert "self_test_tcp_ipv4" in probes
    assert attached_programs(scratch_cgroup) == {}
    assert sorted(bpffs.iterdir()) == files


def test_program_with_the_last_word_is_named(
    datapath: Datapath, node_namespace: Namespace, scratch_cgroup: Path, pin_folder: Path
) -> None:
    """Somebody who attached after us is named; that alone is no failure."""
    assert datapath.store
    cgroup = os.open(scratch_cgroup, os.O_RDONLY)
    program = load_instructions(AttachType.SENDMSG6, "latecomer", (move_immediate(0, 1), leave()))
    link = syscalls.link_create(program, cgroup, AttachType.SENDMSG6)
    probes = probe(node_namespace, scratch_cgroup, pin_folder)
    assert "latecomer" in probes["hooks_sendmsg6"].detail
    assert not probes["hooks_sendmsg6"].ok
    assert not probes["hooks_sendmsg6"].required
    for fd in (link, program, cgroup):
        os.close(fd)


def test_hooks_at_another_cgroup_are_found_out(
    datapath: Datapath, node_namespace: Namespace, make_cgroup: Callable[[], Path], pin_folder: Path
) -> None:
    """Pinned is not attached where it matters."""
    assert datapath.store
    elsewhere = make_cgroup()
    probes = probe(node_namespace, elsewhere, pin_folder)
    assert not probes["hooks"].ok
    assert str(elsewhere) in probes["hooks"].detail
    assert not probes["self_test_tcp_ipv4"].ok


def test_wrong_cgroup_is_one_answer(
    node_namespace: Namespace, scratch_cgroup: Path, pin_folder: Path, tmp_path: Path
) -> None:
    """What cannot be asked is an answer too."""
    probes = run_in(node_namespace, scratch_cgroup, lambda: probe_running(pin_folder=pin_folder, cgroup=tmp_path))
    assert [answer.ok for answer in probes] == [False]
    assert "cgroup v2" in probes[0].detail
