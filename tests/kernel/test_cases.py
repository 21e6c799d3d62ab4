# SPDX-License-Identifier: Apache-2.0
"""The table of behaviour cases through traces, through real sockets of a pod and of the node, and packet by packet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kubeproxy_ebpf.cli.explanation import Explanation
from kubeproxy_ebpf.decode import ObjectError, decode_endpoint_slice, decode_service
from kubeproxy_ebpf.plan.cluster import ClusterState
from kubeproxy_ebpf.reconciler import Reconciler
from tests.behaviour import Case, Flow, Step, load_cases
from tests.kernel.case_packets import judge_packets, send
from tests.kernel.case_traces import as_traced, check_trace, contents, place_of, trace_flow
from tests.kernel.case_world import World, case_world, check_socket, judge, reconciler_of, settings_of, sync
from tests.kernel.connections import Outcome, Place


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Build the node once for all cases."""
    with case_world(tmp_path_factory.mktemp("cases")) as world:
        yield world


@pytest.mark.parametrize("case", load_cases(), ids=lambda case: case.id)
def test_case(case: Case, world: World) -> None:
    """Every flow gets its verdict, its endpoints and its name, and a trace has said so before.

    Sockets show what they can show, and so do packets; a trace says all of it.
    """
    cluster = ClusterState(case.settings, case.node)
    reconciler = reconciler_of(world, cluster)
    for step in case.steps:
        _observe(cluster, step)
        sync(world, reconciler)
        for flow, said in _trace(world, reconciler, case, step):
            if flow.packets:
                reconciler.apply_settings(settings_of(case, world, flow))
                met = send(world, flow)
                assert judge_packets(flow, met) is None, (case.id, flow.text, judge_packets(flow, met), met)
                assert met.masqueraded == elsewhere(said) & met.endpoints, (case.id, flow.text, met)
            if flow.sockets:
                reconciler.apply_settings(settings_of(case, world, flow))
                outcome = check_socket(world, case, flow)
                assert judge(as_traced(flow, said), outcome) is None, (flow.text, said, outcome)
                if flow.affinity and outcome.peers:
                    _check_affinity(world, flow, outcome)


def elsewhere(said: Explanation) -> set[Place]:
    """Return the endpoints on other nodes: those alone see this node's address in place of the client's."""
    return {place_of(row.endpoint) for row in said.endpoints if not row.on_this_node}


def _trace(world: World, reconciler: Reconciler, case: Case, step: Step) -> list[tuple[Flow, Explanation]]:
    """Trace a step's flows, which writes nothing; return them with what was said."""
    traced = []
    for flow in step.flows:
        reconciler.apply_settings(settings_of(case, world, flow))
        before = contents(world.datapath.store) if flow is step.flows[0] else {}
        said = trace_flow(world, flow)
        check_trace(flow, said)
        traced.append((flow, said))
        if before:
            assert contents(world.datapath.store) == before
    return traced


def _check_affinity(world: World, flow: Flow, outcome: Outcome) -> None:
    """Check that a trace knows where a client is kept, and does not start its time anew."""
    before = contents(world.datapath.store)
    said = trace_flow(world, flow)
    assert outcome.peers == {place_of(said.affinity_endpoint)}
    assert contents(world.datapath.store) == before


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
