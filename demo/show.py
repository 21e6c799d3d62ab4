# SPDX-License-Identifier: Apache-2.0
"""What every scene has at hand, and what several of them look at."""

from __future__ import annotations

from dataclasses import dataclass

from demo.agent import Agent
from demo.manifest_folder import ManifestFolder
from demo.processes import Answers, Background, Repetition
from demo.stage import Stage
from demo.waiting import wait_until
from demo.world import World

CLUSTER_IPV4, CLUSTER_IPV6 = "10.96.0.10", "fd00:10:96::10"
STICKY, NOBODY = "10.96.0.20", "10.96.0.30"
EXTERNAL_IP, LOAD_BALANCER_IP = "203.0.113.10", "198.51.100.10"
SERVICE_PORT, NODE_PORT = 80, 30080
"""As in the manifests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """The stage, the world on it, and the agent with its manifests."""

    stage: Stage
    world: World
    manifests: ManifestFolder
    agent: Agent

    def expect_spread(self, seen: Answers, servers: set[str], peer: str) -> None:
        """Expect that all of some connections were answered, by each server its share, and show the Service as peer.

        A share below half of an equal one has a probability of less than one in ten thousand million with a hundred
        connections for each server.
        """
        total = sum(seen.answers.values())
        self.stage.expect(not seen.errors, "no error", seen.errors)
        self.stage.expect(seen.answers.keys() == servers, f"answers of {sorted(servers)}", seen.answers)
        least = total / len(servers) / 2
        self.stage.expect(min(seen.answers.values()) >= least, f"at least {least:g} answers of each", seen.answers)
        self.stage.expect(seen.peers.keys() == {peer}, f"getpeername() to show {peer}", seen.peers)


def wait_for_more(background: Background, number: int) -> Repetition:
    """Return when connections without end have made so many more, however they ended."""

    def total(state: Repetition) -> int:
        return state.made + sum(state.errors.values())

    goal = total(background.repetition()) + number
    wait_until(lambda: total(background.repetition()) >= goal, f"{number} more connections")
    return background.repetition()


def show_peer(address: str, port: int) -> str:
    """Return an address and port as a socket's name is written."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
