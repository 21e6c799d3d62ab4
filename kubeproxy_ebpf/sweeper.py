# SPDX-License-Identifier: Apache-2.0
"""Has connections forgotten whose time is over, again and again, in a thread of its own: the kernel does the work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import structlog

PERIOD: Final = 10.0
"""Seconds between two sweeps; what one marks the next one deletes."""

_log = structlog.get_logger(__name__)


class Sweeper:
    """Calls a function every :data:`PERIOD` seconds, which blocks in the kernel for milliseconds."""

    def __init__(self, sweep: Callable[[], None], period: float = PERIOD) -> None:
        """Start the thread, asleep."""
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
        had_failed = False
        while not self._closing.wait(self._period):
            try:
                self._sweep()
            except OSError as error:
                if not had_failed:
                    reason = "connections that are over stay in the table until a sweep succeeds"
                    _log.error("sweep_failed", error=str(error), reason=reason)
                had_failed = True
            else:
                had_failed = False
