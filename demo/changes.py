# SPDX-License-Identifier: Apache-2.0
"""Scenes: endpoints come and go."""

from __future__ import annotations

from demo.agent import NODE_NAME
from demo.processes import Background
from demo.show import CLUSTER_IPV4, SERVICE_PORT, Show, wait_for_more
from demo.waiting import wait_until
from demo.world import NODE

_MILLION = 1e6
_MANY = 300
"""Connections after which an endpoint that is still in use would have shown."""


def endpoint_added(show: Show) -> None:
    """Show that a new endpoint is in use within milliseconds."""
    stage = show.stage
    stage.scene("An endpoint is added while connections are made without end")
    connections = show.world["client-1"].repeat(CLUSTER_IPV4, SERVICE_PORT)
    wait_for_more(connections, _MANY)
    stage.did("web-4 is written into the EndpointSlices; the file is renamed into place")
    changed = show.manifests.add_endpoint(*NODE.pod_addresses("web-4"), NODE_NAME)
    wait_until(lambda: "web-4" in connections.repetition().first, "a connection that web-4 answers")
    wait_for_more(connections, _MANY)
    seen = connections.stop_repetition()
    delay = (seen.first["web-4"] - changed) / _MILLION
    stage.expect(not seen.errors, "no connection to fail", seen.errors)
    stage.saw(f"{delay:.1f} ms after the rename web-4 had answered its first connection")
    stage.saw(f"{seen.made} connections meanwhile, none failed")


def endpoint_removed(show: Show) -> None:
    """Show that an endpoint that leaves gets no new connection."""
    stage = show.stage
    stage.scene("An endpoint leaves")
    connections = show.world["client-1"].repeat(CLUSTER_IPV4, SERVICE_PORT)
    wait_until(lambda: "web-2" in connections.repetition().answers, "a connection that web-2 answers")
    stage.did("web-2 is taken out of the EndpointSlices; the file is renamed into place")
    changed = show.manifests.remove_endpoint(*NODE.pod_addresses("web-2"))
    wait_until(lambda: _unused_for_long(connections), "web-2 to get no more connections")
    seen = connections.stop_repetition()
    stage.expect(not seen.errors, "no connection to fail", seen.errors)
    delay = (seen.last["web-2"] - changed) / _MILLION
    last = f"{delay:.1f} ms after the rename" if delay > 0 else "before the rename"
    stage.saw(f"the last connection that web-2 answered began {last}")
    stage.saw(f"{seen.made} connections meanwhile, none failed")


def _unused_for_long(connections: Background) -> bool:
    """Whether none of the last many connections was answered by web-2."""
    before = connections.repetition().answers["web-2"]
    return wait_for_more(connections, _MANY).answers["web-2"] == before
