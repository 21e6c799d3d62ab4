# SPDX-License-Identifier: Apache-2.0
"""Numbers of the kernel's interface (include/uapi/linux/bpf.h, magic.h) that this agent uses."""

from __future__ import annotations

import enum

CGROUP2_MAGIC = 0x63677270
BPFFS_MAGIC = 0xCAFE4A11


class MapType(enum.IntEnum):
    """enum bpf_map_type."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    SK_STORAGE = 24
    RINGBUF = 27


class ProgramType(enum.IntEnum):
    """enum bpf_prog_type."""

    SOCKET_FILTER = 1
    SCHED_CLS = 3
    CGROUP_SOCK = 9
    CGROUP_SOCK_ADDR = 18


class AttachType(enum.IntEnum):
    """enum bpf_attach_type, where a socket program hooks in."""

    CONNECT4 = 10
    CONNECT6 = 11
    SENDMSG4 = 14
    SENDMSG6 = 15
    RECVMSG4 = 19
    RECVMSG6 = 20
    GETPEERNAME4 = 29
    GETPEERNAME6 = 30
    SOCK_RELEASE = 34

    @property
    def program_type(self) -> ProgramType:
        """The type that a program for this hook has."""
        return ProgramType.CGROUP_SOCK if self is AttachType.SOCK_RELEASE else ProgramType.CGROUP_SOCK_ADDR


class Helper(enum.IntEnum):
    """enum bpf_func_id: the helpers whose presence is not certain on every kernel since 5.10."""

    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    GET_PRANDOM_U32 = 7
    GET_CURRENT_COMM = 16
    GET_SOCKET_COOKIE = 46
    SPIN_LOCK = 93
    SPIN_UNLOCK = 94
    SK_STORAGE_GET = 107
    PROBE_READ_KERNEL = 113
    JIFFIES64 = 118
    GET_NETNS_COOKIE = 122
    KTIME_GET_BOOT_NS = 125
    RINGBUF_RESERVE = 131
    RINGBUF_SUBMIT = 132
    KTIME_GET_COARSE_NS = 160
    SET_RETVAL = 187


class DeviceAttachType(enum.IntEnum):
    """enum bpf_attach_type: where programs meet the packets of a network device, since 6.6."""

    TCX_INGRESS = 46
    TCX_EGRESS = 47
