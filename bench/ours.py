# SPDX-License-Identifier: Apache-2.0
"""This proxy at a cgroup, with Services in its maps, as the agent would have put them there."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import fleet, rounds, world
from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.map_sizes import MapSizes
from kubeproxy_ebpf.decode import decode_endpoint_slice, decode_node, decode_service
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.layout.layout import Layout
from kubeproxy_ebpf.map_store import MapStore
from kubeproxy_ebpf.model.address import parse_prefix
from kubeproxy_ebpf.model.objects import Node
from kubeproxy_ebpf.model.settings import NodeState, Settings
from kubeproxy_ebpf.plan.cluster import ClusterState
from kubeproxy_ebpf.writer import apply_changes

SIZES = MapSizes(backends=524_288)
"""The defaults, but for a hundred thousand Services of two ports and two endpoints."""
SETTINGS = Settings(service_cidrs=(parse_prefix(world.SERVICES),))


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


def new_layout(store: MapStore) -> Layout:
    """Return a layout for maps of the store's sizes."""
    return Layout({name: store.capacity(name) for name in (*ArrayMap, *HashMap)})


def write(store: MapStore, layout: Layout, state: ClusterState) -> int:
    """Bring the maps to what Kubernetes says; return how many writes that took.

    Raises:
        world.WorldError: a Service does not fit, or the kernel refused a write.
    """
    batch = layout.prepare({name: state.plan(name) for name in state.take_dirty()})
    failed = apply_changes(store, batch.changes)
    layout.commit(batch, [one.change for one in failed])
    if batch.errors or failed:
        msg = f"not everything was written: {(*batch.errors, *failed)[0]}"
        raise world.WorldError(msg)
    return len(batch.changes)


def write_settings(store: MapStore) -> None:
    """Tell the programs the Services' range."""
    packed = map_schema.pack_prefixes(SETTINGS.service_cidrs)
    start = map_schema.SETTINGS_PREFIXES_OFFSET
    store.array(ArrayMap.SETTINGS)[start : start + len(packed)] = packed
    counts = map_schema.prefix_counts_word(len(SETTINGS.service_cidrs), 0)
    store.publish(ArrayMap.SETTINGS, map_schema.SETTINGS_COUNTS_OFFSET, counts)


@contextmanager
def serving(cgroup: Path, count: int, endpoints: int, protocols: Sequence[str] = fleet.TCP) -> Iterator[None]:
    """Let the processes of a cgroup reach so many Services, until the block ends."""
    with ExitStack() as stack:
        pins = stack.enter_context(bpf_file_system()) / "kubeproxy-ebpf"
        datapath = stack.enter_context(loader.load(pin_folder=pins, cgroup=cgroup, sizes=SIZES))
        rounds.show(f"writing {count:,} Services")
        write_settings(datapath.store)
        write(datapath.store, new_layout(datapath.store), cluster(count, endpoints, protocols))
        rounds.show("")
        yield
