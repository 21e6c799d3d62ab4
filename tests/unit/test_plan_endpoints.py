# SPDX-License-Identifier: Apache-2.0
"""The choice of endpoints beyond what the table of cases shows: what lingers, merging, invariants of any choice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeproxy_ebpf.model.address import Address, parse_address
from kubeproxy_ebpf.model.objects import Endpoint
from kubeproxy_ebpf.plan.endpoints import EndpointChoice, choose, merge
from kubeproxy_ebpf.plan.service_plan import PlannedEndpoint, SetRule

READY = {"ready": True, "serving": True, "terminating": False}
DRAINING = {"ready": False, "serving": True, "terminating": True}
SERVING_ONLY = {"ready": False, "serving": True, "terminating": False}
NOT_READY = {"ready": False, "serving": False, "terminating": False}
DYING = {"ready": False, "serving": False, "terminating": True}

HERE = "this-node"
THERE = "other-node"
A, B, C = (parse_address(f"10.244.0.{number}") for number in (1, 2, 3))


def endpoint(
    address: Address,
    conditions: dict[str, bool],
    node: str = HERE,
    zones: tuple[str, ...] = (),
    nodes: tuple[str, ...] = (),
) -> Endpoint:
    """Return an endpoint of a node."""
    return Endpoint(
        address,
        ready=conditions["ready"],
        serving=conditions["serving"],
        terminating=conditions["terminating"],
        node_name=node,
        zone_hints=zones,
        node_hints=nodes,
    )


def chosen(*endpoints: Endpoint, uses_cluster: bool = True, uses_local: bool = False) -> EndpointChoice:
    """Choose among endpoints of one slice, on this node in zone-a."""
    return choose(
        merge([(8080, endpoints)]), node_name=HERE, zone="zone-a", uses_cluster=uses_cluster, uses_local=uses_local
    )


def addresses(planned: tuple[PlannedEndpoint, ...]) -> list[Address]:
    """Return the addresses of planned endpoints."""
    return [one.address for one in planned]


@pytest.mark.parametrize(
    ("endpoints", "lingering"),
    [
        ([endpoint(A, READY), endpoint(B, READY)], []),
        ([endpoint(A, READY), endpoint(B, SERVING_ONLY)], [B]),
        ([endpoint(A, READY), endpoint(B, NOT_READY)], []),
        ([endpoint(A, READY), endpoint(B, DRAINING)], []),
        ([endpoint(A, DRAINING), endpoint(B, DYING)], []),
        ([endpoint(A, SERVING_ONLY)], [A]),
        ([endpoint(A, DYING)], []),
        ([endpoint(A, READY, zones=("zone-a",)), endpoint(B, READY, zones=("zone-b",))], [B]),
        ([], []),
    ],
)
def test_lingering(endpoints: list[Endpoint], lingering: list[Address]) -> None:
    """What serves without being chosen lingers; terminating ones leave at once if an active one exists."""
    assert addresses(chosen(*endpoints).lingering) == lingering


@pytest.mark.parametrize(
    ("endpoints", "cluster", "local"),
    [
        ([], SetRule.READY, SetRule.READY),
        ([endpoint(A, DYING)], SetRule.READY, SetRule.READY),
        ([endpoint(A, READY), endpoint(B, READY, THERE)], SetRule.READY, SetRule.READY),
        (
            [endpoint(A, READY, zones=("zone-a",)), endpoint(B, READY, zones=("zone-b",))],
            SetRule.ZONE_HINTS,
            SetRule.READY,
        ),
        ([endpoint(A, READY, zones=("zone-b",))], SetRule.READY, SetRule.READY),
        ([endpoint(A, READY, nodes=(HERE,)), endpoint(B, READY, nodes=(THERE,))], SetRule.NODE_HINTS, SetRule.READY),
        ([endpoint(A, DRAINING), endpoint(B, DRAINING, THERE)], SetRule.TERMINATING, SetRule.TERMINATING),
        ([endpoint(A, DRAINING), endpoint(B, READY, THERE)], SetRule.READY, SetRule.TERMINATING),
        ([endpoint(A, DRAINING, THERE)], SetRule.TERMINATING, SetRule.READY),
    ],
)
def test_the_rule_of_each_set_is_said(endpoints: list[Endpoint], cluster: SetRule, local: SetRule) -> None:
    """Hints and the terminating fallback are named where they chose; an empty set has no rule of its own."""
    choice = chosen(*endpoints, uses_local=True)
    assert (choice.cluster_rule, choice.local_rule) == (cluster, local)


def test_lingering_of_local_policy() -> None:
    """Endpoints of other nodes linger where no policy uses them; the terminating ones among them do not."""
    choice = chosen(
        endpoint(A, DRAINING),
        endpoint(B, READY, THERE),
        endpoint(C, DRAINING, THERE),
        uses_cluster=False,
        uses_local=True,
    )
    assert choice.cluster == ()
    assert addresses(choice.local) == [A]
    assert addresses(choice.lingering) == [B]


def test_sets_are_sorted_and_know_where_endpoints_run() -> None:
    """Sets are sorted by address and port, whatever the order of the slices."""
    candidates = merge([(8081, [endpoint(B, READY, THERE)]), (8080, [endpoint(B, READY), endpoint(A, READY)])])
    cluster = choose(candidates, node_name=HERE, zone="", uses_cluster=True, uses_local=False).cluster
    assert [(one.address, one.port, one.local, one.node_name) for one in cluster] == [
        (A, 8080, True, HERE),
        (B, 8080, True, HERE),
        (B, 8081, False, THERE),
    ]


def test_not_terminating_wins_even_if_not_ready() -> None:
    """Of two duplicates the one that is not terminating is the newer one, so that its conditions count."""
    ready_but_terminating = endpoint(A, {"ready": True, "serving": True, "terminating": True})
    for order in ([ready_but_terminating, endpoint(A, NOT_READY)], [endpoint(A, NOT_READY), ready_but_terminating]):
        assert not chosen(*order).has_endpoints


def test_hint_for_the_empty_zone_is_not_for_a_node_without_zone() -> None:
    """A node without zone label is in no zone, not in the zone with the empty name."""
    candidates = merge([(8080, [endpoint(A, READY, zones=("",)), endpoint(B, READY, zones=("zone-b",))])])
    choice = choose(candidates, node_name=HERE, zone="", uses_cluster=True, uses_local=False)
    assert addresses(choice.cluster) == [A, B]


ENDPOINTS = st.lists(
    st.builds(
        Endpoint,
        address=st.sampled_from([A, B, C]),
        ready=st.booleans(),
        serving=st.booleans(),
        terminating=st.booleans(),
        node_name=st.sampled_from(["", HERE, THERE]),
        node_hints=st.sampled_from([(), (HERE,), (THERE,)]),
        zone_hints=st.sampled_from([(), ("zone-a",), ("zone-b",)]),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=300)
@given(endpoints=ENDPOINTS, uses_cluster=st.booleans(), uses_local=st.booleans())
def test_invariants(endpoints: list[Endpoint], *, uses_cluster: bool, uses_local: bool) -> None:
    """Whatever the endpoints are, the sets keep the promises that readers of a plan rely on."""
    choice = chosen(*endpoints, uses_cluster=uses_cluster, uses_local=uses_local)
    for planned in (choice.cluster, choice.local, choice.lingering):
        assert list(planned) == sorted(set(planned))
    assert not set(choice.lingering) & {*choice.cluster, *choice.local}
    assert all(one.local for one in choice.local)
    assert uses_cluster or not choice.cluster
    assert uses_local or not choice.local
    if uses_cluster:
        assert bool(choice.cluster) is choice.has_endpoints
    assert choice.has_endpoints or not choice.local


@settings(deadline=None, max_examples=200)
@given(endpoints=ENDPOINTS, data=st.data())
def test_duplicates_do_not_depend_on_slices(endpoints: list[Endpoint], data: st.DataObject) -> None:
    """Of duplicates that differ in their conditions the same one wins, however they are spread over slices."""
    distinct = list({(one.address, one.terminating, one.ready, one.serving): one for one in endpoints}.values())
    shuffled = data.draw(st.permutations(distinct))
    cut = data.draw(st.integers(0, len(shuffled)))
    assert merge([(1, distinct)]) == merge([(1, shuffled[:cut]), (1, shuffled[cut:])])
