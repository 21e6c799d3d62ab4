# SPDX-License-Identifier: Apache-2.0
"""A real etcd, kube-apiserver and, if asked for, kube-controller-manager and kube-scheduler in a namespace."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.kubernetes.client import Client
from tools.kubernetes.credentials import ADMIN, Credentials, User
from tools.kubernetes.daemon import Daemon
from tools.kubernetes.errors import ApiError
from tools.kubernetes.etcd import Etcd
from tools.kubernetes.namespace import connect, inside

PORT = 6443
_READY_SECONDS = 120.0
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
_CONTROLLERS = (
    "deployment-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "replicaset-controller",
    "serviceaccount-controller",
)
"""What makes Pods and EndpointSlices. Not what would give up Nodes and Pods that no kubelet answers for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where a control plane runs, and how."""

    programs: Path
    """What ``build`` returned."""
    folder: Path
    """For data, certificates and logs; of this control plane alone."""
    namespace: Path
    """The file that stands for its network namespace."""
    address: str
    """Where nodes reach it: an address in that namespace, not of the loopback's network, which may not be told on."""
    names: tuple[str, ...] = ()
    """Further addresses and names that its certificate is for."""
    service_cidrs: str = "10.96.0.0/12,fd00:10:96::/112"
    is_audited: bool = False
    """Whether every request is written down, without its body."""
    arguments: tuple[str, ...] = field(default=())
    """Further arguments of kube-apiserver."""


class ControlPlane:
    """The parts, and ways to reach them."""

    def __init__(self, settings: Settings) -> None:
        """Prepare everything; nothing is started."""
        self.settings = settings
        folder = settings.folder
        names = (settings.address, "127.0.0.1", "::1", "localhost", *settings.names)
        self.credentials = Credentials(folder / "credentials", names)
        self.etcd = Etcd(settings.programs, folder, settings.namespace)
        self.audit_log = folder / "audit.log"
        self.api_server = self._daemon("kube-apiserver", *self._api_server_arguments())
        controllers = f"--controllers={','.join(_CONTROLLERS)}"
        cidrs = f"--service-cluster-ip-range={settings.service_cidrs}"
        self.controller_manager = self._controller("kube-controller-manager", controllers, cidrs)
        self.scheduler = self._controller("kube-scheduler")

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.settings.address}:{PORT}"

    def start(self) -> None:
        """Start etcd and kube-apiserver; return when that is ready."""
        self.etcd.start()
        self.start_api_server()

    def start_api_server(self) -> None:
        """Start kube-apiserver, again perhaps; return when it is ready."""
        self.api_server.start()
        self.api_server.wait_until(self.is_ready, "to be ready", _READY_SECONDS)

    def stop(self) -> None:
        """End all parts that run, etcd last."""
        for daemon in (self.scheduler, self.controller_manager, self.api_server, self.etcd.daemon):
            daemon.stop()

    def is_ready(self) -> bool:
        """Whether the API server says so."""
        client = self.client()
        try:
            return client.request("GET", "/readyz") == b"ok"
        except (OSError, http.client.HTTPException, ApiError):
            return False
        finally:
            client.close()

    def client(self, user: User = ADMIN) -> Client:
        """Return a new connection to the API server in the name of a user."""
        settings = self.settings
        return Client(
            lambda: connect(settings.namespace, settings.address, PORT, 30.0),
            settings.address,
            self.credentials.authority,
            self.credentials.token(user),
        )

    def kubeconfig(self, user: User, *, server: str | None = None, with_certificate: bool = False) -> Path:
        """Write a kubeconfig for a user; ``server``: the URL of what is in front of the API server."""
        return self.credentials.kubeconfig(user, server or self.server, with_certificate=with_certificate)

    def audit_position(self) -> int:
        """Return how long the log of requests is: what comes then comes after this moment."""
        return self.audit_log.stat().st_size

    def audit_events(self, after: int = 0) -> list[dict[str, Any]]:
        """Return the requests that the API server has answered after a position, if it is audited."""
        with self.audit_log.open("rb") as file:
            file.seek(after)
            return [json.loads(line) for line in file if line.endswith(b"\n")]

    def kubectl(self, *arguments: str) -> list[str]:
        """Return the command line of a kubectl that may do everything."""
        program = str(self.settings.programs / "kubectl")
        return inside(self.settings.namespace, program, f"--kubeconfig={self.kubeconfig(ADMIN)}", *arguments)

    def _daemon(self, name: str, *arguments: str) -> Daemon:
        program = str(self.settings.programs / name)
        return Daemon(self.settings.namespace, (program, *arguments), self.settings.folder / f"{name}.log")

    def _controller(self, name: str, *arguments: str) -> Daemon:
        access = f"kubeconfig={self.kubeconfig(ADMIN)}"
        accesses = (f"--{access}", f"--authentication-{access}", f"--authorization-{access}")
        return self._daemon(name, *accesses, "--leader-elect=false", "--secure-port=0", *arguments)

    def _api_server_arguments(self) -> tuple[str, ...]:
        settings, credentials = self.settings, self.credentials
        certificate, key = credentials.server
        accounts, accounts_key = credentials.accounts
        return (
            f"--etcd-servers={self.etcd.url}",
            f"--secure-port={PORT}",
            f"--advertise-address={settings.address}",
            f"--service-cluster-ip-range={settings.service_cidrs}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={credentials.authority}",
            f"--token-auth-file={credentials.tokens}",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=RBAC",
            *(self._audit_arguments() if settings.is_audited else ()),
            *settings.arguments,
        )

    def _audit_arguments(self) -> tuple[str, ...]:
        policy = self.settings.folder / "audit-policy.json"
        policy.write_text(json.dumps(_AUDIT_POLICY))
        return f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"


@contextmanager
def control_plane(settings: Settings) -> Iterator[ControlPlane]:
    """Run etcd and kube-apiserver until the block ends.

    Raises:
        ControlPlaneError: one of them does not start.
    """
    plane = ControlPlane(settings)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
