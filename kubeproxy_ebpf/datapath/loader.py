# SPDX-License-Identifier: Apache-2.0
"""Brings the programs and maps into the kernel, finds them there again, and takes them out.

All or nothing: whatever fails leaves the kernel as it was, and whatever a killed process leaves
half done the next start mends (:mod:`.pins`). An upgrade goes on with the pinned maps and replaces the program of
each link in place, so there is no moment without one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from kubeproxy_ebpf.datapath import memlock
from kubeproxy_ebpf.datapath.attach import HookState, inspect
from kubeproxy_ebpf.datapath.cgroups import open_cgroup
from kubeproxy_ebpf.datapath.device_attachments import PROGRAMS, attached_devices, filter_name, remove_filters
from kubeproxy_ebpf.datapath.errors import DatapathError
from kubeproxy_ebpf.datapath.libbpf.bpf_object import BpfObject, LoadError
from kubeproxy_ebpf.datapath.load_steps import Loading
from kubeproxy_ebpf.datapath.lock import FolderLock
from kubeproxy_ebpf.datapath.map_sizes import MapSizes
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.datapath.packet_path import PacketPath
from kubeproxy_ebpf.datapath.pins import PinFolder, close_all

__all__ = ["Datapath", "DatapathError", "LoadError", "MapSizes", "load", "open_pinned", "unload"]

_OBJECTS = Path(__file__).parent.parent / "bpf"
CONNECT_OBJECT = _OBJECTS / "connect.bpf.o"
PACKET_OBJECTS = (_OBJECTS / "forward.bpf.o", _OBJECTS / "sweep.bpf.o")
LOCK_TIMEOUT = 30.0
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Datapath:
    """The programs at work, and the right to write their maps. Closing leaves everything running."""

    store: KernelMapStore
    restored: bool
    """The maps were there before, with their contents."""
    packets: PacketPath | None
    """None: the packet programs are not wanted, or cannot be loaded."""
    _lock: FolderLock

    def close(self) -> None:
        """Give up the maps and the lock; the programs go on."""
        if self.packets is not None:
            self.packets.close()
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
    packet_objects: Sequence[Path] = (),
    constants: Mapping[str, int] | None = None,
) -> Datapath:
    """Load, attach and pin, or upgrade what is pinned; wait for another agent's lock up to ``lock_timeout`` seconds.

    ``constants`` are the programs' numbers that the verifier compiles in; they go before what the loader finds out.
    ``packet_objects``: what may fail, and leaves the socket programs at work then.

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
    with BpfObject(object_path) as sockets, ExitStack() as finally_, ExitStack() as on_failure:
        lock = FolderLock(pin_folder, lock_timeout)
        on_failure.callback(lock.release)
        on_failure.callback(_remove_if_empty, pin_folder)
        pins.refuse_unknown_layouts()
        pins.mend()
        loading = Loading(pins, sizes.as_mapping(), constants or {}, finally_, on_failure)
        loading.load_sockets(sockets)
        loading.try_to_load_packets(packet_objects)
        loading.copy_resized()
        store = loading.open_store()
        loading.stage(cgroup, sockets)
        loading.copy_latecomers()
        packets = loading.open_packet_path()
        pins.commit()
        on_failure.pop_all()
        _clear(pins, drops_filters=packets is None)
    _log.info("datapath_loaded", pin_folder=str(pin_folder), cgroup=str(cgroup), restored=loading.restored)
    return Datapath(store, loading.restored, packets, lock)


def _allow_memory() -> None:
    if not memlock.raise_limit() and memlock.counts_maps():
        remedy = "add CAP_SYS_RESOURCE, or start the agent with an unlimited RLIMIT_MEMLOCK"
        _log.warning("memlock_limit_stays", reason="this kernel counts maps against it", remedy=remedy)


def _clear(pins: PinFolder, *, drops_filters: bool) -> None:
    try:
        if drops_filters:
            remove_filters(filter_name(pins.path))
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
        OSError: the kernel does not let go of a filter.
    """
    if not pin_folder.is_dir():
        remove_filters(filter_name(pin_folder))  # they outlive a bpffs that was unmounted
        return False
    pins = PinFolder(pin_folder)
    lock = FolderLock(pin_folder, lock_timeout)
    try:
        remove_filters(filter_name(pin_folder))
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


def pinned_devices(pin_folder: Path) -> frozenset[str] | None:
    """Return the names of the network devices that run packet programs; None: none are loaded.

    Raises:
        OSError: the kernel does not say.
    """
    pins = PinFolder(pin_folder)
    if not any(map(pins.has_program, PROGRAMS)):
        return None
    links = pins.open_device_links()
    try:
        return attached_devices(links.values(), filter_name(pin_folder))
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
