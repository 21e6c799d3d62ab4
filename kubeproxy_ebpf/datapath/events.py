# SPDX-License-Identifier: Apache-2.0
"""The programs' ring buffer of decisions, decoded. The programs fill it only while somebody listens."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from kubeproxy_ebpf.datapath.errors import DatapathError
from kubeproxy_ebpf.datapath.libbpf.ring_buffer import RingBuffer
from kubeproxy_ebpf.datapath.lock import holder_of
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.datapath.pins import PinFolder
from kubeproxy_ebpf.layout.changes import ArrayMap
from kubeproxy_ebpf.map_schema import (
    SETTINGS_FLAGS_OFFSET,
    SETTINGS_LISTENING,
    Event,
    settings_flags_word,
    unpack_event,
    unpack_settings,
)

EVENTS = "events"


class ListenedToError(DatapathError):
    """Somebody else reads the events: each goes to one reader."""


class EventReader:
    """Listens from its making to :meth:`close`. Poll it for reading; what comes too fast is lost, never delayed."""

    def __init__(self, store: KernelMapStore, pin_folder: Path) -> None:
        """Tell the programs of a pin folder that somebody listens. ``store``: writable.

        Raises:
            ListenedToError: there is another reader.
            KernelError: the ring buffer cannot be read.
        """
        self._store = store
        with ExitStack() as on_failure:
            self._lock = _lock(PinFolder(pin_folder).map_folder)
            on_failure.callback(os.close, self._lock)
            self._buffer = RingBuffer(store.descriptor(EVENTS))
            on_failure.callback(self._buffer.close)
            # What an earlier reader left is old.
            self._buffer.take()
            self._announce(listening=True)
            on_failure.pop_all()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when events are there."""
        return self._buffer.fileno()

    def read(self) -> list[Event]:
        """Return the events that are there, oldest first; never waits."""
        return [unpack_event(sample) for sample in self._buffer.take()]

    def close(self) -> None:
        """Stop listening."""
        self._announce(listening=False)
        self._buffer.close()
        os.close(self._lock)

    def _announce(self, *, listening: bool) -> None:
        flags = unpack_settings(self._store.read(ArrayMap.SETTINGS)).flags
        wanted = flags | SETTINGS_LISTENING if listening else flags & ~SETTINGS_LISTENING
        self._store.publish(ArrayMap.SETTINGS, SETTINGS_FLAGS_OFFSET, settings_flags_word(wanted))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()


def _lock(folder: Path) -> int:
    """Return a descriptor that holds the lock of a folder, and loses it with its owner."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        msg = f"events are read by {holder_of(folder)}, and go to one reader: end that first"
        raise ListenedToError(msg) from None
    return fd
