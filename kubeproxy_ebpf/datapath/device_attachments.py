# SPDX-License-Identifier: Apache-2.0
"""The network devices that run the packet programs: they go on doing so when the agent is gone, and are found again.

Where the kernel has TCX, each place is a link that is pinned beside the state's others; elsewhere it is a filter, which
the kernel keeps with the device.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kubeproxy_ebpf.datapath import device_hooks
from kubeproxy_ebpf.datapath.device_hooks import DeviceHook
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.errors import KernelError
from kubeproxy_ebpf.datapath.netlink import RouteSocket
from kubeproxy_ebpf.map_schema import pack_device, pack_device_key
from kubeproxy_ebpf.plan.devices import Device


def program_name(hook: DeviceHook, *, has_ethernet: bool) -> str:
    """Return what the program for a hook is called, in the object file and where it is pinned."""
    return f"forward_{hook.value}" if has_ethernet else f"forward_{hook.value}_ip"


_LONGEST_NAME = 255
"""Bytes of a filter's name (CLS_BPF_NAME_LEN, with its end)."""
PROGRAMS = frozenset(program_name(hook, has_ethernet=layer) for hook in DeviceHook for layer in (True, False))
"""The programs for devices: for those whose packets have an Ethernet header, and for the others."""


@dataclass(frozen=True, slots=True)
class Place:
    """A hook of a device, by its interface index."""

    index: int
    hook: DeviceHook

    @property
    def file_name(self) -> str:
        """What its link is called in the pin folder: ``2_ingress``."""
        return f"{self.index}_{self.hook.value}"

    @classmethod
    def of_file(cls, name: str) -> Place:
        """Return the place that a link was pinned for."""
        index, _, hook = name.partition("_")
        return cls(int(index), DeviceHook(hook))


def filter_name(pin_folder: Path) -> str:
    """Return what filters are called: they belong to the state in one pin folder, and to no other agent's."""
    return f"kubeproxy-ebpf {pin_folder}"[:_LONGEST_NAME]


class DeviceAttachments:
    """Attaches and detaches the programs of a state that is in use. Only the holder of its lock does."""

    def __init__(self, folder: Path, programs: Mapping[str, int], addresses: int, filter_name: str) -> None:
        """Find out what is attached. ``folder``: where links are pinned; ``filter_name``: what ours are called.

        The descriptors of :data:`PROGRAMS`, by name, and of the map of devices' ``addresses``, stay the caller's.

        Raises:
            KernelError: a link cannot be opened.
            OSError: netlink is refused.
        """
        self._folder = folder
        self._programs = programs
        self._addresses = addresses
        self._filter_name = filter_name
        self._resources = ExitStack()
        try:
            self._kernel = self._resources.enter_context(closing(RouteSocket()))
            self._program_ids = {name: syscalls.program_info(fd).id for name, fd in programs.items()}
            paths = sorted(folder.iterdir())
            self._links = {Place.of_file(path.name): syscalls.open_pinned(str(path)) for path in paths}
            self._filters = set(our_filters(self._kernel, filter_name))
        except BaseException:
            self._resources.close()
            raise

    def close(self) -> None:
        """Give up the descriptors; what is attached stays."""
        for fd in self._links.values():
            os.close(fd)
        self._links.clear()
        self._resources.close()

    def devices(self) -> set[int]:
        """Return the indices of the devices that the programs were attached to."""
        return {place.index for place in (*self._links, *self._filters)}

    def is_attached(self, index: int, device: Device) -> bool:
        """Whether a device runs both programs, as the kernel says."""
        return all(
            self._runs(Place(index, hook), program_name(hook, has_ethernet=device.has_ethernet)) for hook in DeviceHook
        )

    def attach(self, index: int, device: Device) -> None:
        """Have a device run both programs, wherever it does not yet, under its addresses.

        Raises:
            OSError: the kernel refuses; with ENODEV, there is no such device any more.
        """
        sources = pack_device(device.source_ipv4, device.source_ipv6)
        syscalls.map_update(self._addresses, pack_device_key(index), sources)
        try:
            for hook in DeviceHook:
                name = program_name(hook, has_ethernet=device.has_ethernet)
                if not self._runs(Place(index, hook), name):
                    self._attach(Place(index, hook), self._programs[name])
        except OSError:
            self._forget_addresses(index)
            raise

    def detach(self, index: int) -> None:
        """Have a device run neither; one that is gone is forgotten.

        Raises:
            OSError: the kernel refuses.
        """
        for hook in DeviceHook:
            self._detach(Place(index, hook))
        self._forget_addresses(index)

    def _forget_addresses(self, index: int) -> None:
        try:
            syscalls.map_delete(self._addresses, pack_device_key(index))
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise

    def _attach(self, place: Place, program: int) -> None:
        self._detach(place)
        link = device_hooks.attach_link(place.index, place.hook, program)
        if link is None:
            device_hooks.attach_filter(self._kernel, place.index, place.hook, program, self._filter_name)
            self._filters.add(place)
            return
        try:
            syscalls.pin(link, str(self._folder / place.file_name))
        except KernelError:
            os.close(link)  # and with its last descriptor the link goes
            raise
        self._links[place] = link

    def _detach(self, place: Place) -> None:
        link = self._links.pop(place, None)
        if link is not None:
            (self._folder / place.file_name).unlink(missing_ok=True)
            try:
                syscalls.link_detach(link)
            finally:
                os.close(link)
        if place in self._filters:
            device_hooks.detach_filter(self._kernel, place.index, place.hook)
            self._filters.discard(place)

    def _runs(self, place: Place, name: str) -> bool:
        link = self._links.get(place)
        if link is not None:
            info = syscalls.link_info(link)
            return info.interface == place.index and info.program_id == self._program_ids[name]
        if place not in self._filters:
            return False
        found = device_hooks.find_filter(self._kernel, place.index, place.hook)
        return found is not None and found.program_id == self._program_ids[name]


