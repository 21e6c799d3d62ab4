# SPDX-License-Identifier: Apache-2.0
"""The objects that the demo's user writes: a Service and a Deployment. Everything else the controllers make."""

from __future__ import annotations

from typing import Any

from demo.world import PORT

APP = "web"
CLUSTER_IP, SERVICE_PORT = "10.96.0.10", 80
PRE_STOP_SECONDS = 2
"""How long a Pod that is being deleted serves on, until every node knows."""
_LABELS = {"app": APP}

SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": APP, "namespace": "default"},
    "spec": {
        "clusterIP": CLUSTER_IP,
        "selector": _LABELS,
        "ports": [{"name": "tcp", "protocol": "TCP", "port": SERVICE_PORT, "targetPort": PORT}],
    },
}


def deployment(replicas: int) -> dict[str, Any]:
    """Return a Deployment that never has a ready Pod less than it should have."""
    container = {
        "name": "server",
        "image": "server:1",
        "ports": [{"containerPort": PORT}],
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": APP, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": _LABELS},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": _LABELS}, "spec": {"containers": [container]}},
        },
    }


def scaled(replicas: int) -> dict[str, Any]:
    """Return the change that gives a Deployment another number of Pods."""
    return {"spec": {"replicas": replicas}}


def another_version() -> dict[str, Any]:
    """Return the change that makes the controllers replace every Pod of a Deployment."""
    return {"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}}
