# SPDX-License-Identifier: Apache-2.0
"""Brings the programs and maps into the kernel, finds them there again, and takes them out.

All or nothing: whatever fails leaves the kernel as it was, and whatever a killed process leaves
half done the next start mends (:mod:`.pins`). An upgrade goes on with the pinned maps and replaces the program of
each link in place, so there is no moment without one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from kubeproxy_ebpf.datapath import memlock, resize
from kubeproxy_ebpf.datapath.attach import Attachment, HookState, hook_name, inspect
from kubeproxy_ebpf.datapath.cgroups import open_cgroup
from kubeproxy_ebpf.datapath.errors import DatapathError, MixedVersionsError, NotLoadedError
from kubeproxy_ebpf.datapath.grace_period import GracePeriod
from kubeproxy_ebpf.datapath.layout_check import require_agents_layout, require_same_layout
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.bpf_object import BpfObject, LoadError
from kubeproxy_ebpf.datapath.lock import FolderLock
from kubeproxy_ebpf.datapath.map_sizes import MapSizes
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.datapath.pins import PinFolder, close_all
from kubeproxy_ebpf.datapath.verdict_form import probe_verdict_form

__all__ = ["Datapath", "DatapathError", "LoadError", "MapSizes", "load", "open_pinned", "unload"]

CONNECT_OBJECT = Path(__file__).parent.parent / "bpf" / "connect.bpf.o"
LOCK_TIMEOUT = 30.0
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Datapath:
    """The programs at work, and the right to write their maps. Closing leaves everything running."""

    store: KernelMapStore
    restored: bool
    """The maps were there before, with their contents."""
    _lock: FolderLock

    def close(self) -> None:
        """Give up the maps and the lock; the programs go on."""
        self.store.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()


def load(
    *,
    pin_folder: Path,
    cgroup: Path,
    sizes: MapSizes,
    lock_timeout: float = LOCK_TIMEOUT,
    object_path: Path = CONNECT_OBJECT,
    constants: Mapping[str, int] | None = None,
) -> Datapath:
    """Load, attach and pin, or upgrade what is pinned; wait for another agent's lock up to ``lock_timeout`` seconds.

    ``constants`` are the programs' numbers that the verifier compiles in; they go before what the loader finds out.

    Raises:
        DatapathError: a named subclass says what is missing and how to mend it.
        LoadError: the verifier refused; carries the end of its log.
        KernelError: the kernel refused something else.
    """
    pins = PinFolder(pin_folder)
    pins.require_bpffs()
    os.close(open_cgroup(cgroup))
    _allow_memory()
    # What both ways out close is closed last: undoing still needs the descriptors.
    with BpfObject(object_path) as object_, ExitStack() as finally_, ExitStack() as on_failure:
        lock = FolderLock(pin_folder, lock_timeout)
        on_failure.callback(lock.release)
        on_failure.callback(_remove_if_empty, pin_folder)
        pins.refuse_unknown_layouts()
        pins.mend()
        loading = _Loading(pins, object_, finally_, on_failure)
        loading.choose_maps(sizes)
        loading.set_constants(constants or {})
        object_.load()
        loading.copy_resized()
        store = loading.open_store()
        loading.stage(cgroup)
        loading.copy_latecomers()
        pins.commit()
        on_failure.pop_all()
        _clear(pins)
    _log.info("datapath_loaded", pin_folder=str(pin_folder), cgroup=str(cgroup), restored=loading.restored)
    return Datapath(store, loading.restored, lock)


class _Loading:
    """The steps between opening the object and the commit, and what each leaves to undo."""

    def __init__(self, pins: PinFolder, object_: BpfObject, finally_: ExitStack, on_failure: ExitStack) -> None:
        self._pins = pins
        self._object = object_
        self._finally = finally_
        self._on_failure = on_failure
        self._maps = [map_ for map_ in object_.maps() if not map_.internal]
        self._pinned = self._open_pinned_maps()
        self._resized: dict[str, int] = {}
        self._entries: dict[str, int] = {}
        self.restored = bool(self._pinned)

    def _open_pinned_maps(self) -> dict[str, int]:
        try:
            pinned = self._pins.open_maps()
        except NotLoadedError:
            return {}
        self._finally.callback(close_all, pinned.values())
        return pinned

    def choose_maps(self, sizes: MapSizes) -> None:
        """Decide for each map: go on with the pinned one, replace it by a larger one, or create it."""
        found = {name: syscalls.map_info(fd) for name, fd in self._pinned.items()}
        require_same_layout(self._maps, found)
        require_agents_layout({map_.name: map_ for map_ in self._maps})
        wanted = sizes.as_mapping()
        missing = wanted.keys() - {map_.name for map_ in self._maps}
        if missing:
            msg = f"the programs have no map {', '.join(sorted(missing))}: install the package again"
            raise MixedVersionsError(msg)
        for map_ in self._maps:
            entries = self._object.set_entries(map_.name, wanted.get(map_.name, map_.max_entries))
            pinned = found.get(map_.name)
            self._entries[map_.name] = max(entries, pinned.max_entries if pinned else 0)
            if pinned is None:
                continue
            if pinned.max_entries >= entries:
                self._object.reuse_map(map_.name, self._pinned[map_.name])
            else:
                self._resized[map_.name] = self._pinned[map_.name]
                _log.info("map_resized", map=map_.name, entries=pinned.max_entries, new_entries=entries)

    def set_constants(self, chosen: Mapping[str, int]) -> None:
        """Give the programs what must be known before the verifier sees them."""
        peer_names = self._entries.get(resize.PEER_NAMES, 1)
        found_out = {"verdict_form": int(probe_verdict_form()), "peer_name_mask": peer_names - 1}
        for name, value in found_out.items():
            if name not in chosen and self._object.has_constant(name):
                self._object.set_constant(name, value)
        for name, value in chosen.items():
            self._object.set_constant(name, value)

    def copy_resized(self) -> None:
        """Fill the larger maps."""
        for name, old in self._resized.items():
            resize.copy_contents(name, old, self._object.map_fd(name))

    def open_store(self) -> KernelMapStore:
        """Open all maps for the agent, from descriptors of its own."""
        store = KernelMapStore({map_.name: os.dup(self._object.map_fd(map_.name)) for map_ in self._maps})
        self._on_failure.callback(store.close)
        return store

    def stage(self, cgroup: Path) -> None:
        """Pin the maps, attach or replace every program, pin the links: all beside what is in use."""
        links = self._pins.open_links()
        self._finally.callback(close_all, links.values())
        programs = self._pins.open_programs()
        self._finally.callback(close_all, programs.values())
        self._on_failure.callback(self._pins.mend)
        self._pins.begin()
        for map_ in self._maps:
            self._pins.stage("maps", map_.name, self._object.map_fd(map_.name))
        attachment = Attachment(cgroup, links, programs)
        self._finally.callback(attachment.close)
        self._on_failure.callback(attachment.undo)
        for program in self._object.programs():
            hook, program_fd = hook_name(program.attach_type), self._object.program_fd(program.name)
            link = attachment.attach(program.attach_type, program_fd)
            self._pins.stage("programs", hook, program_fd)
            self._pins.stage("links", hook, link)

    def copy_latecomers(self) -> None:
        """Once the programs use the larger maps: bring over what they still wrote to the smaller ones."""
        if self._resized:
            grace_period = GracePeriod()
            grace_period.wait()
            grace_period.close()
        for name, old in self._resized.items():
            resize.copy_latecomers(name, old, self._object.map_fd(name))


def _allow_memory() -> None:
    if not memlock.raise_limit() and memlock.counts_maps():
        remedy = "add CAP_SYS_RESOURCE, or start the agent with an unlimited RLIMIT_MEMLOCK"
        _log.warning("memlock_limit_stays", reason="this kernel counts maps against it", remedy=remedy)


def _clear(pins: PinFolder) -> None:
    try:
        pins.mend()
    except OSError as error:
        # The new state is at work; what is left of the old one is in the way of nobody, and the next start tries again.
        _log.warning("old_state_not_removed", pin_folder=str(pins.path), error=str(error))


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def unload(pin_folder: Path, *, lock_timeout: float = LOCK_TIMEOUT) -> bool:
    """Detach and remove everything in a pin folder; False if there was nothing.

    Raises:
        LockedError: an agent is using it.
        BpffsError: the folder holds something else as well.
    """
    if not pin_folder.is_dir():
        return False
    pins = PinFolder(pin_folder)
    lock = FolderLock(pin_folder, lock_timeout)
    try:
        pins.remove_all()
    finally:
        lock.release()
    _log.info("datapath_unloaded", pin_folder=str(pin_folder))
    return True


def pinned_hooks(pin_folder: Path, cgroup: Path) -> tuple[HookState, ...]:
    """Return who runs at each hook of a cgroup, and whether what is pinned here is among them.

    Raises:
        CgroupError: the path is no cgroup.
    """
    links = PinFolder(pin_folder).open_links()
    try:
        return inspect(cgroup, links)
    finally:
        close_all(links.values())


def open_pinned(pin_folder: Path, *, writable: bool = False) -> KernelMapStore:
    """Open the maps of a running data plane, with or without an agent; ``writable`` for what an agent leaves alone.

    Raises:
        NotLoadedError: there is none.
        UnknownLayoutError: it was loaded by a version with another layout.
    """
    pins = PinFolder(pin_folder)
    if pin_folder.is_dir():
        pins.refuse_unknown_layouts()
    return KernelMapStore(pins.open_maps(read_only=not writable), writable=writable)
