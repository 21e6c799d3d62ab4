# SPDX-License-Identifier: Apache-2.0
"""What every scene has at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from demo.agent import Agent
from demo.cluster.kubelet import Kubelet
from demo.cluster.progress import Progress
from demo.cluster.slices import Slices
from demo.stage import Stage
from demo.waiting import wait_until
from demo.world import World
from tools.kubernetes.client import Client
from tools.kubernetes.control_plane import ControlPlane

ResultT = TypeVar("ResultT")

CLIENT = "client"
"""The pod that connects to the Service; nobody but the demo made it."""
_GLANCE = 0.05
"""Seconds between two looks at what goes on: rarely enough not to disturb it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """The stage and what is on it, and what became of each change."""

    stage: Stage
    world: World
    plane: ControlPlane
    user: Client
    """The API server, as somebody sees it who may do everything."""
    kubelet: Kubelet
    slices: Slices
    agent: Agent
    changes: list[tuple[str, Progress]] = field(default_factory=list)

    def wait_until(self, condition: Callable[[], ResultT], what: str) -> ResultT:
        """Wait for a condition, as long as nothing goes wrong behind the scenes."""

        def met() -> ResultT:
            self.kubelet.check()
            self.slices.check()
            self.plane.controller_manager.check()
            self.plane.scheduler.check()
            return condition()

        return wait_until(met, what, pause=_GLANCE)
