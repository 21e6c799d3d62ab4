# SPDX-License-Identifier: Apache-2.0
"""The packet programs of a state in use: on which devices they run, and the sweeps of what they remember."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from kubeproxy_ebpf.datapath.device_attachments import DeviceAttachments
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.map_schema import (
    FLOW_ROOM_KEY,
    FLOW_ROOM_SHARE,
    SWEEP_STATE_BYTES,
    SWEEP_STATE_KEY,
    pack_flow_room,
    pack_sweep_state,
    unpack_sweep_state,
)
from kubeproxy_ebpf.sweeper import Fill

FLOWS, SWEEP_STATE, FLOW_ROOM, DEVICES = "flows", "sweep_state", "flow_room", "devices"
MAPS = (FLOWS, SWEEP_STATE, FLOW_ROOM, DEVICES)
"""The maps that it needs: of connections that stand, of the sweep, of what it leaves, and of devices' addresses."""
CROWDED: Final = 0.75
"""The share of the table from which on connections that were closed make room sooner."""
FOR_UNCONFIRMED: Final = 0.5
"""The share of the table up to which connections stand from their first packet on."""
_SWEEP = "sweep"


class PacketPath:
    """What the agent does with the packet programs. Closing leaves them at work."""

    def __init__(
        self, device_links: Path, filter_name: str, programs: Mapping[str, int], maps: Mapping[str, int]
    ) -> None:
        """Take over the descriptors of programs and of :data:`MAPS`.

        ``device_links``: where links are pinned; ``filter_name``: what filters are called where there are no links.
        """
        self._device_links = device_links
        self._filter_name = filter_name
        self._programs = programs
        self._maps = maps
        self._most_taken = FLOW_ROOM_SHARE * syscalls.possible_cpus()  # and not used yet
        self._fill = Fill(0, syscalls.map_info(maps[FLOWS]).max_entries)
        self._resources = ExitStack()
        for fd in (*programs.values(), *maps.values()):
            self._resources.callback(os.close, fd)

    def close(self) -> None:
        """Give up the descriptors."""
        self._resources.close()

    def attachments(self) -> DeviceAttachments:
        """Open what is attached; it stays ours to close.

        Raises:
            OSError: the kernel does not say what is attached.
        """
        attachments = DeviceAttachments(self._device_links, self._programs, self._maps[DEVICES], self._filter_name)
        self._resources.callback(attachments.close)
        return attachments

    def sweep(self) -> Fill:
        """Mark connections whose time is over, and delete what an earlier sweep marked. Takes milliseconds.

        Returns:
            How full the table is with those whose time is not over.

        Raises:
            KernelError: the kernel refuses.
        """
        order = pack_sweep_state(is_crowded=self._fill.share >= CROWDED)
        syscalls.map_update(self._maps[SWEEP_STATE], SWEEP_STATE_KEY, order)
        syscalls.map_iterate(self._programs[_SWEEP], self._maps[FLOWS])
        written = syscalls.map_lookup(self._maps[SWEEP_STATE], SWEEP_STATE_KEY, SWEEP_STATE_BYTES)
        state = unpack_sweep_state(written or order)
        self._fill = self._fill._replace(entries=state.standing)
        room = int(self._fill.capacity * FOR_UNCONFIRMED) - state.kept - self._most_taken
        syscalls.map_update(self._maps[FLOW_ROOM], FLOW_ROOM_KEY, pack_flow_room(max(0, room)))
        return self._fill
