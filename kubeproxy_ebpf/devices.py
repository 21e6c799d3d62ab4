# SPDX-License-Identifier: Apache-2.0
"""Keeps the packet programs on the devices that lead to others, as these come, change and go."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping
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
    """Where programs are attached: the kernel's side, ``datapath.device_attachments``."""

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
    """Has the programs attached where they belong. What fails is tried again with the next look."""

    def __init__(self, attachments: Attachments, patterns: tuple[str, ...]) -> None:
        """Start with what is attached; ``patterns`` name devices in place of what would be found out."""
        self._attachments = attachments
        self._patterns = patterns
        self._kept: dict[int, Device] = {}
        self._wanted: Mapping[int, Device] = {}
        self._failed: dict[int, str] = {}

    def follow(self, network: NodeNetwork, node_addresses: Collection[Address]) -> None:
        """Attach to devices that came, detach from those that lead to others no more, and give all their addresses."""
        self._wanted = devices_to_others(network, node_addresses, self._patterns)
        for index in sorted((self._attachments.devices() | self._kept.keys()) - self._wanted.keys()):
            self._detach(index)
        self._attach_missing()

    def check(self) -> None:
        """Attach again where somebody else took the programs away, and where it failed before."""
        for index, device in list(self._kept.items()):
            if not self._attachments.is_attached(index, device):
                del self._kept[index]
                _log.warning(
                    "packet_programs_missing", device=device.name, index=index, reason="somebody detached them"
                )
        self._attach_missing()

    def _attach_missing(self) -> None:
        for index, device in self._wanted.items():
            if self._kept.get(index) == device:
                continue
            try:
                self._attachments.attach(index, device)
            except OSError as error:
                self._note_failure(index, device, error)
            else:
                if index not in self._kept:
                    _log.info("packet_programs_attached", device=device.name, index=index)
                self._kept[index] = device
                self._failed.pop(index, None)

    def _detach(self, index: int) -> None:
        device = self._kept.pop(index, None)
        self._failed.pop(index, None)
        self._attachments.detach(index)
        _log.info("packet_programs_detached", device=device.name if device else None, index=index)

    def _note_failure(self, index: int, device: Device, error: OSError) -> None:
        """Say once why a device has no programs; one that is gone is no failure: netlink will say so, too."""
        reason = str(error)
        if error.errno != errno.ENODEV and self._failed.get(index) != reason:
            self._failed[index] = reason
            _log.error("packet_programs_not_attached", device=device.name, index=index, error=reason)
