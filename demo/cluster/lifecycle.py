# SPDX-License-Identifier: Apache-2.0
"""Scenes: Kubernetes and the agent start, what the agent has asked for, and the end."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from http import HTTPStatus

from demo.agent import NODE_NAME
from demo.cluster import tables
from demo.cluster.account import AGENT, ROLE, make_account
from demo.cluster.kubelet import Kubelet
from demo.cluster.objects import APP
from demo.cluster.show import Show
from demo.cluster.slices import Slices
from demo.stage import Stage
from demo.waiting import wait_until
from tools.kubernetes.build import version
from tools.kubernetes.control_plane import ControlPlane
from tools.kubernetes.errors import ApiError

_POD_ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}


def kubernetes_starts(stage: Stage, plane: ControlPlane, kubelet: Kubelet, slices: Slices) -> None:
    """Start the control plane, the kubelet that the demo plays, and what only looks on."""
    stage.scene(f"Kubernetes {version()} starts")
    stage.did("etcd, kube-apiserver, kube-controller-manager, kube-scheduler, in a namespace: another machine")
    started = time.monotonic()
    plane.start()
    plane.controller_manager.start()
    plane.scheduler.start()
    kubelet.start()
    slices.start()
    make_account(plane)
    wait_until(lambda: _has_pod_account(plane), "the controllers to make a service account for Pods")
    stage.saw(f"ready after {time.monotonic() - started:.1f} s")
    stage.saw(
        f"all of it is Kubernetes' own but the kubelet of {NODE_NAME}, which the demo plays: "
        "each Pod is a network namespace with a real server in it, and says so to the API server"
    )


def _has_pod_account(plane: ControlPlane) -> bool:
    with closing(plane.client()) as client:
        try:
            client.read(_POD_ACCOUNT)
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return False
    return True


def agent_starts(show: Show) -> None:
    """Start the agent with a service account's rights."""
    show.stage.scene("The agent starts on the API server")
    show.stage.did(f"kubeproxy-ebpf {' '.join(show.agent.arguments())}")
    took = show.agent.start()
    show.stage.saw(f"it is {AGENT.name}, with the cluster role {ROLE} and no other")
    show.stage.saw(f"ready after {took:.0f} ms, {show.agent.writes()} writes into the maps")


def what_was_asked(show: Show) -> None:
    """Show what the agent asked the API server for, by the server's own log, and what is in the kernel now."""
    stage = show.stage
    stage.scene("What the agent has asked for, and what the kernel holds")
    events = [event for event in show.plane.audit_events() if event["user"]["username"] == AGENT.name]
    asked = {event["auditID"]: event for event in events}.values()  # a watch has one when it begins and one at its end
    counts = Counter(f"{event['verb']} {event.get('objectRef', {}).get('resource', 'discovery')}" for event in asked)
    refused = [event for event in asked if event.get("responseStatus", {}).get("code", 0) >= HTTPStatus.BAD_REQUEST]
    stage.expect(counts and not refused, "requests, and none refused", refused or counts)
    stage.saw(f"the API server's audit log: {_listed(counts)}; none refused")
    stage.did(f"kubeproxy-ebpf dump services --name {APP}")
    stage.output(show.agent.run("dump", "services", "--name", APP, f"--bpffs={show.agent.bpffs}"))
    repairs = sum(int(event.get("repairs", 0)) for event in show.agent.events())
    stage.expect(repairs == 0, "maps that no audit had to mend", repairs)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number} × {what}" for what, number in sorted(counts.items()))


def agent_stops(show: Show) -> None:
    """Stop the agent and take everything out of the kernel."""
    stage = show.stage
    stage.scene("The agent is stopped, then everything is unloaded")
    took = show.agent.stop(stage)
    stage.saw(f"SIGTERM: it ended after {took:.0f} ms")
    show.agent.unload(stage)


def all_changes(show: Show) -> None:
    """Show what each change took."""
    show.stage.scene("All changes")
    show.stage.table(tables.of_all(show.changes))
