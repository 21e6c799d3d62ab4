# SPDX-License-Identifier: Apache-2.0
"""Puts programs where a network device's packets come in and leave: TCX since Linux 6.6, filters of tc(8) before.

A TCX link is pinned by whoever made it, and attaches before everybody else's. A filter has a place of its own in the
device's qdisc ``clsact``, which others may use, too: the kernel keeps it and its program until it is deleted.
"""

from __future__ import annotations

import enum
import errno
from struct import Struct
from typing import NamedTuple

from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.errors import KernelError
from kubeproxy_ebpf.datapath.libbpf.kernel_types import DeviceAttachType
from kubeproxy_ebpf.datapath.netlink import RouteSocket, attribute, attributes_of

FILTER_PRIORITY = 1
"""Before all filters that let the kernel choose (49152 and down)."""
FILTER_HANDLE = 0x6B70
"""By which ours is known: "kp"."""

# linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h
_NEW_QDISC, _GET_QDISC, _NEW_FILTER, _DELETE_FILTER, _GET_FILTER = 36, 38, 44, 45, 46
_CREATE, _EXCLUSIVE, _REPLACE = 0x400, 0x200, 0x100
_CLSACT_HANDLE, _CLSACT_PARENT = 0xFFFF0000, 0xFFFFFFF1
_KIND, _OPTIONS = 1, 2
_BPF_FD, _BPF_NAME, _BPF_FLAGS, _BPF_ID = 6, 7, 8, 11
_DIRECT_ACTION = 1
_CLSACT = b"clsact\0"
_EVERY_PROTOCOL = 0x0300
"""ETH_P_ALL in network order."""
_MESSAGE = Struct("=BxxxiIII")
"""struct tcmsg: family, interface index, handle, parent, priority and protocol."""
_NUMBER = Struct("=I")

_NO_FILTER = {errno.ENOENT, errno.EINVAL, errno.ENODEV}
"""What the kernel says without the filter, without the qdisc, and without the device."""


class DeviceHook(enum.Enum):
    """Where a device's packets are met."""

    INGRESS = "ingress"
    EGRESS = "egress"


_ATTACH_TYPES = {DeviceHook.INGRESS: DeviceAttachType.TCX_INGRESS, DeviceHook.EGRESS: DeviceAttachType.TCX_EGRESS}
_PARENTS = {DeviceHook.INGRESS: 0xFFFFFFF2, DeviceHook.EGRESS: 0xFFFFFFF3}


def attach_link(index: int, hook: DeviceHook, program_fd: int) -> int | None:
    """Attach a program before all others; return the descriptor of its link, None where the kernel has no TCX.

    Raises:
        KernelError: the kernel refuses.
    """
    try:
        return syscalls.link_create(program_fd, index, _ATTACH_TYPES[hook], syscalls.BEFORE)
    except KernelError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def attach_filter(kernel: RouteSocket, index: int, hook: DeviceHook, program_fd: int, name: str) -> None:
    """Attach a program as a filter, in place of the one that is there of ours; there is no moment without one.

    Raises:
        OSError: the kernel refuses.
    """
    qdisc = _MESSAGE.pack(0, index, _CLSACT_HANDLE, _CLSACT_PARENT, 0) + attribute(_KIND, _CLSACT)
    try:
        kernel.change(_NEW_QDISC, _CREATE | _EXCLUSIVE, qdisc)
    except FileExistsError:
        if index not in devices_with_filters(kernel):
            reason = "its qdisc `ingress` takes the place of `clsact`, which has egress too: replace it (tc qdisc)"
            raise OSError(errno.EBUSY, reason) from None
    found = find_filter(kernel, index, hook)
    if found is not None and found.name != name:
        raise OSError(errno.EBUSY, f"the filter of {found.name!r} is in its place: remove it (tc filter)")
    options = (
        attribute(_BPF_FD, _NUMBER.pack(program_fd))
        + attribute(_BPF_NAME, name.encode() + b"\0")
        + attribute(_BPF_FLAGS, _NUMBER.pack(_DIRECT_ACTION))
    )
    body = _filter(index, hook) + attribute(_KIND, b"bpf\0") + attribute(_OPTIONS, options)
    kernel.change(_NEW_FILTER, _CREATE | _REPLACE, body)


def detach_filter(kernel: RouteSocket, index: int, hook: DeviceHook) -> bool:
    """Delete our filter; False: there was none. The qdisc stays: others may have filters in it.

    Raises:
        OSError: the kernel refuses.
    """
    try:
        kernel.change(_DELETE_FILTER, 0, _filter(index, hook) + attribute(_KIND, b"bpf\0"))
    except OSError as error:
        if error.errno in _NO_FILTER:
            return False
        raise
    return True


class Filter(NamedTuple):
    """A filter in our place."""

    program_id: int
    name: str
    """Whose it is."""


def find_filter(kernel: RouteSocket, index: int, hook: DeviceHook) -> Filter | None:
    """Return what is in our place; None: nothing, or no such device.

    Raises:
        OSError: the kernel refuses.
    """
    try:
        entry = kernel.look_up(_GET_FILTER, _filter(index, hook) + attribute(_KIND, b"bpf\0"), _MESSAGE)
    except OSError as error:
        if error.errno in _NO_FILTER:
            return None
        raise
    options = attributes_of(entry.attributes.get(_OPTIONS, b""))
    name = options.get(_BPF_NAME, b"").rstrip(b"\0").decode(errors="surrogateescape")
    return Filter(_NUMBER.unpack(options.get(_BPF_ID, bytes(4)))[0], name)


def devices_with_filters(kernel: RouteSocket) -> list[int]:
    """Return the indices of the devices that have the qdisc ``clsact``, whoever made it.

    Raises:
        OSError: the kernel refuses.
    """
    qdiscs = kernel.listing(_GET_QDISC, _MESSAGE)
    return [entry.fields[1] for entry in qdiscs if entry.attributes.get(_KIND) == _CLSACT]


def _filter(index: int, hook: DeviceHook) -> bytes:
    place = FILTER_PRIORITY << 16 | _EVERY_PROTOCOL
    return _MESSAGE.pack(0, index, FILTER_HANDLE, _PARENTS[hook], place)
