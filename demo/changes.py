# SPDX-License-Identifier: Apache-2.0
"""Scenes: endpoints come and go."""

from __future__ import annotations

from demo.agent import NODE_NAME
from demo.processes import Background, Repetition
from demo.show import CLUSTER_IPV4, SERVICE_PORT, Show, wait_for_more
from demo.waiting import wait_until
from demo.world import NODE

_MILLION = 1e6
_ROUNDS = 5
_FEW = 20
_MANY = 300
"""Connections after which an endpoint that is still in use would have shown."""


def endpoint_added(show: Show) -> None:
    """Show that a new endpoint is in use within milliseconds."""
    stage = show.stage
    stage.scene("An endpoint is added while connections are made without end")
    stage.did(f"web-4 is written into the EndpointSlices and the file renamed into place, {_ROUNDS} times")
    delays, made = [], 0
    for number in range(_ROUNDS):
        if number:
            _take_out(show, "web-4")
        delay, connections = _add_once(show)
        delays.append(delay)
        made += connections
    times = ", ".join(f"{delay:.1f}" for delay in delays)
    stage.saw(f"web-4 had answered its first connection {times} ms after the rename")
    stage.saw(f"{made} connections meanwhile, none failed")


def _add_once(show: Show) -> tuple[float, int]:
    """Add web-4; return the milliseconds until it had answered a connection, and how many were made in all."""
    connections = show.world["client-1"].repeat(CLUSTER_IPV4, SERVICE_PORT)
    wait_for_more(connections, _FEW)
    changed = show.manifests.add_endpoint(*NODE.pod_addresses("web-4"), NODE_NAME)
    wait_until(lambda: "web-4" in connections.repetition().first, "a connection that web-4 answers")
    seen = connections.stop_repetition()
    show.stage.expect(not seen.errors, "no connection to fail", seen.errors)
    delay = (seen.first["web-4"] - changed) / _MILLION
    show.stage.expect(delay > 0, "web-4 to answer after it was added only", f"{delay:.1f} ms")
    return delay, seen.made


def _take_out(show: Show, name: str) -> tuple[int, Repetition]:
    """Take a server out of the slices; return when, and what connections saw until long after that."""
    connections = show.world["client-1"].repeat(CLUSTER_IPV4, SERVICE_PORT)
    wait_until(lambda: name in connections.repetition().answers, f"a connection that {name} answers")
    changed = show.manifests.remove_endpoint(*NODE.pod_addresses(name))
    wait_until(lambda: _unused_for_long(connections, name), f"{name} to get no more connections")
    seen = connections.stop_repetition()
    show.stage.expect(not seen.errors, "no connection to fail", seen.errors)
    return changed, seen


def _unused_for_long(connections: Background, name: str) -> bool:
    """Whether none of the last many connections was answered by a server."""
    before = connections.repetition().answers[name]
    return wait_for_more(connections, _MANY).answers[name] == before


def endpoint_removed(show: Show) -> None:
    """Show that an endpoint that leaves gets no new connection."""
    stage = show.stage
    stage.scene("An endpoint leaves")
    stage.did("web-2 is taken out of the EndpointSlices and the file renamed into place")
    changed, seen = _take_out(show, "web-2")
    delay = (seen.last["web-2"] - changed) / _MILLION
    last = f"{delay:.1f} ms after the rename" if delay > 0 else "before the rename"
    stage.saw(f"the last connection that web-2 answered began {last}")
    stage.saw(f"{seen.made} connections meanwhile, none failed")
