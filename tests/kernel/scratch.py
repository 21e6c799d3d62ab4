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
from pathlib import Path
from typing import Any

import pytest

from kubeproxy_ebpf.datapath.cgroups import find_cgroup_root
from tests.kernel.namespaces import Namespace, join
from tests.kernel.processes import Background, start_in

_numbers = itertools.count(1)

PodFactory = Callable[..., Namespace]
Starter = Callable[..., Background]


@pytest.fixture
def make_cgroup() -> Iterator[Callable[[], Path]]:
    """Make cgroups v2 for this test; at the end its processes must be gone, and they are removed."""
    made: list[Path] = []

    def make() -> Path:
        cgroup = find_cgroup_root() / f"kubeproxy-ebpf-test-{os.getpid()}-{next(_numbers)}"
        cgroup.mkdir()
        made.append(cgroup)
        return cgroup

    yield make
    for cgroup in made:
        if cgroup.exists():
            _remove_cgroup(cgroup)


def _remove_cgroup(cgroup: Path) -> None:
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
def scratch_cgroup(make_cgroup: Callable[[], Path]) -> Path:
    """Return a cgroup v2 of the test's own: "this node", where programs are attached."""
    return make_cgroup()


@pytest.fixture
def make_bpffs(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Mount BPF file systems; unmounting them drops everything that is pinned in them."""
    mounted: list[Path] = []

    def make() -> Path:
        folder = tmp_path / f"bpffs-{next(_numbers)}"
        folder.mkdir()
        subprocess.run(("mount", "-t", "bpf", "bpf", folder), check=True)
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
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
