# SPDX-License-Identifier: Apache-2.0
"""Run a command; fail if it leaves anything behind in the kernel: `leaves_nothing.py COMMAND...`.

Looked at before and after: BPF programs, maps and links, pins, mounts, cgroups, network namespaces, and this
namespace's links, addresses, routes and rules. Others may be at work on the same machine, and the kernel frees some
things late; so what is new counts only if it is still there after a while, and what is gone only for the network.
Who made it cannot be told: the kernel notes it for none of these things, and a mount namespace for the command alone
would keep alive whatever others unmount meanwhile.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 20.0  # seconds for what the kernel frees late, or others are about to remove
NETWORK = ("link", "address", "route", "rule")
ROUTE_KEYS = ("type", "dst", "gateway", "dev", "table")

Snapshot = set[tuple[str, str]]
"""Kind and name of things."""


def snapshot() -> Snapshot:
    """Name everything there is."""
    return {
        (kind, name)
        for kind, names in (
            *((f"bpf {kind}", _bpf(kind)) for kind in ("prog", "map", "link")),
            ("mount", [mount.point for mount in _mounts()]),
            ("pin", _below("bpf", directories=False)),
            ("cgroup", _below("cgroup2", directories=True)),
            ("network namespace", _namespaces()),
            *((kind, _network(kind)) for kind in NETWORK),
        )
        for name in names
    }


class _Mount:
    def __init__(self, line: str) -> None:
        fields = line.split()
        self.point = fields[4].encode().decode("unicode_escape")
        self.type = fields[fields.index("-") + 1]


def _mounts() -> list[_Mount]:
    return [_Mount(line) for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _below(file_system: str, *, directories: bool) -> list[str]:
    roots = {mount.point for mount in _mounts() if mount.type == file_system}
    # os.walk passes over what goes meanwhile: others make and remove cgroups too.
    return [
        os.path.join(folder, name)  # noqa: PTH118 - os.walk speaks in strings
        for root in roots
        for folder, folders, files in os.walk(root)
        for name in (folders if directories else files)
    ]


def _bpf(kind: str) -> list[str]:
    shown = json.loads(_output("bpftool", "--json", kind, "show"))
    return [f"{thing['id']} {thing.get('name', thing['type'])}" for thing in shown]


def _namespaces() -> list[str]:
    """Those that have a name, and those that a process is in."""
    names = [str(path) for path in Path("/run/netns").glob("*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            names.append(str((process / "ns" / "net").readlink()))
        except OSError:
            continue  # the process has ended
    return names


def _network(kind: str) -> list[str]:
    everywhere = ("table", "all") if kind == "route" else ()
    names = []
    for family in ("-4", "-6"):
        for thing in json.loads(_output("ip", "-json", family, kind, "show", *everywhere) or "[]"):
            match kind:
                case "link":
                    names.append(thing["ifname"])
                case "address":
                    names += [f"{thing['ifname']} {info['local']}" for info in thing["addr_info"]]
                case "route":
                    names.append(" ".join(str(thing.get(key, "")) for key in ROUTE_KEYS))
                case "rule":
                    names.append(json.dumps(thing, sort_keys=True))
    return names


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def differences(before: Snapshot) -> list[str]:
    """Say what is there that was not, or the other way round; waits until there is nothing or patience ends."""
    until = time.monotonic() + PATIENCE
    left: Snapshot | None = None
    while True:
        now = snapshot()
        left = now - before if left is None else left & now
        gone = {thing for thing in before - now if thing[0] in NETWORK}
        if not left | gone or time.monotonic() > until:
            found = [*((*thing, "was left behind") for thing in left), *((*thing, "is gone") for thing in gone)]
            return [" ".join(words) for words in sorted(found)]
        time.sleep(0.5)


def run(command: list[str]) -> int:
    """Run a command to its end, which it chooses itself: an interrupted one has to tidy up first."""
    process = subprocess.Popen(command)
    signal.signal(signal.SIGINT, lambda *_: None)  # a terminal sends it to the command as well
    signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    return process.wait()


def main(command: list[str]) -> int:
    """Run the command; its status, or 1 if it did well but for what it left."""
    before = snapshot()
    status = run(command)
    sys.stdout.flush()
    found = differences(before)
    for line in found:
        print(f"leaves_nothing: {line}", file=sys.stderr)
    if found:
        print("leaves_nothing: it may be somebody else's who is at work on this machine, too", file=sys.stderr)
    return status or bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
