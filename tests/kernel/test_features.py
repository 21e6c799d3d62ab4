# SPDX-License-Identifier: Apache-2.0
"""Probes say what is there, and what is missing with its remedy."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath import cgroups, features, kube_proxy, memlock
from kubeproxy_ebpf.datapath.errors import CgroupError
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.kernel_types import Helper
from kubeproxy_ebpf.datapath.loader import CONNECT_OBJECT
from tests.kernel.namespaces import Namespace
from tests.kernel.processes import run_in
from tests.kernel.state import Listing, eventually

ALWAYS_THERE = {Helper.MAP_LOOKUP_ELEM, Helper.MAP_UPDATE_ELEM, Helper.MAP_DELETE_ELEM}


def test_this_machine_has_everything(scratch_cgroup: Path, bpffs: Path, node_namespace: Namespace) -> None:
    """Where these tests run everything that is required works, and probing leaves nothing behind."""
    before, files = Listing.now(), sorted(bpffs.iterdir())

    def probe() -> tuple[features.Probe, ...]:
        return features.probe_all(pin_folder=bpffs / "kubeproxy-ebpf", cgroup=scratch_cgroup)

    probes = run_in(node_namespace, None, probe)
    assert [probe for probe in probes if probe.required and not probe.ok] == []
    assert len({probe.name for probe in probes}) == len(probes) > 20
    assert sorted(bpffs.iterdir()) == files
    assert eventually(lambda: not any(Listing.now().added_since(before)))


def test_every_helper_that_the_programs_call_is_probed() -> None:
    """The list of probed helpers is that of the object file."""
    listing = subprocess.run(("llvm-objdump", "-d", CONNECT_OBJECT), check=True, capture_output=True, text=True).stdout
    # A call with source register 0 is one of a helper; others call the programs' own functions.
    called = {int(number) for number in re.findall(r"85 00 00 00 .*\scall (\d+)$", listing, re.MULTILINE)}
    assert called - ALWAYS_THERE - {Helper.SET_RETVAL} == set(features._NEEDED_HELPERS)


@pytest.mark.parametrize(
    ("held", "missing"),
    [
        ({"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"}, set()),
        ({"CAP_SYS_ADMIN", "CAP_NET_ADMIN"}, set()),
        ({"CAP_SYS_ADMIN"}, {"cap_net_admin"}),
        ({"CAP_BPF"}, {"cap_perfmon", "cap_net_admin"}),
        (set(), {"cap_bpf", "cap_perfmon", "cap_net_admin"}),
    ],
)
def test_capabilities_are_read_from_the_process(held: set[str], missing: set[str], tmp_path: Path) -> None:
    """CAP_SYS_ADMIN stands for the two newer ones; what is missing is named with its remedy."""
    numbers = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
    status = tmp_path / "status"
    status.write_text(f"Name:\tpython\nCapEff:\t{sum(1 << numbers[name] for name in held):016x}\n")
    probes = list(features.probe_capabilities(status))
    assert {probe.name for probe in probes if not probe.ok} == missing
    assert all(probe.name.upper() in probe.remedy for probe in probes if not probe.ok)


def test_missing_btf_is_named() -> None:
    """Without the kernel's types the remedy is another kernel."""
    probe = features.probe_btf(Path("/nonexistent"))
    assert (probe.ok, probe.remedy) == (False, "run a kernel built with CONFIG_DEBUG_INFO_BTF")


def test_bpffs_must_be_there_and_writable(bpffs: Path, tmp_path: Path) -> None:
    """A plain folder is none; a read-only one is named with the command that mends it."""
    assert features.probe_bpffs(bpffs / "pins").ok
    assert "mount -t bpf" in features.probe_bpffs(tmp_path / "pins").remedy
    subprocess.run(("mount", "-o", "remount,ro", bpffs), check=True)
    probe = features.probe_bpffs(bpffs / "pins")
    assert (probe.ok, probe.remedy) == (False, f"mount -o remount,rw {bpffs}")


def test_real_cgroup_root_is_found_and_no_other(scratch_cgroup: Path, tmp_path: Path) -> None:
    """Of several mounts the one with the hierarchy's root counts; a namespace's private root does not."""
    root = cgroups.find_cgroup_root()
    assert (root / "cgroup.controllers").exists()
    line = "30 20 0:30 / {} rw,relatime shared:1 - cgroup2 cgroup2 rw\n"
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(line.format(scratch_cgroup) + line.format(root))
    assert cgroups.find_cgroup_root(mountinfo) == root
    mountinfo.write_text(line.format(scratch_cgroup))
    with pytest.raises(CgroupError, match=rf"mounted at {scratch_cgroup}.*--cgroup"):
        cgroups.find_cgroup_root(mountinfo)
    mountinfo.write_text("20 1 0:20 / /proc rw - proc proc rw\n")
    with pytest.raises(CgroupError, match=r"not mounted: mount -t cgroup2"):
        cgroups.find_cgroup_root(mountinfo)


def test_mount_point_with_a_space_is_understood(tmp_path: Path) -> None:
    """The kernel writes spaces in mountinfo as octal numbers."""
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("30 20 0:30 / /a\\040b rw - cgroup2 cgroup2 rw\n")
    with pytest.raises(CgroupError, match=r"mounted at /a b,"):
        cgroups.find_cgroup_root(mountinfo)


def test_leftovers_of_kube_proxy_are_found(node_namespace: Namespace) -> None:
    """Chains and tables of kube-proxy are named with the remedy; the kubelet's own chain is none."""
    assert run_in(node_namespace, None, kube_proxy.find_leftovers) == ()
    node_namespace.run("iptables", "-t", "nat", "-N", "KUBE-KUBELET-CANARY")
    node_namespace.run("nft", "add", "table", "ip", "somebody")
    assert run_in(node_namespace, None, kube_proxy.find_leftovers) == ()
    node_namespace.run("iptables", "-t", "nat", "-N", "KUBE-SERVICES")
    node_namespace.run("ip6tables", "-t", "nat", "-N", "KUBE-SVC-ABCDEFGH")
    node_namespace.run("nft", "add", "table", "ip6", "kube-proxy")
    found = run_in(node_namespace, None, kube_proxy.find_leftovers)
    assert [leftover.found.split(" of ")[0] for leftover in found] == [
        "1 iptables chains",
        "1 ip6tables chains",
        "the nftables table ip6 kube-proxy",
    ]
    assert all("kube-proxy --cleanup" in leftover.remedy for leftover in found)


def test_device_of_ipvs_is_a_leftover(tmp_path: Path) -> None:
    """IPVS's device is found by its name."""
    (tmp_path / "kube-ipvs0").mkdir()
    assert ["kube-ipvs0" in leftover.found for leftover in kube_proxy.find_leftovers(tmp_path)] == [True]


def test_older_kernels_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where maps count against the limit and it cannot be lifted, the remedy is the capability."""
    monkeypatch.setattr(memlock, "counts_maps", lambda: True)
    monkeypatch.setattr(memlock, "raise_limit", lambda: False)
    assert "CAP_SYS_RESOURCE" in features.probe_memlock().remedy


def test_grace_period_without_membarrier_is_by_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that refuses membarrier is no failure: the other way is tried for real."""
    monkeypatch.setattr(syscalls, "membarrier", lambda: False)
    probe = features.probe_grace_period()
    assert probe.ok
    assert "map of maps" in probe.detail
