# SPDX-License-Identifier: Apache-2.0
"""What every tier with processes stands on: cgroups, a BPF file system, namespaces and processes of a test's own.

``run_in(namespace, cgroup, function, *arguments)`` of :mod:`tests.kernel.processes` runs a function as a
process of the node (inside ``scratch_cgroup``) or of the outside world (cgroup None); the fixture ``background``
starts servers (:mod:`tests.kernel.servers`) that way and ends them. Nothing here touches the machine's cgroup root.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubeproxy_ebpf.datapath.cgroups import find_cgroup_root
from tests.kernel.namespaces import Namespace, join
from tests.kernel.processes import Background, start_in

_numbers = itertools.count(1)

PodFactory = Callable[..., Namespace]
Starter = Callable[..., Background]


CgroupFactory = Callable[..., Path]


@pytest.fixture
def make_cgroup() -> Iterator[CgroupFactory]:
    """Make cgroups v2 for this test, ``make_cgroup(parent)`` within others'; its processes must be gone at the end."""
    made: list[Path] = []

    def make(parent: Path | None = None) -> Path:
        made.append(add_cgroup(parent))
        return made[-1]

    yield make
    for cgroup in made:
        if cgroup.exists():
            remove_cgroup(cgroup)


def add_cgroup(parent: Path | None = None) -> Path:
    """Add a cgroup v2 of a test's, at the top of the tree or within another; whoever adds it removes it."""
    cgroup = (parent or find_cgroup_root()) / f"kubeproxy-ebpf-test-{os.getpid()}-{next(_numbers)}"
    cgroup.mkdir()
    return cgroup


def remove_cgroup(cgroup: Path) -> None:
    """Remove a cgroup; a process that was reaped just now may still count as a member for a moment."""
    for _ in range(100):
        try:
            cgroup.rmdir()
        except OSError:
            time.sleep(0.02)
        else:
            return
    cgroup.rmdir()


@pytest.fixture
def scratch_cgroup(make_cgroup: CgroupFactory) -> Path:
    """Return a cgroup v2 of the test's own: "this node", where programs are attached."""
    return make_cgroup()


@pytest.fixture
def make_bpffs(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Mount BPF file systems; unmounting them drops everything that is pinned in them."""
    with ExitStack() as mounted:
        yield lambda: mounted.enter_context(bpf_file_system(tmp_path / f"bpffs-{next(_numbers)}"))


@contextmanager
def bpf_file_system(folder: Path) -> Iterator[Path]:
    """Mount a BPF file system at a new folder while the block runs; unmounting it drops everything that is pinned."""
    folder.mkdir()
    subprocess.run(("mount", "-t", "bpf", "bpf", folder), check=True)
    try:
        yield folder
    finally:
        subprocess.run(("umount", "--lazy", folder), check=True)


@pytest.fixture
def bpffs(make_bpffs: Callable[[], Path]) -> Path:
    """Mount a BPF file system."""
    return make_bpffs()


@pytest.fixture
def make_namespace() -> Iterator[Callable[..., Namespace]]:
    """Make bare network namespaces: ``make_namespace(name, *addresses)``; addresses are only noted."""
    made: list[Namespace] = []

    def make(name: str, *addresses: str) -> Namespace:
        made.append(Namespace.create(name, addresses))
        return made[-1]

    yield make
    for namespace in made:
        namespace.delete()


@pytest.fixture
def node_namespace(make_namespace: Callable[..., Namespace]) -> Namespace:
    """Return the node's host namespace: forwards both families between its pods."""
    node = make_namespace("node")
    node.sysctl("net.ipv4.ip_forward", 1)
    node.sysctl("net.ipv6.conf.all.forwarding", 1)
    return node


@pytest.fixture
def pod_namespace(node_namespace: Namespace, make_namespace: Callable[..., Namespace]) -> PodFactory:
    """Make pods on the node: ``pod_namespace("a", "10.1.0.2", "fd00:1::2")`` has these addresses and routes."""

    def make(name: str, *addresses: str) -> Namespace:
        pod: Namespace = make_namespace(name, *addresses)
        join(node_namespace, pod)
        return pod

    return make


@pytest.fixture
def background() -> Iterator[Starter]:
    """Start generators in child processes, as ``start_in`` does; whatever still runs at the end is killed."""
    started: list[Background] = []

    def start(*arguments: Any) -> Background:
        started.append(start_in(*arguments))
        return started[-1]

    yield start
    for process in started:
        if process.alive:
            process.kill()
