# SPDX-License-Identifier: Apache-2.0
"""The API server as the agent meets it: a descriptor, and what comes out of it."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeproxy_ebpf.kubernetes.reflector import Reflector
from kubeproxy_ebpf.kubernetes.source import ApiServerSource
from kubeproxy_ebpf.model.objects import ObjectName
from kubeproxy_ebpf.source import ObjectKey, Occurrence, Update
from tests import raw_objects
from tests.api_server import NODES, SERVICES, SLICES, ApiServer
from tests.unit.kubernetes.following import PATIENCE, wait_until


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """Return a server with a Service and its slice."""
    with ApiServer() as server:
        server.put(SERVICES, raw_objects.SERVICE, "service")
        server.put(SLICES, raw_objects.SLICE, "slice")
        yield server


def open_source(server: ApiServer, folder: Path, *, needs_pod_cidrs: bool = False) -> ApiServerSource:
    """Begin to follow a server."""
    return ApiServerSource(
        kubeconfig=server.kubeconfig(folder),
        api_servers=(),
        node_name="this-node",
        needs_pod_cidrs=needs_pod_cidrs,
    )


def drained(source: ApiServerSource, kinds: set[str]) -> list[Update]:
    """Wait until there was something of each kind; return all of it."""
    updates: list[Update] = []
    while not kinds <= {update.key.kind for update in updates}:
        assert select.select([source], [], [], PATIENCE)[0]
        updates += source.drain()
    return updates


@pytest.mark.parametrize(
    ("lacking", "needs_pod_cidrs"),
    [("status.addresses", False), ("spec.podCIDRs", True)],
    ids=["no address", "no podCIDR in mode NodeCIDR"],
)
def test_all_is_listed_when_the_node_is_usable(
    server: ApiServer, tmp_path: Path, lacking: str, *, needs_pod_cidrs: bool
) -> None:
    """As for kube-proxy, a Node that lacks something is not there yet."""
    incomplete = raw_objects.changed(raw_objects.changed(raw_objects.NODE, "spec.podCIDR", None), lacking, [])
    server.put(NODES, incomplete, "node")
    source = open_source(server, tmp_path, needs_pod_cidrs=needs_pod_cidrs)
    try:
        drained(source, {"Service", "EndpointSlice"})
        wait_until(lambda: server.watches(NODES), "the Node to be watched")
        source.drain()
        assert not source.is_listed
        server.put(NODES, raw_objects.NODE, "node")
        drained(source, {"Node"})
        wait_until(lambda: source.drain() == [] and source.is_listed, "all kinds")
        assert source.is_complete
    finally:
        source.close()


def test_a_malformed_object_leaves_it_incomplete(server: ApiServer, tmp_path: Path) -> None:
    """It is not known what an agent before this one made of it, so nothing unknown may be removed."""
    server.put(NODES, raw_objects.NODE, "node")
    server.put(SERVICES, raw_objects.changed(raw_objects.SERVICE, "spec.ports", 7), "service")
    source = open_source(server, tmp_path)
    try:
        wait_until(lambda: source.drain() == [] and source.is_listed, "the lists")
        assert not source.is_complete
        server.put(SERVICES, raw_objects.SERVICE, "service")
        wait_until(lambda: source.drain() == [] and source.is_complete, "the mended object")
    finally:
        source.close()


def test_what_nobody_has_foreseen_ends_the_agent(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours is raised where it is seen, and not lost in a thread."""

    async def fail(_: Reflector) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Reflector, "run", fail)
    source = open_source(server, tmp_path)

    def is_raised() -> bool:
        try:
            source.drain()
        except ExceptionGroup as group:
            return group.subgroup(ZeroDivisionError) is not None
        return False

    wait_until(is_raised, "the mistake")
    source.report(Occurrence(ObjectKey("Service", ObjectName("a", "b")), "TooLate", "nobody writes it", "Testing"))
    source.close()
