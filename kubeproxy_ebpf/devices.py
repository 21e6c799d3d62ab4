# SPDX-License-Identifier: Apache-2.0
"""Keeps the packet programs on the devices that lead to others, as these come, change and go."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import structlog

from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.model.network import NodeNetwork
from kubeproxy_ebpf.plan.devices import Device, devices_to_others, matches

_log = structlog.get_logger(__name__)


class DeviceError(Exception):
    """The configuration names devices that are not there."""


def require_matches(network: NodeNetwork, patterns: tuple[str, ...]) -> None:
    """Raise DeviceError if patterns are given and no device has such a name now; others may come later."""
    if patterns and not any(matches(one, patterns) for one in network.interfaces):
        names = ", ".join(sorted(one.name for one in network.interfaces if not one.is_loopback)) or "none"
        msg = f"devices: no network device is called {', '.join(patterns)}; there are {names}: name one of them"
        raise DeviceError(msg)


class Attachments(Protocol):
    """Where programs are attached: the kernel's side, ``datapath.device_attachments``. Each may raise OSError."""

    def devices(self) -> set[int]:
        """Return the indices of the devices that the programs were attached to."""
        ...

    def is_attached(self, index: int, device: Device) -> bool:
        """Whether a device runs the programs, as the kernel says."""
        ...

    def attach(self, index: int, device: Device) -> None:
        """Have a device run the programs, under its addresses."""
        ...

    def detach(self, index: int) -> None:
        """Have a device run them no more; one that is gone is forgotten."""
        ...


class DeviceKeeper:
    """Has the programs attached where they belong. What fails is said once, and tried again with the next look."""

    def __init__(self, attachments: Attachments, patterns: tuple[str, ...]) -> None:
        """Start with what is attached; ``patterns`` name devices in place of what would be found out."""
        self._attachments = attachments
        self._patterns = patterns
        self._kept: dict[int, Device] = {}
        self._failed: dict[int, str] = {}
        self._known: tuple[NodeNetwork, Collection[Address]] | None = None
        self._wanted: Mapping[int, Device] = {}
        """What follows from it: a node has as many routes as pods, and most looks find nothing new."""

    def look(self, network: NodeNetwork, node_addresses: Collection[Address]) -> None:
        """Attach to devices that came, and where somebody else detached; detach from those that lead nowhere now."""
        if self._known != (network, node_addresses):
            self._known = network, node_addresses
            self._wanted = devices_to_others(network, node_addresses, self._patterns)
        for index in sorted((self._attachments.devices() | self._kept.keys()) - self._wanted.keys()):
            with self._failure_noted(index, self._kept.get(index)):
                self._detach(index)
        for index, device in self._wanted.items():
            with self._failure_noted(index, device):
                self._attach(index, device)

    def _attach(self, index: int, device: Device) -> None:
        kept = self._kept.get(index)
        if kept == device and self._attachments.is_attached(index, device):
            return
        self._attachments.attach(index, device)
        if kept is None:
            _log.info("packet_programs_attached", device=device.name, index=index)
        elif kept == device:
            reason = "somebody else had detached them"
            _log.warning("packet_programs_attached_again", device=device.name, index=index, reason=reason)
        self._kept[index] = device

    def _detach(self, index: int) -> None:
        self._attachments.detach(index)
        device = self._kept.pop(index, None)
        _log.info("packet_programs_detached", device=device.name if device else None, index=index)

    @contextmanager
    def _failure_noted(self, index: int, device: Device | None) -> Iterator[None]:
        """Say once what fails; that a device is gone is no failure: netlink will say so, too."""
        try:
            yield
        except OSError as error:
            reason = str(error)
            if error.errno != errno.ENODEV and self._failed.get(index) != reason:
                self._failed[index] = reason
                name = device.name if device else None
                _log.error("packet_programs_not_in_place", device=name, index=index, error=reason)
        else:
            self._failed.pop(index, None)
