# SPDX-License-Identifier: Apache-2.0
"""The packet programs with maps of their own, run on one packet at a time, or attached to devices by a test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

import kubeproxy_ebpf
from kubeproxy_ebpf.datapath import batches
from kubeproxy_ebpf.datapath.device_hooks import DeviceHook
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.bpf_object import BpfObject
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.datapath.packet_path import PacketPath
from kubeproxy_ebpf.map_schema import (
    FLOW_ROOM_KEY,
    SWEEP_STATE_BYTES,
    SWEEP_STATE_KEY,
    pack_flow_room,
    pack_sweep_state,
    unpack_sweep_state,
)
from tests.kernel.conftest import SMALL
from tests.kernel.emptying import empty_maps
from tests.kernel.packets.packet import UNSPEC, Packet, parsed, with_right_checksums
from tests.kernel.programs import service_maps
from tests.kernel.programs.service_maps import ServiceMaps

OBJECTS = Path(kubeproxy_ebpf.__file__).parent / "bpf"
SMALL_TABLES = {"flows": 512, "opening_flows": 64, "devices": 64}
LOOPBACK = 1
_SEEN = slice(48, 52)
"""Where a flow says when it was last used."""
AGE = 1000
"""Ticks: 1024 seconds, with 250 jiffies in each as the programs believe unless they are told."""
SERVICE_CIDRS = ("10.96.0.0/16", "fd00:96::/112")


class Forward:
    """The programs, and the maps that they look Services up in."""

    def __init__(self, loaded: BpfObject) -> None:
        """Take the programs, which stay the caller's, and empty their maps."""
        self._object = loaded
        maps = [map_ for map_ in loaded.maps() if not map_.internal]
        self._store = KernelMapStore({map_.name: os.dup(loaded.map_fd(map_.name)) for map_ in maps})
        empty_maps(self._store)
        self.give_room(0)
        self.maps = ServiceMaps(self._store)
        self.maps.settings(service_cidrs=SERVICE_CIDRS)
        self.marks: dict[bytes, int] = {}

    def close(self) -> None:
        """Let go of the maps."""
        self._store.close()

    def grow_old(self, table: str = "flows") -> None:
        """Let all connections of a table have been idle for :data:`AGE`. What was never seen stays so."""
        fd = self._object.map_fd(table)
        for key, value in self.entries(table).items():
            if not any(value[_SEEN]):
                continue
            seen = int.from_bytes(value[_SEEN], sys.byteorder) - AGE
            changed = value[: _SEEN.start] + (seen % (1 << 32)).to_bytes(4, sys.byteorder) + value[_SEEN.stop :]
            syscalls.map_update(fd, key, changed)

    def sweep(self, **constants: int) -> int:
        """Look for connections whose time is over; with time-outs in seconds, else the defaults.

        Return how many entries are of others.
        """
        return self._sweep(constants, is_crowded=False)

    def crowded_sweep(self, **constants: int) -> int:
        """Do the same as the agent has it done when the table is crowded."""
        return self._sweep(constants, is_crowded=True)

    def _sweep(self, constants: Mapping[str, int], *, is_crowded: bool) -> int:
        with BpfObject(OBJECTS / "sweep.bpf.o") as sweeper:
            self._share_tables(sweeper)
            for name, value in constants.items():
                sweeper.set_constant(name, value)
            sweeper.load()
            state_fd = sweeper.map_fd("sweep_state")
            syscalls.map_update(state_fd, SWEEP_STATE_KEY, pack_sweep_state(is_crowded=is_crowded))
            syscalls.map_iterate(sweeper.program_fd("sweep"), self._object.map_fd("flows"))
            state = syscalls.map_lookup(state_fd, SWEEP_STATE_KEY, SWEEP_STATE_BYTES)
        assert state is not None
        return unpack_sweep_state(state).standing

    def _share_tables(self, sweeper: BpfObject) -> None:
        for table in ("flows", "opening_flows"):
            sweeper.reuse_map(table, self._object.map_fd(table))

    def give_room(self, entries: int) -> None:
        """Let unconfirmed connections take so many entries, of which no processor has any yet."""
        syscalls.map_update(self._object.map_fd("flow_room"), FLOW_ROOM_KEY, pack_flow_room(entries))
        nothing = bytes(8 * syscalls.possible_cpus())
        syscalls.map_update(self._object.map_fd("flow_room_shares"), FLOW_ROOM_KEY, nothing)

    def room(self) -> int:
        """Return how many entries unconfirmed connections may take."""
        value = syscalls.map_lookup(self._object.map_fd("flow_room"), FLOW_ROOM_KEY, 8)
        assert value is not None
        return int.from_bytes(value, sys.byteorder, signed=True)

    def packet_path(self, sweeper: BpfObject) -> PacketPath:
        """Return the agent's view of the connections, which is attached to nothing; ``sweeper``: not loaded yet."""
        self._share_tables(sweeper)
        sweeper.load()
        maps = {name: self._object.map_fd(name) for name in ("flows", "flow_room")}
        maps["sweep_state"] = sweeper.map_fd("sweep_state")
        return PacketPath(
            Path("/nowhere"),
            "none",
            {"sweep": os.dup(sweeper.program_fd("sweep"))},
            {name: os.dup(fd) for name, fd in maps.items()},
        )

    def run(self, hook: str, packet: Packet | bytes) -> tuple[int, bytes]:
        """Run the program of a hook, ``ingress`` or ``egress``; return its action and the packet.

        A mark stays with the packet's bytes from one hook to the next, as it does in the stack.
        """
        data = bytes(packet)
        run = syscalls.program_test_run(self._object.program_fd(f"forward_{hook}"), data, self.marks.pop(data, 0))
        if run.mark:
            self.marks[run.packet] = run.mark
        return run.action, run.packet

    def translate(self, hook: str, packet: Packet) -> Packet:
        """Return what becomes of a packet that goes on; its checksums must be right."""
        action, data = self.run(hook, packet)
        assert action == UNSPEC
        assert data == with_right_checksums(data)
        return parsed(data)

    def device(self, ipv4: str, ipv6: str, index: int = LOOPBACK) -> None:
        """Say which addresses a device has; packets of their own seem to come and go by the loopback device."""
        sources = b"".join(map(service_maps.packed, (ipv4, ipv6)))
        syscalls.map_update(self._object.map_fd("devices"), index.to_bytes(4, sys.byteorder), sources)

    def program(self, hook: DeviceHook) -> int:
        """Return the descriptor of the program of a hook, which stays ours."""
        return self._object.program_fd(f"forward_{hook.value}")

    def write(self, table: str, key: bytes, value: bytes) -> None:
        """Overwrite an entry of a table."""
        syscalls.map_update(self._object.map_fd(table), key, value)

    def fill(self, table: str, entries: list[tuple[bytes, bytes]]) -> None:
        """Write many entries of a table."""
        assert not batches.insert(self._object.map_fd(table), entries)

    def delete(self, table: str, key: bytes) -> None:
        """Delete an entry of a table."""
        syscalls.map_delete(self._object.map_fd(table), key)

    def forget_packets(self) -> None:
        """Have none remembered that was ever run."""
        for table in ("flows", "opening_flows", "fragments"):
            for key in self.entries(table):
                self.delete(table, key)

    def entries(self, table: str) -> dict[bytes, bytes]:
        """Return the keys and values of ``flows``, ``opening_flows`` or ``fragments``."""
        return dict(self._store.entries_of(table))


@contextmanager
def loaded_programs(tables: dict[str, int]) -> Iterator[BpfObject]:
    """Load the packet programs with small maps, but for these numbers of entries."""
    with BpfObject(OBJECTS / "forward.bpf.o") as object_:
        for name, entries in (SMALL.as_mapping() | SMALL_TABLES | tables).items():
            object_.set_entries(name, entries)
        object_.load()
        yield object_


@pytest.fixture(scope="session")
def loaded_forward() -> Iterator[BpfObject]:
    """Load the packet programs once: their verification takes longer than most tests."""
    with loaded_programs({}) as object_:
        yield object_


@pytest.fixture
def forward(loaded_forward: BpfObject) -> Iterator[Forward]:
    """Return the packet programs with empty maps."""
    programs = Forward(loaded_forward)
    yield programs
    programs.close()
