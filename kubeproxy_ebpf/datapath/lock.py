# SPDX-License-Identifier: Apache-2.0
"""One writer for a pin folder: a lock on the directory itself, so that it goes when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import structlog

from kubeproxy_ebpf.datapath.errors import BpffsError, LockedError

POLL_SECONDS = 0.1
_log = structlog.get_logger(__name__)


class FolderLock:
    """An exclusive flock(2) on a directory, until :meth:`release` or the end of the process."""

    def __init__(self, folder: Path, timeout: float) -> None:
        """Create the folder if need be, and wait up to ``timeout`` seconds for its lock.

        Raises:
            LockedError: somebody else still holds it; the message names the process.
            BpffsError: the folder cannot be created.
        """
        deadline = time.monotonic() + timeout
        announced = False
        while (fd := _try_lock(folder)) is None:
            holder = holder_of(folder)
            if time.monotonic() >= deadline:
                msg = (
                    f"{folder} is in use by {holder} (waited {timeout:g} s): stop that agent, or use another pin folder"
                )
                raise LockedError(msg)
            if not announced:
                _log.info("pin_folder_locked", folder=str(folder), holder=holder, timeout=timeout)
                announced = True
            time.sleep(POLL_SECONDS)
        self._fd = fd

    def release(self) -> None:
        """Let the next one in. Once is enough, again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _try_lock(folder: Path) -> int | None:
    """Return a descriptor that holds the lock, or None if it is taken."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        msg = f"cannot use {folder} as pin folder: {error.strerror}; it must lie in a writable BPF file system"
        raise BpffsError(msg) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have removed the folder, and with it what this lock would guard.
        if os.path.samestat(os.fstat(fd), folder.stat()):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def holder_of(folder: Path) -> str:
    """Return who holds a folder's lock, from /proc/locks: ``process 42 (kubeproxy-ebpf run)``."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return "nobody"
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5] == place:
            return f"process {fields[4]} ({_command_of(fields[4])})"
    # The kernel lists only holders that this PID namespace can see.
    return "a process of another PID namespace"


def _command_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "which has ended meanwhile"
