# SPDX-License-Identifier: Apache-2.0
"""The programs' ring buffer of decisions, decoded. The programs fill it only while somebody listens."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from kubeproxy_ebpf.datapath.libbpf.ring_buffer import RingBuffer
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
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


class EventReader:
    """Listens from its making to :meth:`close`. Poll it for reading; what comes too fast is lost, never delayed.

    Each event goes to one reader: two at a time would each miss some.
    """

    def __init__(self, store: KernelMapStore) -> None:
        """Tell the programs that somebody listens.

        Raises:
            KernelError: the ring buffer cannot be read.
            ValueError: the store is read-only.
        """
        self._store = store
        self._buffer = RingBuffer(store.descriptor(EVENTS))
        try:
            # What an earlier reader left is old.
            self._buffer.take()
            self._announce(listening=True)
        except BaseException:
            self._buffer.close()
            raise

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
