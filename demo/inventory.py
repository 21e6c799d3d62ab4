# SPDX-License-Identifier: Apache-2.0
"""What there is on this machine, and what of it belongs to the demo: listed before and after, and compared.

Other people use the machine too, so a difference alone proves nothing. What the demo's own processes hold (their
namespaces, and every BPF object behind their descriptors) is collected while they run, by id; files, mounts and
cgroups of the demo carry its name.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from demo import cgroups
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.errors import KernelError

Listing = dict[str, frozenset[str]]
"""Kind of thing -> each one's name."""

PROCESSES, NAMESPACES, CGROUPS, MOUNTS = "processes", "network namespaces", "cgroups", "mounts"
PROGRAMS, MAPS, LINKS, PINS = "BPF programs", "BPF maps", "BPF links", "pins in bpffs"
DEVICES, ROUTES, FILES = "network devices", "routes and rules", "temporary files"

_OBJECTS = {"prog_id": PROGRAMS, "map_id": MAPS, "link_id": LINKS}
"""Keys of /proc/<process>/fdinfo/<descriptor> (proc(5))."""
_START_TIME = 19
"""Index of field 22 of /proc/<process>/stat, counted from the one after the name."""


def of_machine() -> Listing:
    """List what this machine has, as the caller's namespaces show it."""
    running = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    mounts = _mounts()
    return {
        **_of_processes(running),
        CGROUPS: frozenset(map(str, cgroups.tree(cgroups.cgroup_root()))),
        MOUNTS: frozenset(f"{where} ({kind})" for where, kind in mounts),
        PINS: frozenset(str(pin) for where, kind in mounts if kind == "bpf" for pin in _pins(Path(where))),
        DEVICES: frozenset(_lines("ip", "-oneline", "-brief", "link")),
        ROUTES: frozenset(
            f"{family} {line}"
            for family in ("-4", "-6")
            for what in (("route", "show", "table", "all"), ("rule",))
            for line in _lines("ip", family, *what)
        ),
        FILES: frozenset(map(str, Path(tempfile.gettempdir()).iterdir())),
        PROGRAMS: frozenset(map(str, syscalls.program_ids())),
        MAPS: frozenset(map(str, syscalls.map_ids())),
        LINKS: frozenset(map(str, syscalls.link_ids())),
    }


def of_demo(cgroup: Path, bpffs: Path) -> Listing:
    """List what the processes in the demo's cgroup are and hold at this moment, and what is pinned in their bpffs."""
    running = list(cgroups.processes(cgroup))
    found: dict[str, set[str]] = {kind: set() for kind in _OBJECTS.values()}
    pins: set[str] = set()
    for process in running:
        for kind, identity in _held_objects(process):
            found[kind].add(identity)
    if running:
        mount = Path(f"/proc/{running[0]}/root") / bpffs.relative_to("/")  # in the demo's mount namespace
        for pin in _pins(mount):
            pins.add(str(bpffs / pin.relative_to(mount)))
            for kind, identity in _pinned_objects(pin):
                found[kind].add(identity)
    objects = {kind: frozenset(ids) for kind, ids in found.items()}
    folders = frozenset(map(str, cgroups.tree(cgroup)))
    return {**_of_processes(running), CGROUPS: folders, PINS: frozenset(pins), **objects}


def joined(listings: Iterable[Listing]) -> Listing:
    """Return everything that is in any of the listings."""
    result: dict[str, frozenset[str]] = {}
    for listing in listings:
        for kind, items in listing.items():
            result[kind] = result.get(kind, frozenset()) | items
    return result


def leftovers(before: Listing, after: Listing, own: Listing, marks: tuple[str, ...]) -> Listing:
    """Return what is new on the machine and the demo's: by its id, or because its name has one of the marks in it."""
    return {
        kind: frozenset(
            item
            for item in items - before[kind]
            if item in own.get(kind, frozenset()) or any(mark in item for mark in marks)
        )
        for kind, items in after.items()
    }


def _of_processes(running: Iterable[int]) -> Listing:
    """List processes and, with each, its network namespace: a namespace's number is given away again at once."""
    names, namespaces = set(), set()
    for process in running:
        folder = Path(f"/proc/{process}")
        with suppress(OSError):  # it ended meanwhile
            started = (folder / "stat").read_text().rpartition(")")[2].split()[_START_TIME]
            name = f"{process} {(folder / 'comm').read_text().strip()} started at {started}"
            names.add(name)
            namespaces.add(f"{(folder / 'ns/net').readlink()} of {name}")
    return {PROCESSES: frozenset(names), NAMESPACES: frozenset(namespaces)}


def count(kind: str, items: frozenset[str]) -> int:
    """Return how many things a listing names: several processes share a namespace."""
    return len({item.partition(" ")[0] for item in items}) if kind == NAMESPACES else len(items)


def _pins(bpffs: Path) -> list[Path]:
    """Return the files in a BPF file system."""
    with suppress(OSError):  # it was removed meanwhile
        return [path for path in bpffs.rglob("*") if path.is_file()]
    return []


def _pinned_objects(pin: Path) -> list[tuple[str, str]]:
    """Return kind and id of what is pinned; a link names its program too."""
    try:
        descriptor = syscalls.open_pinned(str(pin))
    except KernelError:  # it was removed meanwhile
        return []
    try:
        return _described(Path(f"/proc/self/fdinfo/{descriptor}"))
    finally:
        os.close(descriptor)


def _held_objects(process: int) -> list[tuple[str, str]]:
    """Return kind and id of the BPF objects behind a process' descriptors."""
    found = []
    with suppress(OSError):  # it ended meanwhile
        for description in Path(f"/proc/{process}/fdinfo").iterdir():
            found += _described(description)
    return found


def _described(description: Path) -> list[tuple[str, str]]:
    """Return kind and id of the BPF objects that a file of fdinfo names."""
    with suppress(OSError):  # it was closed meanwhile
        fields = (line.partition(":") for line in description.read_text().splitlines())
        return [(_OBJECTS[key], value.strip()) for key, _, value in fields if key in _OBJECTS]
    return []


def _mounts() -> list[tuple[str, str]]:
    result = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        result.append((mount.split()[4], source.split()[0]))
    return result


def _lines(*command: str) -> list[str]:
    """Return what a command prints, without the time that an address or route has left."""
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [line.partition(" expires ")[0].strip() for line in output.splitlines()]
