# SPDX-License-Identifier: Apache-2.0
"""The cookie of this process's network namespace: by it the programs know the host's sockets."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

from kubeproxy_ebpf.datapath.cgroups import find_cgroup_root, open_cgroup
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.kernel_types import AttachType, Helper, MapType
from kubeproxy_ebpf.datapath.libbpf.programs import (
    Instruction,
    add_immediate,
    call,
    leave,
    load_instructions,
    load_map,
    move_immediate,
    move_register,
    store_immediate,
    store_word,
)

SO_NETNS_COOKIE = 71
R0, R1, R2, R3, R4, FRAME = 0, 1, 2, 3, 4, 10


def host_netns_cookie() -> int:
    """Return the cookie of the network namespace that this process is in.

    Raises:
        OSError: neither the socket option nor a program can tell.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        except OSError:
            # Kernels before 5.14 tell it to programs only.
            return cookie_by_program(own_cgroup())
    return int.from_bytes(answer, sys.byteorder)


def own_cgroup() -> Path:
    """Return the cgroup v2 directory of this process (cgroups(7): the line of hierarchy 0)."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    relative = next(line.removeprefix("0::/") for line in lines if line.startswith("0::"))
    return find_cgroup_root() / relative


def cookie_by_program(cgroup: Path) -> int:
    """Attach a program to the cgroup of this process for one connect() of our own, and return what it saw."""
    with ExitStack() as descriptors:
        answer = syscalls.map_create(MapType.ARRAY, "netns_cookie", 4, 8, 1)
        descriptors.callback(os.close, answer)
        program = load_instructions(AttachType.CONNECT4, "netns_cookie", _store_cookie(answer))
        descriptors.callback(os.close, program)
        target = open_cgroup(cgroup)
        descriptors.callback(os.close, target)
        descriptors.callback(os.close, syscalls.link_create(program, target, AttachType.CONNECT4))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # The discard port: connecting a datagram socket sends nothing.
            probe.connect(("127.0.0.1", 9))
        value = syscalls.map_lookup(answer, bytes(4), 8)
    return int.from_bytes(value or b"", sys.byteorder)


def _store_cookie(map_fd: int) -> tuple[Instruction, ...]:
    """``answer[0] = bpf_get_netns_cookie(ctx); return 1``."""
    return (
        call(Helper.GET_NETNS_COOKIE),
        store_word(FRAME, -8, R0),
        store_immediate(FRAME, -12, 0),
        load_map(R1, map_fd),
        move_register(R2, FRAME),
        add_immediate(R2, -12),
        move_register(R3, FRAME),
        add_immediate(R3, -8),
        move_immediate(R4, 0),
        call(Helper.MAP_UPDATE_ELEM),
        move_immediate(R0, 1),
        leave(),
    )
