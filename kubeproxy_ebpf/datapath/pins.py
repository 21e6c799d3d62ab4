# SPDX-License-Identifier: Apache-2.0
"""The pin folder: what it holds, how a new state takes the old one's place, and how a half-way one is mended.

::

    kubeproxy-ebpf/
        layout_1/           what is in use: maps/frontends, links/connect4, device_links/2_ingress,
                            programs/connect4, programs/forward_ingress, …
        layout_1_incoming/  a complete state being built
        layout_1_outgoing/  one that is being removed

A state is built apart (objects may be pinned in several places), then takes its place by two renames.
Whatever a process leaves behind when it is killed can be told from which folders there are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from kubeproxy_ebpf.datapath.errors import BpffsError, NotLoadedError, UnknownLayoutError
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.errors import KernelError
from kubeproxy_ebpf.datapath.libbpf.kernel_types import BPFFS_MAGIC
from kubeproxy_ebpf.layout.changes import ArrayMap
from kubeproxy_ebpf.map_schema import LAYOUT_VERSION

_FOLDER = re.compile(r"layout_(\d+)(_incoming|_outgoing)?")
DEVICE_LINKS = "device_links"
"""Their folder: links at network devices come and go while a state is in use."""
_LINKS = ("links", DEVICE_LINKS)
_KINDS = (*_LINKS, "programs", "maps")
"""The folders of one state."""
_SHARED = frozenset(array.value for array in ArrayMap)


class PinFolder:
    """The folders of one pin folder. Only the holder of its lock changes them."""

    def __init__(self, path: Path, layout: int = LAYOUT_VERSION) -> None:
        """Name the folder and the version of the maps' layout; nothing is touched."""
        self.path = path
        self.layout = layout
        self.current = path / f"layout_{layout}"
        self.incoming = path / f"layout_{layout}_incoming"
        self.outgoing = path / f"layout_{layout}_outgoing"

    def require_bpffs(self) -> None:
        """Raise BpffsError unless the folder's parent lies in a BPF file system."""
        parent = self.path.parent
        try:
            found = syscalls.filesystem_magic(str(parent))
        except KernelError:
            found = 0
        if found != BPFFS_MAGIC:
            msg = f"{parent} is not in a BPF file system: mount -t bpf bpf {parent}, or name another with --bpffs"
            raise BpffsError(msg)

    def refuse_unknown_layouts(self) -> None:
        """Raise UnknownLayoutError if a version with another layout left its state here."""
        unknown = sorted(self._layouts() - {self.layout})
        if unknown:
            msg = (
                f"{self.path} holds maps of layout {unknown[0]}, this version knows layout {self.layout}: "
                "run `kubeproxy-ebpf unload`, then start again; Services do not work in between"
            )
            raise UnknownLayoutError(msg)

    def _layouts(self) -> set[int]:
        matches = (_FOLDER.fullmatch(folder.name) for folder in self.path.iterdir())
        return {int(match[1]) for match in matches if match}

    def mend(self) -> None:
        """Finish or undo what a killed process left: before the first rename it is undone, after it finished."""
        if not self.current.exists() and self.outgoing.exists() and self.incoming.exists():
            self.incoming.rename(self.current)
        kept = link_ids(self.current) if self.current.exists() else frozenset()
        for folder in (self.outgoing, self.incoming):
            remove(folder, kept)

    def begin(self) -> None:
        """Create the empty folders of a state to build."""
        for folder in (self.incoming, *(self.incoming / kind for kind in _KINDS)):
            folder.mkdir(mode=0o700)

    def stage(self, kind: str, name: str, fd: int) -> None:
        """Pin an object of the state being built; ``kind`` is maps, links, device_links or programs."""
        syscalls.pin(fd, str(self.incoming / kind / name))

    def commit(self) -> None:
        """Let the state that was built take the place of the one in use, which :meth:`mend` then removes."""
        replaced = self.current.exists()
        if replaced:
            self.current.rename(self.outgoing)
        try:
            self.incoming.rename(self.current)
        except OSError:
            if replaced:
                self.outgoing.rename(self.current)
            raise

    def remove_all(self) -> None:
        """Detach, unpin and remove everything, whatever its layout, and the folder itself.

        Raises:
            BpffsError: something is in the folder that is not the agent's.
        """
        for layout in sorted(self._layouts()):
            state = PinFolder(self.path, layout)
            state.mend()
            if state.current.exists():
                # From here on it counts as gone: a start after a kill goes on removing.
                state.current.rename(state.outgoing)
                remove(state.outgoing, frozenset())
        strangers = sorted(path.name for path in self.path.iterdir())
        if strangers:
            msg = f"{self.path} also holds what is not this agent's ({', '.join(strangers)}): remove it by hand"
            raise BpffsError(msg)
        self.path.rmdir()

    def open_maps(self, *, read_only: bool = False) -> dict[str, int]:
        """Return descriptors of all maps in use, by name; they are the caller's.

        Raises:
            NotLoadedError: nothing is pinned here.
        """
        # Between the two renames of a commit, and if a process was killed there, the old state is in the outgoing one.
        folder = next((f / "maps" for f in (self.current, self.outgoing) if (f / "maps").is_dir()), None)
        if folder is None:
            msg = f"nothing is loaded in {self.path}: start the agent with `kubeproxy-ebpf run`"
            raise NotLoadedError(msg)
        return _open_all(folder, read_only=read_only)

    def open_links(self) -> dict[str, int]:
        """Return descriptors of all links in use, by name; they are the caller's."""
        return self._open_kind("links")

    def open_device_links(self) -> dict[str, int]:
        """Return descriptors of the links at network devices, by name; they are the caller's."""
        return self._open_kind(DEVICE_LINKS)

    def open_programs(self) -> dict[str, int]:
        """Return descriptors of the programs in use, by name; they are the caller's."""
        return self._open_kind("programs")

    def has_program(self, name: str) -> bool:
        """Whether a program of this name is in use."""
        return self.program_path(name).exists()

    def program_path(self, name: str) -> Path:
        """Return where a program in use is pinned."""
        return self.current / "programs" / name

    @property
    def map_folder(self) -> Path:
        """Where the maps in use are pinned."""
        return self.current / "maps"

    def _open_kind(self, kind: str) -> dict[str, int]:
        folder = self.current / kind
        return _open_all(folder, read_only=False) if folder.is_dir() else {}


