# SPDX-License-Identifier: Apache-2.0
"""What this machine can do and this process may do, found by trying: for ``kubeproxy-ebpf check``.

Kernels of distributions carry features of later versions, so version numbers say nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kubeproxy_ebpf.datapath import memlock
from kubeproxy_ebpf.datapath.cgroups import find_cgroup_root, open_cgroup
from kubeproxy_ebpf.datapath.errors import DatapathError
from kubeproxy_ebpf.datapath.grace_period import GracePeriod
from kubeproxy_ebpf.datapath.kube_proxy import find_leftovers, missing_tools
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.errors import KernelError
from kubeproxy_ebpf.datapath.libbpf.kernel_types import AttachType, Helper, MapType, ProgramType
from kubeproxy_ebpf.datapath.libbpf.programs import (
    has_helper,
    has_map_type,
    leave,
    load_instructions,
    move_immediate,
)
from kubeproxy_ebpf.datapath.pins import PinFolder
from kubeproxy_ebpf.datapath.verdict_form import VerdictForm, probe_verdict_form

DEFAULT_PIN_FOLDER = Path("/sys/fs/bpf/kubeproxy-ebpf")
KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")

_NEEDED_HELPERS = (
    Helper.GET_PRANDOM_U32,
    Helper.GET_CURRENT_COMM,
    Helper.GET_SOCKET_COOKIE,
    Helper.SPIN_LOCK,
    Helper.SPIN_UNLOCK,
    Helper.SK_STORAGE_GET,
    Helper.PROBE_READ_KERNEL,
    Helper.GET_NETNS_COOKIE,
    Helper.KTIME_GET_BOOT_NS,
    Helper.RINGBUF_RESERVE,
    Helper.RINGBUF_SUBMIT,
)
_NEEDED_MAPS = (MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE, MapType.SK_STORAGE, MapType.RINGBUF)
_NEWER_KERNEL = "run a kernel of 5.10 or newer, built with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF"

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24, "CAP_PERFMON": 38, "CAP_BPF": 39}
"""Numbers of capability.h: bits of the effective set in /proc/self/status."""


class Probe(NamedTuple):
    """One answer. ``required``: the agent cannot run without it; otherwise ``detail`` says what is different."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    required: bool = True


_KERNEL_NOT_TRIED = Probe(
    "kernel",
    ok=False,
    detail="hooks, helpers and maps are not tried while a capability is missing",
    remedy="add the capability",
    required=False,
)


def probe_all(*, pin_folder: Path = DEFAULT_PIN_FOLDER, cgroup: Path | None = None) -> tuple[Probe, ...]:
    """Try everything that the agent needs or would like. Changes nothing that outlives the call."""
    capabilities = tuple(probe_capabilities())
    # Without a capability the kernel refuses what it knows very well.
    may_try = all(probe.ok for probe in capabilities)
    return (
        *capabilities,
        probe_btf(),
        probe_cgroup(cgroup),
        probe_bpffs(pin_folder),
        *(probe_kernel() if may_try else (_KERNEL_NOT_TRIED,)),
        probe_grace_period(),
        probe_memlock(),
        *probe_leftovers(),
    )


def probe_kernel() -> Iterator[Probe]:
    """Try what programs and maps need of the kernel."""
    yield from probe_hooks()
    yield from probe_helpers()
    yield from probe_maps()
    yield probe_verdicts()


def probe_capabilities(status: Path = Path("/proc/self/status")) -> Iterator[Probe]:
    """Look for CAP_BPF and CAP_PERFMON (both in CAP_SYS_ADMIN), and CAP_NET_ADMIN."""
    held = _effective_capabilities(status)
    everything = "CAP_SYS_ADMIN" in held
    for name in ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"):
        ok = name in held or (everything and name != "CAP_NET_ADMIN")
        detail = "held" if name in held else "contained in CAP_SYS_ADMIN" if ok else "missing"
        yield Probe(name.lower(), ok, detail, "" if ok else f"run as root, or add {name} to the container")


def _effective_capabilities(status: Path) -> frozenset[str]:
    line = next(line for line in status.read_text().splitlines() if line.startswith("CapEff:"))
    bits = int(line.split()[1], 16)
    return frozenset(name for name, number in _CAPABILITIES.items() if bits >> number & 1)


def probe_btf(path: Path = KERNEL_BTF) -> Probe:
    """Look for the kernel's description of its own types, by which the programs are fitted to it."""
    ok = path.is_file()
    remedy = "" if ok else "run a kernel built with CONFIG_DEBUG_INFO_BTF"
    return Probe("btf", ok, str(path) if ok else f"{path} does not exist", remedy)


