# SPDX-License-Identifier: Apache-2.0
"""The table of behaviour cases through real sockets of a pod and of the node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kubeproxy_ebpf.decode import ObjectError, decode_endpoint_slice, decode_service
from kubeproxy_ebpf.plan.cluster import ClusterState
from tests.behaviour import Case, Step, load_cases
from tests.kernel.case_world import World, case_world, check_sockets, reconciler_of, sync


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Build the node once for all cases."""
    with case_world(tmp_path_factory.mktemp("cases")) as world:
        yield world


CASES = [case for case in load_cases() if any(flow.sockets for step in case.steps for flow in step.flows)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_case(case: Case, world: World) -> None:
    """Every flow that a socket can show gets its verdict, its endpoints and its name."""
    cluster = ClusterState(case.settings, case.node)
    reconciler = reconciler_of(world, cluster)
    for step in case.steps:
        _observe(cluster, step)
        sync(world, reconciler)
        check_sockets(world, reconciler, case, step)


def _observe(cluster: ClusterState, step: Step) -> None:
    for name in list(cluster.services):
        cluster.delete_service(name)
    for name in list(cluster.endpoint_slices):
        cluster.delete_endpoint_slice(name)
    for raw in step.objects:
        try:
            if raw["kind"] == "Service":
                cluster.observe(decode_service(raw))
            elif raw["kind"] == "EndpointSlice":
                cluster.observe(decode_endpoint_slice(raw))
        except ObjectError:
            assert step.refused, raw
