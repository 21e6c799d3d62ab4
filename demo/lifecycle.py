# SPDX-License-Identifier: Apache-2.0
"""Scenes: the agent starts, is killed and comes back; in the end everything is removed."""

from __future__ import annotations

from demo.processes import Background
from demo.show import CLUSTER_IPV4, SERVICE_PORT, Show, show_peer, wait_for_more
from demo.waiting import wait_until

_LINES = 2000
_CONNECTIONS = 1000
"""How much goes on between two acts upon the agent."""


def agent_starts(show: Show) -> None:
    """Start the agent: it reads the manifests and fills the maps."""
    stage = show.stage
    stage.scene("The agent starts on a folder of manifests")
    stage.did(f"kubeproxy-ebpf {' '.join(show.agent.arguments())}")
    took = show.agent.start()
    stage.saw(f"ready after {took:.0f} ms, {show.agent.writes()} writes into the maps")


def agent_killed(show: Show) -> None:
    """Show that neither a stream nor new connections notice that the agent is killed and comes back."""
    stage = show.stage
    stage.scene("kill -9 of the agent in the middle of a stream, while new connections go on")
    stream = show.world["client-1"].stream(CLUSTER_IPV4, SERVICE_PORT)
    connections = show.world["client-2"].repeat(CLUSTER_IPV4, SERVICE_PORT)
    _wait_for_traffic(stream, connections)
    server = stream.stream().answer
    stage.did(f"client-1: a stream to {show_peer(CLUSTER_IPV4, SERVICE_PORT)}; client-2: connections without end")
    show.agent.kill()
    stage.did(f"kill -9: the agent ended with {show.agent.process.returncode}")
    lines, made = _wait_for_traffic(stream, connections)
    stage.saw(f"without an agent: {lines} lines of the stream echoed by {server}, {made} new connections")
    took = show.agent.start()
    stage.did("the agent is started again")
    writes = show.agent.writes()
    stage.expect(writes == 0, "a restart without a write", f"{writes} writes")
    stage.saw(f"ready after {took:.0f} ms, {writes} writes into the maps")
    _wait_for_traffic(stream, connections)
    last_stream, last_connections = stream.stop_stream(), connections.stop_repetition()
    stage.expect(not last_stream.error, "the stream to go on", last_stream)
    stage.expect(not last_connections.errors, "no connection to fail", last_connections.errors)
    stage.saw(
        f"in all {last_stream.lines} lines on the one stream and {last_connections.made} connections; none failed"
    )


def _wait_for_traffic(stream: Background, connections: Background) -> tuple[int, int]:
    """Return when a lot more has gone over the stream and through new connections: how many lines and connections."""
    lines, made = stream.stream().lines, connections.repetition().made
    wait_until(lambda: stream.stream().lines >= lines + _LINES or stream.stream().error, f"{_LINES} more lines")
    wait_for_more(connections, _CONNECTIONS)
    return stream.stream().lines - lines, connections.repetition().made - made


def dump(show: Show) -> None:
    """Show what the kernel's maps say, for people."""
    show.stage.scene("What the kernel holds")
    show.stage.did("kubeproxy-ebpf dump services")
    show.stage.output(show.agent.run("dump", "services", f"--bpffs={show.agent.bpffs}"))


def agent_stops(show: Show) -> None:
    """Show that SIGTERM leaves the Services working, and that unload removes all of it."""
    stage = show.stage
    stage.scene("The agent is stopped, then everything is unloaded")
    took = show.agent.stop(stage)
    seen = show.world["client-1"].connect(CLUSTER_IPV4, SERVICE_PORT, count=_CONNECTIONS)
    stage.expect(not seen.errors, "Services to work on", seen.errors)
    stage.saw(f"SIGTERM: it ended after {took:.0f} ms; {_CONNECTIONS} connections later the Services still work")
    show.agent.unload(stage)
    seen = show.world["client-1"].connect(CLUSTER_IPV4, SERVICE_PORT)
    stage.expect(not seen.answers, "no answer from a ClusterIP", seen)
    stage.saw(f"nothing is pinned; the ClusterIP {CLUSTER_IPV4} gives {', '.join(seen.errors)}, as before")