def probe_cgroup(cgroup: Path | None) -> Probe:
    """Find the cgroup that the hooks go to."""
    try:
        path = cgroup or find_cgroup_root()
        os.close(open_cgroup(path))
    except DatapathError as error:
        detail, _, remedy = str(error).partition(": ")
        return Probe("cgroup", ok=False, detail=detail, remedy=remedy)
    return Probe("cgroup", ok=True, detail=str(path))


def probe_bpffs(pin_folder: Path) -> Probe:
    """Try to write where maps and hooks are kept alive without the agent."""
    parent = pin_folder.parent
    trial = parent / f"kubeproxy-ebpf-probe-{os.getpid()}"
    try:
        PinFolder(pin_folder).require_bpffs()
        trial.mkdir()
        trial.rmdir()
    except DatapathError as error:
        detail, _, remedy = str(error).partition(": ")
        return Probe("bpffs", ok=False, detail=detail, remedy=remedy)
    except OSError as error:
        return Probe("bpffs", ok=False, detail=f"{parent}: {error.strerror}", remedy=f"mount -o remount,rw {parent}")
    return Probe("bpffs", ok=True, detail=str(parent))


def probe_hooks() -> Iterator[Probe]:
    """Each attach type: whether the kernel loads a program for it."""
    for hook in AttachType:
        name = f"hook_{hook.name.lower()}"
        try:
            os.close(load_instructions(hook, "probe", (move_immediate(0, 1), leave())))
        except KernelError as error:
            yield Probe(name, ok=False, detail=str(error), remedy=_NEWER_KERNEL)
        else:
            yield Probe(name, ok=True, detail="works")


def probe_helpers() -> Iterator[Probe]:
    """Each helper function that socket programs call on every kernel."""
    for helper in _NEEDED_HELPERS:
        ok = has_helper(ProgramType.CGROUP_SOCK_ADDR, helper)
        yield Probe(f"helper_{helper.name.lower()}", ok, "known" if ok else "unknown", "" if ok else _NEWER_KERNEL)


def probe_maps() -> Iterator[Probe]:
    """Each type of map in use."""
    for map_type in _NEEDED_MAPS:
        ok = has_map_type(map_type)
        yield Probe(f"map_{map_type.name.lower()}", ok, "known" if ok else "unknown", "" if ok else _NEWER_KERNEL)


def probe_verdicts() -> Probe:
    """Which form a refusal takes. Both work; the older one is less exact."""
    if probe_verdict_form() is VerdictForm.RETVAL:
        detail = "bpf_set_retval: REJECT is ECONNREFUSED, DROP is ETIMEDOUT"
        return Probe("verdicts", ok=True, detail=detail, required=False)
    detail = "without bpf_set_retval: REJECT is ECONNREFUSED by way of a closed loopback port, DROP is EPERM"
    return Probe("verdicts", ok=False, detail=detail, remedy="run a kernel of 5.18 or newer", required=False)


def probe_grace_period() -> Probe:
    """How the agent waits for running programs before it uses an entry again."""
    grace_period = GracePeriod()
    try:
        if syscalls.membarrier():
            return Probe("grace_period", ok=True, detail="membarrier")
        grace_period.wait_by_map()
    except KernelError as error:
        remedy = "allow membarrier(2) in the seccomp profile, or add CAP_BPF"
        return Probe("grace_period", ok=False, detail=str(error), remedy=remedy)
    finally:
        grace_period.close()
    return Probe("grace_period", ok=True, detail="by updating a map of maps, as membarrier is refused")


def probe_memlock() -> Probe:
    """Before 5.11 maps count against RLIMIT_MEMLOCK, which the agent then has to lift."""
    if not memlock.counts_maps():
        return Probe("memlock", ok=True, detail="maps are not counted against RLIMIT_MEMLOCK")
    if memlock.raise_limit():
        return Probe("memlock", ok=True, detail="this kernel counts maps against RLIMIT_MEMLOCK, which can be lifted")
    remedy = "add CAP_SYS_RESOURCE, or start the agent with an unlimited RLIMIT_MEMLOCK"
    return Probe("memlock", ok=False, detail="this kernel counts maps against RLIMIT_MEMLOCK", remedy=remedy)


def probe_leftovers() -> Iterator[Probe]:
    """Find what kube-proxy left behind: it still translates what the hooks leave alone."""
    leftovers = find_leftovers()
    if not leftovers:
        missing = missing_tools()
        unseen = f" (not asked, as not installed: {', '.join(missing)})" if missing else ""
        yield Probe("kube_proxy", ok=True, detail=f"nothing of kube-proxy is left{unseen}", required=False)
    for leftover in leftovers:
        yield Probe("kube_proxy", ok=False, detail=leftover.found, remedy=leftover.remedy, required=False)