def our_filters(kernel: RouteSocket, name: str) -> Iterator[Place]:
    """Yield the places where a filter of this name is, in the network namespace of the socket."""
    for index in device_hooks.devices_with_filters(kernel):
        for hook in DeviceHook:
            found = device_hooks.find_filter(kernel, index, hook)
            if found is not None and found.name == name:
                yield Place(index, hook)


def attached_devices(links: Iterable[int], filter_name: str) -> frozenset[str]:
    """Return the names of the devices that run our programs: by links, given as descriptors, or by filters.

    Raises:
        OSError: the kernel does not say.
    """
    indices = {syscalls.link_info(link).interface for link in links}
    with closing(RouteSocket()) as kernel:
        indices |= {place.index for place in our_filters(kernel, filter_name)}
    return frozenset(name for index, name in socket.if_nameindex() if index in indices)


class ProgramReplacement:
    """Has every device that runs old programs run new ones of the same names; there is no moment without."""

    def __init__(self, old: Mapping[str, int], new: Mapping[str, int], undo: Callable[..., object]) -> None:
        """Take descriptors by name, which stay the caller's. ``undo`` is called with what undoes each step."""
        self._old = old
        self._new = new
        self._names = {syscalls.program_info(fd).id: name for name, fd in old.items() if name in PROGRAMS}
        self._undo = undo

    def links(self, links: Mapping[str, int]) -> list[str]:
        """Update links, given as descriptors by their file names; return the names of those at a device still.

        Raises:
            KernelError: the kernel refuses.
        """
        alive = []
        for file_name, link in links.items():
            info = syscalls.link_info(link)
            if not info.interface:
                continue  # its device is gone
            name = self._name(info.program_id, Place.of_file(file_name).hook)
            if name in self._old:
                self._undo(_update_unless_gone, link, self._old[name])
            if _update_unless_gone(link, self._new[name]):
                alive.append(file_name)
        return alive

    def filters(self, filter_name: str) -> None:
        """Replace the filters of this name in this network namespace.

        Raises:
            OSError: the kernel refuses.
        """
        with closing(RouteSocket()) as kernel:
            for place in our_filters(kernel, filter_name):
                found = device_hooks.find_filter(kernel, place.index, place.hook)
                name = self._name(found.program_id if found else 0, place.hook)
                if name in self._old:
                    self._undo(_put_back, place, self._old[name], filter_name)
                with _may_be_gone(place.index):
                    device_hooks.attach_filter(kernel, place.index, place.hook, self._new[name], filter_name)

    def _name(self, program_id: int, hook: DeviceHook) -> str:
        """Return which program it is; one that a load which was killed left there is put right by the agent."""
        return self._names.get(program_id, program_name(hook, has_ethernet=True))


def _update_unless_gone(link: int, program: int) -> bool:
    """Replace a link's program; False: its device went meanwhile."""
    try:
        syscalls.link_update(link, program)
    except KernelError:
        if syscalls.link_info(link).interface:
            raise
        return False
    return True


@contextmanager
def _may_be_gone(index: int) -> Iterator[None]:
    """Let something fail if the device goes meanwhile."""
    try:
        yield
    except OSError:
        if index in {number for number, _ in socket.if_nameindex()}:
            raise


def _put_back(place: Place, program: int, filter_name: str) -> None:
    with closing(RouteSocket()) as kernel, _may_be_gone(place.index):
        device_hooks.attach_filter(kernel, place.index, place.hook, program, filter_name)


def remove_filters(filter_name: str) -> None:
    """Delete all filters of this name in this network namespace; links go with their pins.

    Raises:
        OSError: the kernel refuses.
    """
    with closing(RouteSocket()) as kernel:
        for place in our_filters(kernel, filter_name):
            device_hooks.detach_filter(kernel, place.index, place.hook)
