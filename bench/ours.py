# SPDX-License-Identifier: Apache-2.0
"""This proxy at a cgroup, with Services in its maps, as the agent would have put them there."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import fleet, rounds, world
from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.map_sizes import MapSizes
from kubeproxy_ebpf.decode import decode_endpoint_slice, decode_node, decode_service
from kubeproxy_ebpf.layout import restore
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.layout.layout import Layout
from kubeproxy_ebpf.map_schema import SettingsEntry
from kubeproxy_ebpf.model.address import parse_prefix
from kubeproxy_ebpf.model.objects import Node
from kubeproxy_ebpf.model.settings import NodeState, Settings
from kubeproxy_ebpf.plan.cluster import ClusterState
from kubeproxy_ebpf.reconciler import Reconciler

SIZES = MapSizes(backends=524_288)
"""The defaults, but for a hundred thousand Services of two ports and two endpoints."""
SETTINGS = Settings(service_cidrs=(parse_prefix(world.SERVICES),))
_PROGRAM_SETTINGS = SettingsEntry(
    flags=0,
    service_cidrs=SETTINGS.service_cidrs,
    excluded_cidrs=(),
    host_netns_cookie=0,
    host_source_ipv4=None,
    host_source_ipv6=None,
)


@contextmanager
def bpf_file_system() -> Iterator[Path]:
    """Mount a BPF file system; unmounting it drops everything that is pinned there."""
    with tempfile.TemporaryDirectory(prefix="kubeproxy-ebpf-bench-") as folder:
        mount = Path(folder) / "bpf"
        mount.mkdir()
        world.run("mount", "-t", "bpf", "bpf", str(mount))
        try:
            yield mount
        finally:
            subprocess.run(("umount", "--lazy", str(mount)), check=True)


def cluster(count: int, endpoints: int, protocols: Sequence[str] = fleet.TCP) -> ClusterState:
    """Return what Kubernetes says of so many Services."""
    node = decode_node(fleet.node())
    assert isinstance(node, Node)  # noqa: S101 - for the type's sake
    state = ClusterState(SETTINGS, NodeState(node=node))
    for number in range(count):
        state.observe(decode_service(fleet.service(number, protocols)))
        state.observe(decode_endpoint_slice(fleet.endpoint_slice(number, range(endpoints), protocols)))
    return state


def reconciler(datapath: loader.Datapath, state: ClusterState) -> Reconciler:
    """Return what writes maps in the agent, for these maps and whatever they hold. Grace periods never end."""
    store = datapath.store
    layout = Layout({name: store.capacity(name) for name in (*ArrayMap, *HashMap)})
    if datapath.restored:
        layout.adopt(restore.find(store))
    return Reconciler(cluster=state, layout=layout, store=store, clock=time.monotonic, start_grace_period=lambda: None)


def write(writer: Reconciler) -> int:
    """Bring the maps to what Kubernetes says; return how many writes that took.

    Raises:
        world.WorldError: a Service does not fit, or the kernel refused a write.
    """
    writes = writer.sync().writes
    if writer.seconds_to_next() is not None:
        msg = "not every Service could be written to the maps"
        raise world.WorldError(msg)
    return writes


@contextmanager
def serving(
    cgroup: Path,
    count: int,
    endpoints: int,
    protocols: Sequence[str] = fleet.TCP,
    packet_objects: Sequence[Path] = (),
) -> Iterator[Path]:
    """Let the processes of a cgroup reach so many Services, until the block ends; yields where all of it is pinned."""
    with ExitStack() as stack:
        pins = stack.enter_context(bpf_file_system()) / "kubeproxy-ebpf"
        datapath = stack.enter_context(
            loader.load(pin_folder=pins, cgroup=cgroup, sizes=SIZES, packet_objects=packet_objects)
        )
        rounds.show(f"writing {count:,} Services")
        writer = reconciler(datapath, cluster(count, endpoints, protocols))
        write(writer)
        writer.apply_settings(_PROGRAM_SETTINGS)
        if datapath.packets is not None:
            datapath.packets.sweep()  # as the agent does at its start
        rounds.show("")
        yield pins
