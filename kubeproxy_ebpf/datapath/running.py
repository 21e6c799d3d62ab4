# SPDX-License-Identifier: Apache-2.0
"""Whether the data plane works now: who is at the hooks, and what a real connection does. For ``check``.

Where nothing is loaded yet, the programs are loaded for the moment, with maps that know no Service but the self-test's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.attach import HookState
from kubeproxy_ebpf.datapath.cgroups import find_cgroup_root
from kubeproxy_ebpf.datapath.errors import DatapathError, NotLoadedError
from kubeproxy_ebpf.datapath.features import Probe
from kubeproxy_ebpf.datapath.libbpf.bpf_object import LoadError
from kubeproxy_ebpf.datapath.map_sizes import MapSizes
from kubeproxy_ebpf.datapath.self_test import self_test

_FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
_TRIAL_SIZES = MapSizes(**dict.fromkeys(MapSizes().as_mapping(), 16) | {"events": 4096})


def probe_running(*, pin_folder: Path, cgroup: Path | None = None) -> tuple[Probe, ...]:
    """Look at the hooks and connect through them. Leaves the kernel as it was."""
    try:
        where = cgroup or find_cgroup_root()
        try:
            loader.open_pinned(pin_folder).close()
        except NotLoadedError:
            return (_not_loaded(), *_try_out(pin_folder.with_name(f"{pin_folder.name}-check"), where))
        hooks = (*_probe_hooks(pin_folder, where), _probe_devices(pin_folder), _probe_forwarding())
        return (*hooks, *self_test(pin_folder))
    except (DatapathError, LoadError, OSError) as error:
        return (Probe("data_plane", ok=False, detail=str(error), remedy="see the message"),)


def _not_loaded() -> Probe:
    detail = "nothing is loaded; tried out with programs loaded for a moment"
    return Probe("data_plane", ok=True, detail=detail, required=False)


def _try_out(pin_folder: Path, cgroup: Path) -> tuple[Probe, ...]:
    try:
        packets = loader.PACKET_OBJECTS
        with loader.load(pin_folder=pin_folder, cgroup=cgroup, sizes=_TRIAL_SIZES, packet_objects=packets) as loaded:
            found = _can_serve_packets() if loaded.packets else _cannot_serve_packets()
            return (*_probe_hooks(pin_folder, cgroup), found, _probe_forwarding(), *self_test(pin_folder))
    finally:
        loader.unload(pin_folder)


def _can_serve_packets() -> Probe:
    return Probe("packet_path", ok=True, detail="its programs can be loaded", required=False)


def _cannot_serve_packets() -> Probe:
    detail = "its programs cannot be loaded: clients outside this node are not served"
    return Probe(
        "packet_path", ok=False, detail=detail, remedy="the log line has the verifier's reason", required=False
    )


def _probe_devices(pin_folder: Path) -> Probe:
    """Whether clients outside this node are served, and at which devices."""
    devices = loader.pinned_devices(pin_folder)
    if devices:
        return Probe("packet_path", ok=True, detail=f"on {', '.join(sorted(devices))}", required=False)
    if devices is None:
        detail, remedy = "its programs are not loaded", "set packetPath; if it is set, the agent's log says why"
    else:
        detail, remedy = "its programs are on no device", "start the agent, or name devices with --devices"
    detail += ": clients outside this node are not served"
    return Probe("packet_path", ok=False, detail=detail, remedy=remedy, required=False)


def _probe_forwarding() -> Probe:
    """Whether the node forwards what comes from outside to its pods and to other nodes."""
    off = [name for name in _FORWARDING if _says_no(Path("/proc/sys", *name.split(".")))]
    if not off:
        return Probe("forwarding", ok=True, detail="the node forwards", required=False)
    detail = f"{' and '.join(off)}: 0, so packets from outside reach no endpoint"
    remedy = f"sysctl -w {' '.join(f'{name}=1' for name in off)}"
    return Probe("forwarding", ok=False, detail=detail, remedy=remedy, required=False)


def _says_no(path: Path) -> bool:
    """Whether a sysctl is there, and off: a node without IPv6 has no switch for it."""
    return path.exists() and path.read_text().strip() == "0"


def _probe_hooks(pin_folder: Path, cgroup: Path) -> Iterator[Probe]:
    """Whether each hook runs our program, and whether somebody has the last word after it."""
    states = loader.pinned_hooks(pin_folder, cgroup)
    missing = [state.hook for state in states if not state.attached]
    if missing:
        remedy = f"start the agent: it attaches again; if {cgroup} is not the cgroup meant, name it with --cgroup"
        yield Probe("hooks", ok=False, detail=f"not attached to {cgroup}: {', '.join(missing)}", remedy=remedy)
    else:
        yield Probe("hooks", ok=True, detail=f"all attached to {cgroup}")
    for state in states:
        if state.after:
            yield _has_the_last_word(state)


def _has_the_last_word(state: HookState) -> Probe:
    detail = f"after ours runs {', '.join(state.after)}, which may undo what ours does"
    remedy = "if Services do not answer, remove it or attach it before the agent starts"
    return Probe(f"hooks_{state.hook}", ok=False, detail=detail, remedy=remedy, required=False)
