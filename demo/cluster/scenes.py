# SPDX-License-Identifier: Apache-2.0
"""The story with Kubernetes in front: changes of a Deployment, from the API server to the connections of a pod."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from demo import cgroups
from demo.agent import NODE_NAME, Agent
from demo.cluster import changes, lifecycle
from demo.cluster.account import AGENT
from demo.cluster.kubelet import Kubelet
from demo.cluster.show import CLIENT, Show
from demo.cluster.slices import Slices
from demo.playing import Place, play
from demo.stage import Stage
from demo.world import NODE as DEMO_NODE
from demo.world import OUTSIDE, World
from tools.kubernetes.build import find
from tools.kubernetes.control_plane import ControlPlane, Settings

SCENES = (
    lifecycle.agent_starts,
    changes.create,
    changes.scale_up,
    changes.roll,
    changes.scale_down,
    changes.scale_to_zero,
    changes.scale_from_zero,
    changes.recreate,
    lifecycle.what_was_asked,
    lifecycle.agent_stops,
    lifecycle.all_changes,
)
NODE = replace(DEMO_NODE, pods={CLIENT: 11})
CONTROL = replace(OUTSIDE, name="control", pods={})
"""The other machine: the control plane."""


def story(place: Place) -> None:
    """Play all scenes."""
    control = cgroups.make(place.cgroup / "control-plane")
    (control / "cgroup.procs").write_text("0")  # what this process starts is in there, unless it is on the node
    stage, world = Stage(place.console), World(place.cgroup, NODE, CONTROL)
    plane = ControlPlane(_settings(place, world))
    kubelet, slices = Kubelet(plane, world, NODE, NODE_NAME), Slices(plane)
    with ExitStack() as stack:
        stack.callback(plane.stop)
        stack.callback(kubelet.stop)
        lifecycle.kubernetes_starts(stage, plane, kubelet, slices)
        agent = Agent(
            world=world,
            source=f"--kubeconfig={plane.kubeconfig(AGENT)}",
            bpffs=place.bpffs,
            log=place.log,
            more=("--log-level=debug",),  # says what each change took
        )
        user = stack.enter_context(closing(plane.client()))
        show = Show(stage=stage, world=world, plane=plane, user=user, kubelet=kubelet, slices=slices, agent=agent)
        for scene in SCENES:
            scene(show)


def _settings(place: Place, world: World) -> Settings:
    folder = place.folder / "control-plane"
    folder.mkdir()
    return Settings(
        programs=find(),
        folder=folder,
        namespace=Path(f"/proc/{world[CONTROL.name].process}/ns/net"),
        address=CONTROL.ipv4,
        is_audited=True,
        # Nobody but a kubelet's lease would take the taint off the Node again.
        arguments=("--disable-admission-plugins=TaintNodesByCondition",),
    )


if __name__ == "__main__":
    sys.exit(play(story))
