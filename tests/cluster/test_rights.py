# SPDX-License-Identifier: Apache-2.0
"""The agent needs what ``system:node-proxier`` allows and no more, says the log of the server that it asked."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import FIRST, AgentFactory
from tests.cluster.maps import contents
from tests.kernel.agent_process import endpoint_slice, service, wait_until
from tools.kubernetes.credentials import NODE_PROXIER

EVENT = {"apiVersion": "v1", "kind": "Event"}
READING = {"get", "list", "watch"}
WATCHED = {"services", "endpointslices", "nodes", "servicecidrs"}


def test_kube_proxys_role_is_enough(cluster: Cluster, make_agent: AgentFactory) -> None:
    """Nothing is forbidden to the agent, everything that it needs is watched, and it writes nothing but Events."""
    before = cluster.plane.audit_position()
    cluster.put(service("claims", "10.96.0.40", externalIPs=["198.51.100.7"]), endpoint_slice("claims", [FIRST]))
    agent = make_agent(cluster.plane.kubeconfig(NODE_PROXIER))
    agent.start()

    def found() -> list[str]:
        return [row.name for row in contents(agent.pin_folder)["frontends"] if row.kind == "ExternalIP"]

    assert found() == ["claims"]
    cluster.put(service("late", "10.96.0.41", externalIPs=["198.51.100.7"]))
    wait_until(lambda: reasons(cluster).keys() >= {"default/late"}, "an Event about the loser of the externalIP")
    assert found() == ["claims"]
    assert reasons(cluster)["/this-node"] == "Starting"

    asked = [event for event in cluster.plane.audit_events(before) if event["user"]["username"] == NODE_PROXIER.name]
    assert {event["objectRef"]["resource"] for event in asked if event["verb"] == "watch"} == WATCHED
    written = {event["objectRef"]["resource"] for event in asked if event["verb"] not in READING}
    assert written == {"events"}
    assert [shown(event) for event in asked if is_refused(event)] == []
    complaints = {event["event"] for event in agent.events() if event["level"] in {"warning", "error"}}
    assert complaints == {"service_problem"}


def reasons(cluster: Cluster) -> dict[str, str]:
    """Return the reason of the newest Event about each object."""
    events = sorted(cluster.objects(EVENT), key=lambda event: event["metadata"]["creationTimestamp"])
    about = [(event["involvedObject"], event["reason"]) for event in events]
    return {f"{one.get('namespace', '')}/{one['name']}": reason for one, reason in about}


def is_refused(event: dict[str, Any]) -> bool:
    """Whether a request was refused."""
    return event.get("responseStatus", {}).get("code", HTTPStatus.OK) >= HTTPStatus.BAD_REQUEST


def shown(event: dict[str, Any]) -> str:
    """Return a request and what became of it, for a person to read."""
    return f"{event['verb']} {event['requestURI']}: {event['responseStatus']}"
