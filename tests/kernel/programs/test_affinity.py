# SPDX-License-Identifier: Apache-2.0
"""sessionAffinity ClientIP at sockets: a pod comes back to its endpoint, for as long as it may."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import pytest

from kubeproxy_ebpf.datapath.libbpf import syscalls
from tests.kernel.programs.conftest import Node
from tests.kernel.programs.service_maps import (
    EXTERNAL_IP,
    HAS_ENDPOINTS,
    INTERNAL_LOCAL,
    UDP,
    Backend,
    Endpoint,
)
from tests.kernel.programs.test_tcp import names
from tests.kernel.programs.test_udp import ask_once

CLUSTER = "10.96.0.10"
CLUSTER_V6 = "fd00:96::10"
HOUR = 3600
_RECORD = struct.Struct("=IIQ")


@pytest.fixture
def endpoints(node: Node) -> list[Endpoint]:
    """Return five endpoints that say their numbers."""
    return [node.serve_tcp(f"server{number}", f"10.1.1.{number}") for number in range(1, 6)]


def affine_service(node: Node, endpoints: Sequence[Endpoint], seconds: int = HOUR, **options: object) -> int:
    """Add a service with affinity and a ClusterIP."""
    service = node.maps.service(endpoints, affinity_seconds=seconds, **options)  # type: ignore[arg-type]
    node.maps.frontend(service, CLUSTER, 80)
    return service


def age_records(node: Node, seconds: float) -> None:
    """Make every record of an affinity older than it is."""
    fd = node.maps.store.descriptor("affinity")
    for key, value in list(node.maps.store.entries_of("affinity")):
        backend, generation, last = _RECORD.unpack(value)
        # Unsigned, as in the program: before the machine's start is far in the future.
        before = (last - int(seconds * 1e9)) % 2**64
        syscalls.map_update(fd, key, _RECORD.pack(backend, generation, before))


def test_a_client_comes_back_to_its_endpoint(node: Node, endpoints: list[Endpoint]) -> None:
    """Through every address of the service; other clients have endpoints of their own."""
    service = affine_service(node, endpoints)
    node.maps.frontend(service, "192.0.2.7", 80, kind=EXTERNAL_IP)
    mine = node.run(names, CLUSTER, 80, 20)
    assert len(mine) == 1
    assert node.run(names, "192.0.2.7", 80, 20) == mine
    assert node.run(names, f"::ffff:{CLUSTER}", 80, 5) == mine
    others = [node.make_pod(f"pod{number}", f"10.1.9.{number}") for number in range(12)]
    chosen = [node.run(names, CLUSTER, 80, 3, namespace=other) for other in others]
    assert {len(each) for each in chosen} == {1}
    assert len(set.union(*chosen)) > 1


def test_affinity_ends_with_its_time(node: Node, endpoints: list[Endpoint]) -> None:
    """Its time starts anew with each connection; after it, any endpoint may be chosen."""
    affine_service(node, endpoints)
    chosen = node.run(names, CLUSTER, 80, 1)
    for _ in range(3):
        age_records(node, HOUR - 60)
        assert node.run(names, CLUSTER, 80, 1) == chosen
    later = set(chosen)
    for _ in range(40):
        age_records(node, HOUR)
        later |= node.run(names, CLUSTER, 80, 1)
    assert len(later) > 1


def test_a_connection_of_this_very_moment_counts(node: Node, endpoints: list[Endpoint]) -> None:
    """Another CPU may have stored a later time than this one has just read; that is no age of centuries."""
    affine_service(node, endpoints)
    chosen = node.run(names, CLUSTER, 80, 1)
    for _ in range(12):
        age_records(node, -1)
        assert node.run(names, CLUSTER, 80, 1) == chosen


def test_affinity_ends_with_the_endpoint(node: Node, endpoints: list[Endpoint]) -> None:
    """A backend whose generation moved on is not gone back to, nor one that is in the set no more."""
    service = affine_service(node, endpoints[:1])
    assert node.run(names, CLUSTER, 80, 1) == {"server1"}
    backends = node.maps.publish(service, endpoints[1:2], affinity_seconds=HOUR)
    node.maps.write_backend(Backend(1, service, endpoints[0]), flags=1)
    assert node.run(names, CLUSTER, 80, 5) == {"server2"}
    node.maps.retire(backends[0])
    node.maps.publish(service, endpoints[2:3], affinity_seconds=HOUR)
    assert node.run(names, CLUSTER, 80, 5) == {"server3"}


def test_affinity_honours_only_the_set_in_use(node: Node, endpoints: list[Endpoint]) -> None:
    """A record that an external address made does not lead a ClusterIP of policy Local to another node."""
    service = node.maps.service(
        endpoints, local=endpoints[:1], flags=INTERNAL_LOCAL | HAS_ENDPOINTS, affinity_seconds=HOUR
    )
    node.maps.frontend(service, CLUSTER, 80)
    node.maps.frontend(service, "192.0.2.7", 80, kind=EXTERNAL_IP)
    for number in range(10):
        pod = node.make_pod(f"pod{number}", f"10.1.9.{number}")
        outside = node.run(names, "192.0.2.7", 80, 1, namespace=pod)
        assert node.run(names, CLUSTER, 80, 3, namespace=pod) == {"server1"}
        if outside != {"server1"}:
            return
    pytest.fail("ten clients in a row chose the local endpoint of five")


def test_datagram_sockets_of_a_pod_share_its_endpoint(node: Node) -> None:
    """Each new socket's first datagram counts as a connection."""
    endpoints = [node.serve_udp(f"server{number}", f"10.1.1.{number}") for number in range(1, 6)]
    node.maps.frontend(node.maps.service(endpoints, affinity_seconds=HOUR), CLUSTER, 53, UDP)

    def new_sockets() -> set[str]:
        return {ask_once(CLUSTER, 53, socket.AF_INET)[0] for _ in range(20)}

    assert len(node.run(new_sockets)) == 1
