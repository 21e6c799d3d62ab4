# SPDX-License-Identifier: Apache-2.0
"""The demo's story, from the first connection to the last trace removed. Started by :mod:`demo.supervise`.

``python -m demo.scenes FOLDER CGROUP``, in a mount and a process-id namespace of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from demo import changes, frontends, lifecycle
from demo.agent import Agent
from demo.manifest_folder import ManifestFolder
from demo.show import Show
from demo.stage import ExpectationError, Stage
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
BPFFS = "bpffs"
"""Name of the BPF file system in the demo's folder; mounted in the demo's mount namespace only."""
_LOG_LINES = 15


def main() -> int:
    """Play all scenes; return 0 if each expectation held."""
    folder, cgroup = Path(sys.argv[1]), Path(sys.argv[2])
    console, log = Console(highlight=False), folder / "agent.log"
    try:
        _play(console, folder, cgroup, log)
    except (ExpectationError, TimeoutError, RuntimeError, OSError, subprocess.CalledProcessError) as problem:
        console.print(f"\n[red]{type(problem).__name__}:[/] {escape(str(problem))}")
        if log.exists():
            console.print("\nThe agent's last words:")
            console.print("\n".join(log.read_text().splitlines()[-_LOG_LINES:]), markup=False, soft_wrap=True)
        return 1
    return 0


def _play(console: Console, folder: Path, cgroup: Path, log: Path) -> None:
    bpffs = folder / BPFFS
    bpffs.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", bpffs], check=True)
    world = World(cgroup)
    manifests = ManifestFolder(folder)
    agent = Agent(world=world, manifests=manifests.path, bpffs=bpffs, log=log)
    show = Show(stage=Stage(console), world=world, manifests=manifests, agent=agent)
    for scene in SCENES:
        scene(show)


if __name__ == "__main__":
    sys.exit(main())
