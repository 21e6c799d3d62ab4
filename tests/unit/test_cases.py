# SPDX-License-Identifier: Apache-2.0
"""The table of behaviour cases, run through the brain: decode, cluster state, plan, and the rules of the plan."""

from __future__ import annotations

import pytest

from kubeproxy_ebpf.decode import ObjectError, decode_endpoint_slice, decode_service
from kubeproxy_ebpf.model.objects import EndpointSlice, Service
from kubeproxy_ebpf.plan.cluster import ClusterState
from kubeproxy_ebpf.plan.service_plan import (
    ServicePlan,
    Source,
    Verdict,
)
from tests.behaviour import Case, Step, load_cases
from tests.planned_world import PlannedWorld, check_flow, check_sentences


def _decode(step: Step) -> tuple[list[Service | EndpointSlice], list[str]]:
    """Return the objects that count, and the messages of those that are refused."""
    objects: list[Service | EndpointSlice] = []
    refused: list[str] = []
    for raw in step.objects:
        decode = decode_service if raw["kind"] == "Service" else decode_endpoint_slice
        try:
            newest = decode(raw)
        except ObjectError as error:
            refused.append(str(error))
        else:
            if isinstance(newest, Service | EndpointSlice):
                objects.append(newest)
    return objects, refused


def _update(state: ClusterState, plans: dict[str, ServicePlan], old: list, new: list) -> None:
    """Hand over what changed between two steps, deletions last, and plan what that made dirty."""
    for newest in new:
        state.observe(newest)
    names = {(type(one), one.name) for one in new}
    for gone in old:
        if (type(gone), gone.name) not in names:
            delete = state.delete_service if isinstance(gone, Service) else state.delete_endpoint_slice
            delete(gone.name, gone.uid)
    for name in state.take_dirty():
        plan = state.plan(name)
        if plan is None:
            plans.pop(str(name), None)
        else:
            plans[str(name)] = plan


@pytest.mark.parametrize("case", load_cases(), ids=lambda case: case.id)
def test_case(case: Case) -> None:
    """Every step leads to the expected verdicts, and to the plans of a cold start with the same objects."""
    state = ClusterState(case.settings, case.node)
    plans: dict[str, ServicePlan] = {}
    old: list[Service | EndpointSlice] = []
    for step in case.steps:
        new, refused = _decode(step)
        _update(state, plans, old, new)
        old = new
        world = PlannedWorld(plans.values(), case.settings, case.node)
        for flow in step.flows:
            check_flow(world, flow)
        check_sentences([problem for plan in plans.values() for problem in plan.problems], step.problems)
        check_sentences(refused, step.refused)
        cold: dict[str, ServicePlan] = {}
        _update(ClusterState(case.settings, case.node), cold, [], new)
        assert cold == plans


def test_table_covers_each_kind_of_source() -> None:
    """The table has flows from pods, from the node and from outside, with each verdict."""
    flows = [flow for case in load_cases() for step in case.steps for flow in step.flows]
    assert {flow.source for flow in flows} == set(Source)
    assert {flow.verdict for flow in flows} == set(Verdict)
