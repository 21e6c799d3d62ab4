# SPDX-License-Identifier: Apache-2.0
"""Who the agent is to the API server: a service account with kube-proxy's role and no other right."""

from __future__ import annotations

import json
from contextlib import closing
from http import HTTPStatus

from demo.waiting import wait_until
from tools.kubernetes.client import Client, path_of
from tools.kubernetes.control_plane import ControlPlane
from tools.kubernetes.credentials import User
from tools.kubernetes.errors import ApiError

NAME, NAMESPACE = "kubeproxy-ebpf", "kube-system"
ROLE = "system:node-proxier"
AGENT = User(f"system:serviceaccount:{NAMESPACE}:{NAME}")
_RBAC = "rbac.authorization.k8s.io"
_ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": NAMESPACE}}
_NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
_BINDING = {
    "apiVersion": f"{_RBAC}/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": NAME},
    "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": ROLE},
    "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
}
_TOKEN_REQUEST = {
    "apiVersion": "authentication.k8s.io/v1",
    "kind": "TokenRequest",
    "spec": {"expirationSeconds": 3600},
}


def make_account(plane: ControlPlane) -> None:
    """Make the account and bind it to the role, and have kubeconfigs for it."""
    with closing(plane.client()) as client:
        wait_until(lambda: _is_there(client), f"the namespace {NAMESPACE}")
        client.create(_ACCOUNT)
        client.create(_BINDING)
        answer = json.loads(client.request("POST", f"{path_of(_ACCOUNT)}/token", _TOKEN_REQUEST))
    plane.credentials.know(AGENT, answer["status"]["token"])


def _is_there(client: Client) -> bool:
    """Whether the API server has made its namespace: it does so soon after its start."""
    try:
        client.read(_NAMESPACE)
    except ApiError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return False
    return True
