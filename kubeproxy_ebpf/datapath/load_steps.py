# SPDX-License-Identifier: Apache-2.0
"""The steps between opening the object files and the commit, and what each leaves to undo."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import structlog

from kubeproxy_ebpf.datapath import packet_path, resize
from kubeproxy_ebpf.datapath.attach import Attachment, hook_name
from kubeproxy_ebpf.datapath.device_attachments import ProgramReplacement, filter_name
from kubeproxy_ebpf.datapath.errors import MixedVersionsError, NotLoadedError
from kubeproxy_ebpf.datapath.grace_period import GracePeriod
from kubeproxy_ebpf.datapath.jiffies import JiffiesRate
from kubeproxy_ebpf.datapath.layout_check import require_agents_layout, require_same_layout
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.bpf_object import BpfObject, LoadError, MapDefinition
from kubeproxy_ebpf.datapath.libbpf.errors import KernelError
from kubeproxy_ebpf.datapath.map_sizes import FLOW_TABLES
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.datapath.packet_path import PacketPath
from kubeproxy_ebpf.datapath.pins import DEVICE_LINKS, PinFolder, close_all
from kubeproxy_ebpf.datapath.verdict_form import probe_verdict_form

_log = structlog.get_logger(__name__)


class Loading:
    """One load. Maps are shared by all objects; whatever of the old state still fits is used on."""

    def __init__(
        self,
        pins: PinFolder,
        sizes: Mapping[str, int],
        constants: Mapping[str, int],
        finally_: ExitStack,
        on_failure: ExitStack,
    ) -> None:
        """Look at what is pinned. What ``finally_`` closes is closed after ``on_failure`` has undone."""
        self._pins = pins
        self._sizes = sizes
        self._constants = constants
        self._found_out: dict[str, Callable[[], int]] = {"verdict_form": probe_verdict_form}
        self._finally = finally_
        self._on_failure = on_failure
        self._pinned = self._open_pinned_maps()
        self._found = {name: syscalls.map_info(fd) for name, fd in self._pinned.items()}
        self._maps: dict[str, int] = {}
        """What the programs use; the descriptors are the objects'."""
        self._resized: dict[str, int] = {}
        self._packet_programs: dict[str, int] = {}
        self.restored = bool(self._pinned)

    def _open_pinned_maps(self) -> dict[str, int]:
        try:
            pinned = self._pins.open_maps()
        except NotLoadedError:
            return {}
        self._finally.callback(close_all, pinned.values())
        return pinned

    def load_sockets(self, object_: BpfObject) -> None:
        """Load the socket programs and the maps that all programs share.

        Raises:
            DatapathError: the maps do not fit the agent, or what is pinned.
            LoadError: the verifier refused.
        """
        definitions = self._fitting_definitions(object_)
        require_agents_layout(definitions)
        missing = self._sizes.keys() - definitions.keys() - set(FLOW_TABLES)
        if missing:
            msg = f"the programs have no map {', '.join(sorted(missing))}: install the package again"
            raise MixedVersionsError(msg)
        self._load(object_, definitions)

    def try_to_load_packets(self, paths: Sequence[Path]) -> None:
        """Load the packet programs; if they cannot be, the sockets are served without them."""
        before = dict(self._maps), dict(self._resized)
        with ExitStack() as on_failure:
            try:
                self._found_out["jiffies_per_second"] = JiffiesRate().read
                objects = [on_failure.enter_context(BpfObject(path)) for path in paths]
                for object_ in objects:
                    self._load(object_, self._fitting_definitions(object_))
            except (LoadError, KernelError) as error:
                self._maps, self._resized = before
                reason = "Services answer this node's own sockets, and nobody else"
                _log.error("packet_programs_not_loaded", error=str(error), reason=reason)
            else:
                self._packet_programs = {
                    program.name: one.program_fd(program.name) for one in objects for program in one.programs()
                }
                self._finally.push(on_failure.pop_all())

    def _fitting_definitions(self, object_: BpfObject) -> dict[str, MapDefinition]:
        """Return an object's maps by name; none of them means something else than the pinned one."""
        definitions = {map_.name: map_ for map_ in object_.maps() if not map_.internal}
        require_same_layout(definitions.values(), self._found)
        return definitions

    def _load(self, object_: BpfObject, definitions: Mapping[str, MapDefinition]) -> None:
        self._choose_maps(object_, definitions.values())
        self._set_constants(object_)
        object_.load()
        self._maps |= {name: object_.map_fd(name) for name in definitions if name not in self._maps}

    def _choose_maps(self, object_: BpfObject, definitions: Iterable[MapDefinition]) -> None:
        """Decide for each map: share that of an earlier object, go on with the pinned one, enlarge it, or create it."""
        for map_ in definitions:
            entries = object_.set_entries(map_.name, self._sizes.get(map_.name, map_.max_entries))
            pinned = self._found.get(map_.name)
            if map_.name in self._maps:
                object_.reuse_map(map_.name, self._maps[map_.name])
            elif pinned is not None and pinned.max_entries >= entries:
                object_.reuse_map(map_.name, self._pinned[map_.name])
            elif pinned is not None:
                self._resized[map_.name] = self._pinned[map_.name]
                _log.info("map_resized", map=map_.name, entries=pinned.max_entries, new_entries=entries)

    def _set_constants(self, object_: BpfObject) -> None:
        """Give the programs what must be known before the verifier sees them."""
        found_out = self._found_out | {"peer_name_mask": lambda: object_.entries(resize.PEER_NAMES) - 1}
        for name in found_out.keys() | self._constants.keys():
            if object_.has_constant(name):
                value = self._constants[name] if name in self._constants else found_out[name]()
                object_.set_constant(name, value)

    def copy_resized(self) -> None:
        """Fill the larger maps."""
        for name, old in self._resized.items():
            resize.copy_contents(name, old, self._maps[name])

    def open_store(self) -> KernelMapStore:
        """Open all maps for the agent, from descriptors of its own."""
        store = KernelMapStore({name: os.dup(fd) for name, fd in self._maps.items()})
        self._on_failure.callback(store.close)
        return store

    def open_packet_path(self) -> PacketPath | None:
        """Open what the agent needs of the packet programs, from descriptors of its own."""
        if not self._packet_programs:
            return None
        packets = PacketPath(
            self._pins.current / DEVICE_LINKS,
            filter_name(self._pins.path),
            {name: os.dup(fd) for name, fd in self._packet_programs.items()},
            {name: os.dup(self._maps[name]) for name in packet_path.MAPS},
        )
        self._on_failure.callback(packets.close)
        return packets

    def stage(self, cgroup: Path, sockets: BpfObject) -> None:
        """Pin the maps, attach or replace every program, pin the links: all beside what is in use."""
        links = self._pins.open_links()
        self._finally.callback(close_all, links.values())
        programs = self._pins.open_programs()
        self._finally.callback(close_all, programs.values())
        self._on_failure.callback(self._pins.mend)
        self._pins.begin()
        for name, fd in self._maps.items():
            self._pins.stage("maps", name, fd)
        self._stage_sockets(sockets, Attachment(cgroup, links, programs))
        if self._packet_programs:
            self._stage_packets(programs)

    def _stage_sockets(self, object_: BpfObject, attachment: Attachment) -> None:
        self._finally.callback(attachment.close)
        self._on_failure.callback(attachment.undo)
        for program in object_.programs():
            hook, program_fd = hook_name(program.attach_type), object_.program_fd(program.name)
            link = attachment.attach(program.attach_type, program_fd)
            self._pins.stage("programs", hook, program_fd)
            self._pins.stage("links", hook, link)

    def _stage_packets(self, old: Mapping[str, int]) -> None:
        """Devices that run the old programs run the new ones from now on; to others the agent attaches them later."""
        new = self._packet_programs
        for name, fd in new.items():
            self._pins.stage("programs", name, fd)
        links = self._pins.open_device_links()
        self._finally.callback(close_all, links.values())
        replacement = ProgramReplacement(old, new, self._on_failure.callback)
        for name in replacement.links(links):
            self._pins.stage(DEVICE_LINKS, name, links[name])
        replacement.filters(filter_name(self._pins.path))

    def copy_latecomers(self) -> None:
        """Once the programs use the larger maps: bring over what they still wrote to the smaller ones."""
        if self._resized:
            grace_period = GracePeriod()
            grace_period.wait()
            grace_period.close()
        for name, old in self._resized.items():
            resize.copy_latecomers(name, old, self._maps[name])
