# SPDX-License-Identifier: Apache-2.0
"""Finds the cgroup whose processes the socket hooks see: the real cgroup v2 root, or the one asked for."""

from __future__ import annotations

import os
from pathlib import Path

from kubeproxy_ebpf.datapath.errors import CgroupError
from kubeproxy_ebpf.datapath.libbpf.kernel_types import CGROUP2_MAGIC
from kubeproxy_ebpf.datapath.libbpf.syscalls import filesystem_magic

ROOT_INODE = 1
"""The root of the hierarchy. The root of a private cgroup namespace looks the same in mountinfo, but has another."""


def find_cgroup_root(mountinfo: Path = Path("/proc/self/mountinfo")) -> Path:
    """Return where the real root of cgroup v2 is mounted.

    Raises:
        CgroupError: it is not mounted in this mount namespace; the message says what is.
    """
    mounts = _cgroup2_mounts(mountinfo)
    for mount in mounts:
        if _inode(mount) == ROOT_INODE:
            return mount
    if mounts:
        found = ", ".join(map(str, mounts))
        msg = (
            f"cgroup v2 is mounted at {found}, but none is the root of the hierarchy: "
            "mount the host's into this container, or name a cgroup with --cgroup"
        )
    else:
        msg = "cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup, or name a cgroup with --cgroup"
    raise CgroupError(msg)


def _cgroup2_mounts(mountinfo: Path) -> list[Path]:
    """Parse proc_pid_mountinfo(5): optional fields end at a dash, then comes the type; octal escapes in paths."""
    mounts = []
    for line in mountinfo.read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            mounts.append(Path(before.split()[4].encode().decode("unicode_escape")))
    return mounts


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def cgroup_id(cgroup_fd: int) -> int:
    """Return the id that the kernel's links show: the inode number in the cgroup2 file system."""
    return os.fstat(cgroup_fd).st_ino


def open_cgroup(path: Path) -> int:
    """Return a descriptor of a cgroup v2 directory.

    Raises:
        CgroupError: the path is none.
    """
    try:
        if filesystem_magic(str(path)) != CGROUP2_MAGIC:
            msg = f"{path} is not in a cgroup v2 file system: name a directory of one with --cgroup"
            raise CgroupError(msg)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        msg = f"cannot open cgroup {path}: {error.strerror}; name an existing one with --cgroup"
        raise CgroupError(msg) from error
