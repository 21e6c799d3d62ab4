# SPDX-License-Identifier: Apache-2.0
"""The table of behaviour cases through the real API server: what it makes of the objects, and what sockets do then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from kubeproxy_ebpf.observer import Observer
from tests.behaviour import Case, Step, load_cases
from tests.cluster.case_objects import CaseObjects
from tests.cluster.cluster import Cluster
from tests.cluster.followed import Followed, follow
from tests.kernel.case_world import World, case_world, check_sockets, reconciler_of, sync
from tests.kernel.namespaces import Namespace, join
from tests.kernel.processes import start_in
from tests.planned_world import PlannedWorld, check_flow, check_sentences
from tools.kubernetes.control_plane import ControlPlane
from tools.kubernetes.credentials import NODE_PROXIER

_REFUSALS = yaml.safe_load((Path(__file__).parent / "refusals.yaml").read_text())
REFUSED: dict[str, dict[str, str]] = _REFUSALS["refused"]
CHANGED: dict[str, str] = _REFUSALS["changed"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Build the node once for all cases."""
    with case_world(tmp_path_factory.mktemp("cases")) as world:
        yield world


@pytest.fixture(scope="module")
def cluster(plane: ControlPlane) -> Iterator[Cluster]:
    """Return the objects in the API server, none of them anybody's but its own."""
    with closing(Cluster(plane)) as cluster:
        cluster.clear()
        yield cluster
        cluster.clear()


@pytest.fixture(scope="module")
def followed(cluster: Cluster, control_namespace: Namespace) -> Iterator[Followed]:
    """Return what the agent's source says, with the rights of kube-proxy."""
    namespace = Namespace.create("source", ("10.1.0.9",))
    join(control_namespace, namespace)
    source = start_in(namespace, None, follow, cluster.plane.kubeconfig(NODE_PROXIER))
    yield Followed(cluster, source)
    source.kill()
    namespace.delete()


@pytest.mark.parametrize("case", [case for case in load_cases() if case.id not in CHANGED], ids=lambda case: case.id)
def test_case(case: Case, cluster: Cluster, followed: Followed, world: World) -> None:
    """Each step comes to the plans and to the connections that the table says, or is refused as is listed."""
    observer = followed.begin(case)
    reconciler = reconciler_of(world, observer.cluster)
    objects = CaseObjects(cluster)
    expected = dict(REFUSED.get(case.id, {}))
    for step in case.steps:
        refused = objects.go_to(step)
        for name, reason in refused.items():
            assert expected.pop(name, "nothing that is listed") in reason
        if refused:
            break
        observer.observe(followed.catch_up())
        sync(world, reconciler)
        check_plans(case, observer, step)
        check_sockets(world, reconciler, case, step)
    assert not expected, "the server takes what is listed as refused"


def check_plans(case: Case, observer: Observer, step: Step) -> None:
    """Check what the plans make of every connection, those that no socket of this node can show included."""
    found = [observer.cluster.plan(name) for name in observer.cluster.services]
    plans = [plan for plan in found if plan is not None]
    planned = PlannedWorld(plans, case.settings, case.node)
    for flow in step.flows:
        check_flow(planned, flow)
    check_sentences([problem for plan in plans for problem in plan.problems], step.problems)


def test_what_is_not_run_is_listed() -> None:
    """Nothing is listed that is no case, and it is known how many are not run to their end."""
    names = {case.id for case in load_cases()}
    assert REFUSED.keys() | CHANGED.keys() <= names
    assert (len(REFUSED), len(CHANGED)) == (21, 2)
