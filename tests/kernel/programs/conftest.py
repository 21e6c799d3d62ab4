# SPDX-License-Identifier: Apache-2.0
"""A node with the real programs at its sockets, and maps that a test fills by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kubeproxy_ebpf.datapath import loader
from tests.kernel.conftest import SMALL
from tests.kernel.namespaces import Namespace
from tests.kernel.processes import run_in
from tests.kernel.programs.service_maps import Endpoint, ServiceMaps
from tests.kernel.scratch import PodFactory, Starter
from tests.kernel.servers import tcp_server, udp_server

T = TypeVar("T")

SERVICE_CIDRS = ("10.96.0.0/16", "fd00:96::/112")
CLIENT = ("10.1.0.2", "fd00:1::2")


@dataclass(frozen=True)
class Node:
    """The node under test: its maps, its namespaces, and how to run something in a pod of it."""

    maps: ServiceMaps
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


@pytest.fixture
def make_node(
    pin_folder: Path,
    scratch_cgroup: Path,
    node_namespace: Namespace,
    pod_namespace: PodFactory,
    background: Starter,
) -> Iterator[Callable[..., Node]]:
    """Load the programs: ``make_node(verdict_form=0, peer_names=128)`` with constants and map sizes."""
    loaded = []

    def make(*, verdict_form: int | None = None, **sizes: int) -> Node:
        constants = {} if verdict_form is None else {"verdict_form": verdict_form}
        datapath = loader.load(
            pin_folder=pin_folder, cgroup=scratch_cgroup, sizes=replace(SMALL, **sizes), constants=constants
        )
        loaded.append(datapath)
        maps = ServiceMaps(datapath.store)
        maps.settings(service_cidrs=SERVICE_CIDRS)
        client = pod_namespace("client", *CLIENT)
        return Node(maps, scratch_cgroup, node_namespace, client, pod_namespace, background)

    yield make
    for datapath in loaded:
        datapath.close()


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    """Return a node with the form of refusals that this kernel can do."""
    return make_node()
