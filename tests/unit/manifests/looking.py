# SPDX-License-Identifier: Apache-2.0
"""Texts of manifests, and what a watched folder says of them, in short forms."""

from __future__ import annotations

import select

from kubeproxy_ebpf.manifests import ManifestFolder
from kubeproxy_ebpf.model.address import format_address
from kubeproxy_ebpf.model.objects import KubernetesObject, ObjectName, Service
from kubeproxy_ebpf.source import ObjectKey, Update


def service(name: str, address: str = "10.96.0.1", extra: str = "") -> str:
    """Return a Service as YAML."""
    return (
        f"apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: {address}\n"
        f"  ports:\n  - port: 80\n{extra}"
    )


SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-abc
  labels: {kubernetes.io/service-name: web}
addressType: IPv4
ports: [{name: '', port: 8080}]
endpoints:
- addresses: [10.244.0.5]
"""
NODE = "apiVersion: v1\nkind: Node\nmetadata: {name: node-a}\n"


def named(name: str, kind: str = "Service") -> ObjectKey:
    """Return the key of an object in the default namespace."""
    return ObjectKey(kind, ObjectName("" if kind == "Node" else "default", name))


def newest(updates: list[Update]) -> dict[ObjectKey, KubernetesObject | None]:
    """Return the newest state of each object that changed."""
    return {update.key: update.newest for update in updates}


def said(updates: list[Update]) -> dict[str, str | None]:
    """Return, by name, the first ClusterIP of each Service that changed; None for one that is gone."""
    result: dict[str, str | None] = {}
    for key, state in newest(updates).items():
        assert state is None or isinstance(state, Service)
        result[key.name.name] = format_address(state.cluster_ips[0]) if state else None
    return result


def seen(folder: ManifestFolder) -> dict[str, str | None]:
    """Wait until the folder's descriptor says that something happened, and return what it means."""
    assert select.select([folder], [], [], 10)[0]
    return said(folder.drain())


def problems(folder: ManifestFolder) -> list[str]:
    """Return the problems without the folder's own path."""
    return [str(problem).replace(f"{problem.file.parent}/", "") for problem in folder.problems]


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        """Start at 100 seconds."""
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now
