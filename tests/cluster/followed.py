# SPDX-License-Identifier: Apache-2.0
"""The agent's own source and observer, fed by the API server, in the hands of a test.

The source runs in a process on the node, as it has threads. Its updates come through a pipe.
"""

from __future__ import annotations

import itertools
import select
from collections.abc import Iterator, Mapping
from pathlib import Path

from kubeproxy_ebpf.decode import decode_endpoint_slice, decode_node, decode_service
from kubeproxy_ebpf.kubernetes.source import ApiServerSource
from kubeproxy_ebpf.model.network import NodeAddresses
from kubeproxy_ebpf.model.objects import KubernetesObject, ObjectName
from kubeproxy_ebpf.observer import Observer
from kubeproxy_ebpf.source import ObjectKey, Update
from tests.behaviour import NODE_NAME, Case
from tests.cluster.cluster import Cluster
from tests.kernel.agent_process import endpoint_slice, service
from tests.kernel.processes import Background

MARK, MARK_IP = "mark", "10.96.255.254"
_MARKED = ("Service", "EndpointSlice")
_NODE = ObjectKey("Node", ObjectName("", NODE_NAME))


def follow(kubeconfig: Path) -> Iterator[list[Update]]:
    """Yield what an API server says, without end."""
    source = ApiServerSource(kubeconfig=kubeconfig, api_servers=(), node_name=NODE_NAME, needs_pod_cidrs=False)
    while True:
        select.select([source], [], [])
        yield source.drain()


class Followed:
    """What the source says, case after case."""

    def __init__(self, cluster: Cluster, source: Background) -> None:
        """Take over a process that runs :func:`follow`."""
        self._cluster = cluster
        self._source = source
        self._marks = itertools.count(1)
        self._known: dict[ObjectKey, KubernetesObject | None] = {}
        self._take(source.ready)

    def begin(self, case: Case) -> Observer:
        """Forget what was, and return an observer that knows the case's Node and what its interfaces have."""
        self._cluster.clear(but=(MARK,))
        self.catch_up()
        self._cluster.put(case.node_object)
        expected = decode_node(self._cluster.read(case.node_object))
        self._wait_for({_NODE: expected})
        observer = Observer(case.settings, NODE_NAME, NodeAddresses(case.node.interface_addresses, None, None))
        observer.observe([Update(_NODE, expected)])
        return observer

    def catch_up(self) -> list[Update]:
        """Return what is news, when all has come that the API server knew before."""
        number = next(self._marks)
        marks = service(MARK, MARK_IP, port=number), endpoint_slice(MARK, [], port=number)
        self._cluster.put(*marks)
        newest = decode_service(self._cluster.read(marks[0])), decode_endpoint_slice(self._cluster.read(marks[1]))
        return self._wait_for({ObjectKey(kind, one.name): one for kind, one in zip(_MARKED, newest, strict=True)})

    def _wait_for(self, expected: Mapping[ObjectKey, KubernetesObject]) -> list[Update]:
        news: list[Update] = []
        while any(self._known.get(key) != newest for key, newest in expected.items()):
            news += self._take(self._source.next())
        return [update for update in news if update.key.name.name != MARK]

    def _take(self, updates: list[Update]) -> list[Update]:
        self._known.update({update.key: update.newest for update in updates})
        return updates
