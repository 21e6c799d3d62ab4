# SPDX-License-Identifier: Apache-2.0
"""Has connections forgotten whose time is over, again and again, in a thread of its own: the kernel does the work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

PERIOD: Final = 10.0
"""Seconds between two sweeps; what one marks the next one deletes."""

_NEARLY_FULL, _ROOM_AGAIN = 0.9, 0.8
"""Shares of the table: what is said at the one is said again only after it was down at the other."""
_log = structlog.get_logger(__name__)


class Fill(NamedTuple):
    """How full the table of connections is, in entries."""

    entries: int
    capacity: int

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.entries / self.capacity


class Sweeper:
    """Calls a function at once and every :data:`PERIOD` seconds, which blocks in the kernel for milliseconds."""

    def __init__(self, sweep: Callable[[], Fill], period: float = PERIOD) -> None:
        """Start the thread."""
        self._sweep = sweep
        self._period = period
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; blocks no longer than a sweep."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        had_failed, is_nearly_full = False, False
        while not self._closing.is_set():
            try:
                fill = self._sweep()
            except OSError as error:
                if not had_failed:
                    reason = "connections that are over stay in the table until a sweep succeeds"
                    _log.error("sweep_failed", error=str(error), reason=reason)
                had_failed = True
            else:
                had_failed = False
                is_nearly_full = _warn_if_nearly_full(fill, was=is_nearly_full)
            self._closing.wait(self._period)


def _warn_if_nearly_full(fill: Fill, *, was: bool) -> bool:
    """Say once that the table is nearly full; return whether that is still so."""
    if not was and fill.share >= _NEARLY_FULL:
        remedy = "give mapSizes.flows more entries and restart; until then new connections may be forgotten under load"
        _log.warning("flows_nearly_full", entries=fill.entries, capacity=fill.capacity, remedy=remedy)
        return True
    return was and fill.share >= _ROOM_AGAIN
