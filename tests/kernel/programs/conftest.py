# SPDX-License-Identifier: Apache-2.0
"""A node with the real programs at its sockets, and maps that a test fills by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from tests.kernel.conftest import SMALL
from tests.kernel.emptying import empty_maps
from tests.kernel.namespaces import Namespace
from tests.kernel.processes import run_in
from tests.kernel.programs.service_maps import Endpoint, ServiceMaps
from tests.kernel.scratch import CgroupFactory, PodFactory, Starter, add_cgroup, bpf_file_system, remove_cgroup
from tests.kernel.servers import tcp_server, udp_server

T = TypeVar("T")

SERVICE_CIDRS = ("10.96.0.0/16", "fd00:96::/112")
CLIENT = ("10.1.0.2", "fd00:1::2")


class Programs(NamedTuple):
    """Programs at work: where they are pinned, and the cgroup whose processes they serve."""

    store: KernelMapStore
    pins: Path
    cgroup: Path


@dataclass(frozen=True)
class Node:
    """The node under test: its maps, its namespaces, and how to run something in a pod of it."""

    maps: ServiceMaps
    pins: Path
    cgroup: Path
    host: Namespace
    client: Namespace
    """A pod with one address of each family."""
    make_pod: PodFactory
    background: Starter

    def run(self, function: Callable[..., T], *arguments: Any, namespace: Namespace | None = None) -> T:
        """Call a function in a process of the node, in the client pod or another namespace."""
        return run_in(namespace or self.client, self.cgroup, function, *arguments)

    def serve_tcp(self, name: str, address: str, port: int = 8080) -> Endpoint:
        """Start a pod with a TCP server."""
        self.background(self.make_pod(name, address), self.cgroup, tcp_server, name, address, port)
        return address, port

    def serve_udp(self, name: str, address: str, port: int = 5353) -> Endpoint:
        """Start a pod with a UDP server."""
        self.background(self.make_pod(name, address), self.cgroup, udp_server, name, address, port)
        return address, port


@pytest.fixture(scope="session")
def shared_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Load the programs once, for all tests that want them as this kernel can do them."""
    cgroup = add_cgroup()
    try:
        with bpf_file_system(tmp_path_factory.mktemp("shared") / "bpffs") as bpffs:
            pins = bpffs / "kubeproxy-ebpf"
            with loader.load(pin_folder=pins, cgroup=cgroup, sizes=SMALL) as datapath:
                yield Programs(datapath.store, pins, cgroup)
    finally:
        remove_cgroup(cgroup)


@pytest.fixture
def load_programs(
    shared_programs: Programs, pin_folder: Path, make_cgroup: CgroupFactory
) -> Iterator[Callable[..., Programs]]:
    """Have programs with constants and map sizes, or the shared ones; their maps are empty."""
    with ExitStack() as stack:

        def load(constants: Mapping[str, int], sizes: Mapping[str, int]) -> Programs:
            if not constants and not sizes:
                empty_maps(shared_programs.store)
                return shared_programs._replace(cgroup=make_cgroup(shared_programs.cgroup))
            cgroup, own = make_cgroup(), replace(SMALL, **sizes)
            loading = loader.load(pin_folder=pin_folder, cgroup=cgroup, sizes=own, constants=constants)
            return Programs(stack.enter_context(loading).store, pin_folder, cgroup)

        yield load


@pytest.fixture
def make_node(
    load_programs: Callable[..., Programs],
    node_namespace: Namespace,
    pod_namespace: PodFactory,
    background: Starter,
) -> Callable[..., Node]:
    """Make a node with empty maps; ``make_node(verdict_form=0, peer_names=128)`` with constants and map sizes."""

    def make(*, verdict_form: int | None = None, **sizes: int) -> Node:
        programs = load_programs({} if verdict_form is None else {"verdict_form": verdict_form}, sizes)
        maps = ServiceMaps(programs.store)
        maps.settings(service_cidrs=SERVICE_CIDRS)
        client = pod_namespace("client", *CLIENT)
        return Node(maps, programs.pins, programs.cgroup, node_namespace, client, pod_namespace, background)

    return make


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    """Return a node with the form of refusals that this kernel can do."""
    return make_node()
