# SPDX-License-Identifier: Apache-2.0
"""The demo's story, from the first connection to the last trace removed."""

from __future__ import annotations

import sys

from demo import changes, frontends, lifecycle
from demo.agent import Agent
from demo.manifest_folder import ManifestFolder
from demo.playing import Place, play
from demo.show import Show
from demo.stage import Stage
from demo.world import World

SCENES = (
    frontends.before_the_agent,
    lifecycle.agent_starts,
    frontends.cluster_ips,
    frontends.external_frontends,
    frontends.refused,
    frontends.affinity,
    changes.endpoint_added,
    changes.endpoint_removed,
    lifecycle.agent_killed,
    lifecycle.dump,
    lifecycle.agent_stops,
)


def story(place: Place) -> None:
    """Play all scenes."""
    world = World(place.cgroup)
    manifests = ManifestFolder(place.folder)
    agent = Agent(world=world, source=f"--manifests={manifests.path}", bpffs=place.bpffs, log=place.log)
    show = Show(stage=Stage(place.console), world=world, manifests=manifests, agent=agent)
    for scene in SCENES:
        scene(show)


if __name__ == "__main__":
    sys.exit(play(story))