def _open_all(folder: Path, *, read_only: bool) -> dict[str, int]:
    descriptors: dict[str, int] = {}
    try:
        for path in sorted(folder.iterdir()):
            # A read-only descriptor cannot be shared as memory, not even for reading (EINVAL).
            only_read = read_only and path.name not in _SHARED
            descriptors[path.name] = syscalls.open_pinned(str(path), read_only=only_read)
    except BaseException:
        close_all(descriptors.values())
        raise
    return descriptors


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors."""
    for fd in descriptors:
        os.close(fd)


def link_ids(folder: Path) -> frozenset[int]:
    """Return the ids of the links pinned in a state's folder."""
    links = [path for kind in _LINKS for path in folder.glob(f"{kind}/*")]
    return frozenset(link_of(path).id for path in links)


def link_of(path: Path) -> syscalls.LinkInfo:
    """Return the description of a pinned link."""
    fd = syscalls.open_pinned(str(path))
    try:
        return syscalls.link_info(fd)
    finally:
        os.close(fd)


def remove(folder: Path, kept_links: frozenset[int]) -> None:
    """Remove a state's folder if it is there; its links are detached at once unless they are kept elsewhere."""
    if not folder.exists():
        return
    for kind in _LINKS:
        for path in sorted(folder.glob(f"{kind}/*")):
            _detach(path, kept_links)
            path.unlink()
    for kind in ("programs", "maps"):
        for path in sorted(folder.glob(f"{kind}/*")):
            path.unlink()
    for sub_folder in _KINDS:
        with suppress(FileNotFoundError):
            (folder / sub_folder).rmdir()
    folder.rmdir()


def _detach(path: Path, kept_links: frozenset[int]) -> None:
    fd = syscalls.open_pinned(str(path))
    try:
        if syscalls.link_info(fd).id not in kept_links:
            syscalls.link_detach(fd)
    finally:
        os.close(fd)
